"""What an execution writes: kept apart, in order, bounded; what it says about itself is believed by nobody else."""

import gc
import resource
import time
import tracemalloc

import pytest

from sandgate.core.execution import ExecutionRequest
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus
from tests.runtime.hosts import Bench, Lag

SMALL = Limits(output_bytes=4096, drained_output_bytes=64 * 1024)
WRITE = "import os\ndef write(fd, data):\n    while data: data = data[os.write(fd, data):]\n"


async def test_streams_are_apart_and_in_order(bench: Bench) -> None:
    """Each stream has what was written to it, in order, by whichever process."""
    code = (
        "import os, sys\nfor i in range(200):\n    print(i)\n    print(-i, file=sys.stderr)\n"
        "    if i % 50 == 0: os.system('echo s')\n"
    )
    ran = await bench.run(await bench.make(), code)
    lines = [line for i in range(200) for line in ([str(i), "s"] if i % 50 == 0 else [str(i)])]
    assert ran.stdout.decode().split() == lines
    assert ran.stderr.decode().split() == [str(-i) for i in range(200)]
    assert not ran.stdout_truncated
    assert not ran.stderr_truncated


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("surplus", [-1, 0, 1, 5000])
@pytest.mark.few_on_gvisor(surplus=[0, 5000])
async def test_cap(stream: int, surplus: int, bench: Bench) -> None:
    """Output is kept to the cap exactly, and what is more is dropped, with a word about it."""
    sandbox = await bench.make(limits=SMALL)
    ran = await bench.run(sandbox, f"{WRITE}write({stream}, b'x' * {SMALL.output_bytes + surplus})")
    kept = {1: ran.stdout, 2: ran.stderr}
    truncated = {1: ran.stdout_truncated, 2: ran.stderr_truncated}
    assert ran.status is ExecutionStatus.COMPLETED
    assert kept.pop(stream) == b"x" * min(SMALL.output_bytes, SMALL.output_bytes + surplus)
    assert truncated.pop(stream) is (surplus > 0)
    assert list(kept.values()) == [b""]
    assert list(truncated.values()) == [False]


async def test_ten_megabytes(bench: Bench) -> None:
    """A long output is kept to its cap and drained beyond it, so that the code comes to its end."""
    ran = await bench.run(await bench.make(), "for i in range(10): print('x' * (1 << 20))\nimport sys; sys.exit(7)")
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, 7)
    assert len(ran.stdout) == MIB
    assert ran.stdout_truncated


async def test_long_output_within_the_cap(bench: Bench) -> None:
    """Many pipes full arrive whole."""
    limits = Limits(output_bytes=4 * MIB)
    ran = await bench.run(await bench.make(limits=limits), f"{WRITE}write(1, bytes(range(256)) * 8192)\nwrite(2, b'e')")
    assert ran.stdout == bytes(range(256)) * 8192
    assert ran.stderr == b"e"
    assert not ran.stdout_truncated


@pytest.mark.attack
async def test_flood_ends(bench: Bench) -> None:
    """An output that does not stop is the end of its execution, under a name of its own."""
    sandbox = await bench.make(limits=SMALL)
    ran = await bench.run(sandbox, f"{WRITE}print('first')\nwhile True: write(1, b'x' * 4096)")
    assert (ran.status, ran.exit_code, ran.error) == (ExecutionStatus.OUTPUT_LIMIT, None, None)
    assert ran.stdout == (b"first\n" + b"x" * SMALL.output_bytes)[: SMALL.output_bytes]
    assert ran.stdout_truncated
    await bench.quiet()
    assert await bench.works(sandbox)


@pytest.mark.attack
async def test_flood_costs_neither_memory_nor_neighbours(bench: Bench) -> None:
    """While one execution floods as fast as it can, the gateway stays small and a neighbour quick."""
    flooding, neighbour = await bench.make(), await bench.make()
    alone_s = await bench.hello_s(neighbour)
    flood = flooding.execute(ExecutionRequest(f"{WRITE}block = b'x' * (1 << 20)\nwhile True: write(1, block)", 3.0))
    gc.collect()
    tracemalloc.start()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    beside_s = await bench.hello_s(neighbour)
    ran = await flood.wait()
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ran.status in (ExecutionStatus.TIMED_OUT, ExecutionStatus.OUTPUT_LIMIT)
    assert ran.stdout_truncated
    assert len(ran.stdout) == MIB
    # Other work on the machine may come in between the two measurements.
    assert beside_s <= 4 * alone_s + (2 if bench.on_gvisor else 0.5)
    assert peak < 6 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 16 * 1024


async def test_dribble_costs_the_gateway_little(bench: Bench) -> None:
    """A hundred thousand writes of a byte do not wake the gateway each time."""
    sandbox = await bench.make()
    before_s = time.process_time()
    count = 10_000 if bench.on_gvisor else 100_000
    ran = await bench.run(sandbox, f"import os\nfor _ in range({count}): os.write(1, b'.')")
    used_s = time.process_time() - before_s
    assert ran.stdout == b"." * count
    assert used_s < 0.6 * ran.duration_s + 0.05


TRICKS = {
    "raw bytes": (
        "import os\nos.write(1, b'\\xff\\xfe\\x00\\xed\\xa0\\x80')\nos.write(2, b'\\x80')",
        b"\xff\xfe\0\xed\xa0\x80", b"\x80",
    ),
    "does not block": ("import os\nos.set_blocking(1, False)\nos.write(1, b'a')\nprint('b')", b"ab\n", b""),
    "does not block and floods": (
        "import os\nos.set_blocking(1, False)\nn = 0\nwhile n < 300_000:\n    try: n += os.write(1, b'x' * 1000)\n"
        "    except BlockingIOError: pass\n", b"x" * 300_000, b"",
    ),
    "small pipe": ("import fcntl, os\nfcntl.fcntl(1, 1031, 4096)\nos.write(1, b'x' * 100_000)", b"x" * 100_000, b""),
    "large pipe": (
        "import fcntl, os, sys\nfcntl.fcntl(1, 1031, 1 << 20)\nos.write(1, b'x' * 1_000_000)\nos._exit(0)",
        b"x" * 1_000_000, b"",
    ),
    "packets": (
        "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)\nfor i in range(50): os.write(1, b'ab')",
        b"ab" * 50, b"",
    ),
    "closes stdout": ("import os, sys\nprint('x')\nos.close(1)\nprint('e', file=sys.stderr)", b"x\n", b"e\n"),
    "closes both": ("import os\nprint('x')\nos.close(1)\nos.close(2)\nos._exit(0)", b"x\n", b""),
    "swaps streams": (
        "import os\nos.dup2(1, 9); os.dup2(2, 1); os.dup2(9, 2)\nos.write(1, b'to stderr')", b"", b"to stderr",
    ),
    "late writer": (
        "import os\nprint('x', flush=True)\nif os.fork() == 0:\n    while True: os.write(1, b'') or os.write(2, b'')\n"
        "os._exit(0)", b"x\n", b"",
    ),
    "reads its own output": (
        "import os\nfd = os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK)\nos.write(2, b'e')\nos.close(fd)\n"
        "print('x')", b"x\n", b"e",
    ),
    "no stream at all": ("import os; os.closerange(0, 100); os._exit(0)", b"", b""),
}  # fmt: skip


# In gVisor the pipes are the host's, and can be neither resized nor have packets.
_IN_GVISOR = ["does not block and floods", "closes both", "swaps streams", "late writer", "no stream at all"]


_OF_PIPES = ("large pipe", "small pipe", "packets")


@pytest.mark.attack
@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.few_on_gvisor(name=_IN_GVISOR)
async def test_trick(name: str, bench: Bench) -> None:
    """Whatever code does to its own pipes, its output arrives as written and the next execution is as good as new."""
    if bench.on_gvisor and name in _OF_PIPES:
        pytest.skip(
            "standard output is a pipe of the host's there, which can neither be resized nor keep packets apart"
        )
    sandbox = await bench.make()
    code, stdout, stderr = TRICKS[name]
    for _again in range(2):
        ran = await bench.run(sandbox, code)
        assert (ran.stdout, ran.stderr, ran.exit_code) == (stdout, stderr, 0)
    assert await bench.works(sandbox)


REPORT = (
    "import json, os, sys\ndef report(data):\n    os.set_blocking(63, False)\n    os.write(63, data)\n    os._exit(1)\n"
)
FORGED = {
    "nothing": "b''",
    "garbage": "b'\\xff\\x00garbage'",
    "half": 'b\'{"name": "X", "value": "y\'',
    "a list": "b'[]'",
    "a number": "b'7'",
    "a text": "b'\"name value traceback\"'",
    "not texts": 'b\'{"name": 1, "value": [], "traceback": {}}\'',
    "deep": "b'[' * 50_000",
    "deep objects": "b'{\"name\":' * 10_000",
    "a long number": "b'9' * 90_000",
    "not a number": 'b\'{"name": NaN, "value": Infinity, "traceback": null}\'',
    "too large": "b'{\"name\": \"' + b'x' * 150_000 + b'\"}'",
    "other encoding": "'{\"name\": 1}'.encode('utf-16')",
    "a message of the forker's": "b'X' + b'\\0' * 36",
}


@pytest.mark.attack
@pytest.mark.parametrize("name", FORGED)
@pytest.mark.few_on_gvisor(name=["deep", "a message of the forker's"])
async def test_forged_report(name: str, bench: Bench) -> None:
    """A report that is none is passed over: the answer has what the kernel says."""
    sandbox = await bench.make()
    ran = await bench.run(sandbox, f"{REPORT}report({FORGED[name]})")
    assert (ran.status, ran.exit_code, ran.stdout) == (ExecutionStatus.FAILED, 1, b"")
    assert ran.error is not None
    assert ran.error.name == "NonZeroExit"
    assert await bench.works(sandbox)


@pytest.mark.attack
async def test_report_that_is_believed(bench: Bench) -> None:
    """Code can word its own error, within bounds, and nothing else of the answer."""
    sandbox = await bench.make()
    words = (
        "json.dumps(dict(name='N' * 9999, value='V' * 9999, traceback='T' * 50_000, status='completed', exit_code=0))"
    )
    ran = await bench.run(sandbox, f"{REPORT}report({words}.encode())")
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, 1)
    assert ran.error is not None
    assert set(ran.error.name) == {"N"}
    assert len(ran.error.name) <= 256
    assert len(ran.error.value) <= 4096
    assert len(ran.error.traceback) <= 12_000


async def test_report_without_failure(bench: Bench) -> None:
    """An error that is reported by an execution that succeeds is none."""
    words = 'b\'{"name": "E", "value": "v", "traceback": "t"}\''
    ran = await bench.run(await bench.make(), f"import os; os.write(63, {words})")
    assert (ran.status, ran.exit_code, ran.error) == (ExecutionStatus.COMPLETED, 0, None)


@pytest.mark.attack
async def test_flooded_channel(bench: Bench) -> None:
    """What is written to the report's socket stays in the kernel, and the code that floods it waits for itself."""
    sandbox = await bench.make()
    code = "import os\nwhile True: os.write(63, b'x' * 65536)"
    ran = await bench.run(sandbox, code, 0.2)
    assert ran.status is ExecutionStatus.TIMED_OUT
    assert await bench.works(sandbox)


@pytest.mark.parametrize(
    "text", ["'x' * 2_000_000", "'\\ud800' * 9", "'\\0' * 9", "'\\U0001f40d' * 500_000", "b'\\xff'"]
)
@pytest.mark.few_on_gvisor(text=["'x' * 2_000_000"])
async def test_exceptions_text(text: str, bench: Bench) -> None:
    """An exception of any text is reported, cut and printable."""
    sandbox = await bench.make()
    ran = await bench.run(sandbox, f"raise ValueError({text})")
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, 1)
    assert ran.error is not None
    assert ran.error.name == "ValueError"
    assert 0 < len(ran.error.value) <= 4096
    ran.error.value.encode()
    ran.error.traceback.encode()
    assert await bench.works(sandbox)


@pytest.mark.attack
async def test_exception_that_breaks_its_report(bench: Bench) -> None:
    """An exception whose text cannot be made still ends in an answer."""
    code = "class E(Exception):\n    def __str__(self): raise SystemExit(0)\nraise E"
    ran = await bench.run(await bench.make(), code)
    assert (ran.status, ran.exit_code) == (ExecutionStatus.FAILED, 1)
    assert ran.error is not None
    assert ran.error.name == "E"


@pytest.mark.attack
async def test_code_of_any_length_and_kind(bench: Bench) -> None:
    """Code arrives whole: none, a megabyte, one line's end of each kind."""
    sandbox = await bench.make()
    for code, expected in (
        ("", b""),
        ("#" * MIB + "\nprint(1)", b"1\n"),
        ("print(len('" + "x" * MIB + "'))", b"1048576\n"),
    ):
        ran = await bench.run(sandbox, code)
        assert (ran.status, ran.stdout) == (ExecutionStatus.COMPLETED, expected)


async def test_code_that_is_never_read(bench: Bench) -> None:
    """An execution that is cancelled while its code is on the way leaves a sandbox that works."""
    sandbox = await bench.make()
    async with Lag.measured() as lag:
        execution = sandbox.execute(ExecutionRequest("#" * (8 * MIB), 30))
        execution.cancel()
        ran = await execution.wait()
    assert ran.status is ExecutionStatus.CANCELLED
    assert lag.worst_s < 5
    assert await bench.works(sandbox)
