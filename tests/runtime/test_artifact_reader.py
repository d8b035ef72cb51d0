"""Files are taken out of a sandbox by code that runs inside."""

import asyncio
from collections.abc import Callable

import pytest

from sandgate.core.execution import ExecutionRequest, StepData
from sandgate.core.states import ExecutionStatus
from sandgate.core.tidying import removal_of
from sandgate.sandbox.archive import ArchiveCaps, ArchiveError, ArchiveParser, FileBegins, archive_code
from sandgate.sandbox.base import Sandbox
from tests.runtime.hosts import Bench, available_versions

CAPS = ArchiveCaps(files=100, file_bytes=8 << 20, total_bytes=32 << 20)
FOLDER = "import os\nfolder = os.environ['SANDGATE_ARTIFACTS']\n"


class Taker:
    """Parses as it comes; takes a breath now and then, so that the sandbox has to wait."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.problem: str | None = None
        self.closed = False
        self._parser = ArchiveParser(CAPS)
        self._path = ""
        self._pieces = 0

    def put(self, data: bytes, resume: Callable[[], None]) -> bool:
        """Take a piece."""
        try:
            for part in self._parser.feed(data) if self.problem is None else ():
                self._path = part.path if isinstance(part, FileBegins) else self._path
                self.files[self._path] = self.files.get(self._path, b"") + (part if isinstance(part, bytes) else b"")
        except ArchiveError as error:
            self.problem = str(error)
        self._pieces += 1
        if self._pieces % 5:
            return True
        asyncio.get_running_loop().call_later(0.001, resume)
        return False

    def close(self) -> None:
        """The end."""
        self.closed = True
        try:
            self._parser.finish()
        except ArchiveError as error:
            self.problem = self.problem or str(error)


async def _leave(sandbox: Sandbox, code: str) -> StepData:
    data = StepData({}, {})
    ran = await sandbox.execute(ExecutionRequest(FOLDER + code, 60, data)).wait()
    assert (ran.status, ran.left_files) == (ExecutionStatus.COMPLETED, True), ran
    return data


async def _take(sandbox: Sandbox, data: StepData) -> Taker:
    taker = Taker()
    ran = await sandbox.execute(ExecutionRequest(archive_code(data.folder, CAPS), 60, sink=taker)).wait()
    assert (ran.stdout, taker.closed) == (b"", True)
    assert ran.stderr == b"" or taker.problem, ran
    return taker


@pytest.mark.parametrize("version", available_versions())
@pytest.mark.few_on_gvisor(version=[available_versions()[0]])
async def test_files_come_out_as_they_are(bench: Bench, version: str) -> None:
    """On every version, more than any cap on output lets through; once more, if need be, and until they are removed."""
    sandbox = await bench.make(version)
    data = await _leave(
        sandbox,
        "os.makedirs(folder + '/a/b')\nopen(folder + '/a/b/large', 'wb').write(bytes(range(256)) * 20_000)\n"
        "open(folder + '/é', 'w').close()\nos.mkdir(folder + '/empty')",
    )
    for _time in range(2):
        taker = await _take(sandbox, data)
        assert taker.problem is None
        assert taker.files == {"a/b/large": bytes(range(256)) * 20_000, "é": b""}
    await sandbox.execute(removal_of(data.folder)).wait()
    assert await bench.ask(sandbox, "import os\nanswer = os.listdir(os.environ.get('TMPDIR', '/tmp'))") == []


async def test_a_folder_that_is_gone_is_an_empty_one(bench: Bench) -> None:
    """And who says that there is something, when there is not, loses a little time."""
    sandbox = await bench.make()
    taker = await _take(sandbox, StepData({}, {}))
    assert (taker.problem, taker.files) == (None, {})


@pytest.mark.needs_root_namespaces
async def test_code_that_waits_for_the_reader_harms_its_own_step(walled: Bench) -> None:
    """A file that every interpreter of the environment reads at its start can spoil the archive, and no more."""
    sandbox = await walled.make()
    data = await _leave(
        sandbox,
        "import site\nos.makedirs(site.getusersitepackages())\nopen(folder + '/x', 'w').write('x')\n"
        "with open(site.getusersitepackages() + '/evil.pth', 'w') as evil:\n"
        "    evil.write('import os; os.write(1, b\"F\\\\0\\\\0\\\\0\\\\3../\")')",
    )
    taker = await _take(sandbox, data)
    assert taker.problem is not None
    assert taker.files == {}


async def test_files_that_change_while_they_are_read(bench: Bench) -> None:
    """What came is whole in itself, whatever happens beside it; one that grows for ever meets its cap."""
    grow = "f = open(path, 'ab')\nwhile f.tell() < 200_000_000: f.write(b'y' * 100_000)"
    shrink = "os.truncate(path, 1_000_000)"
    for change in (grow, shrink):
        sandbox = await bench.make()
        data = await _leave(sandbox, "open(folder + '/x', 'w').write('x' * 6_000_000)")
        path = f"import os\npath = os.environ.get('TMPDIR', '/tmp') + '/{data.folder}/x'\n"
        beside = sandbox.execute(ExecutionRequest(path + change, 60))
        taker = await _take(sandbox, data)
        beside.cancel()
        await beside.wait()
        if taker.problem is None:
            (content,) = taker.files.values()
            assert 1_000_000 <= len(content) <= CAPS.file_bytes
        else:
            assert "larger than" in taker.problem or "changed" in taker.problem


@pytest.mark.needs_root_namespaces
async def test_a_reader_is_killed_like_everything_else(walled: Bench) -> None:
    """One that is cancelled while its taker does not take ends at once, and the sandbox goes on."""
    sandbox = await walled.make()
    data = await _leave(sandbox, "open(folder + '/x', 'w').write('x' * 6_000_000)")

    class Full(Taker):
        def put(self, data: bytes, resume: Callable[[], None]) -> bool:
            return False

    taker = Full()
    execution = sandbox.execute(ExecutionRequest(archive_code(data.folder, CAPS), 60, sink=taker))
    asyncio.get_running_loop().call_later(0.1, execution.cancel)
    ran = await execution.wait()
    assert (ran.status, taker.closed) == (ExecutionStatus.CANCELLED, True)
    assert await walled.works(sandbox)
