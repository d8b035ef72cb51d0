"""Zygotes that break in every way, many environments at once, and environments that are made ahead."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import ExecutionStatus, Isolation
from sandgate.sandbox.base import Sandbox, SandboxSpec
from sandgate.sandbox.launcher.cgroup import Group, GroupLimits
from sandgate.sandbox.launcher.config import LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.hierarchies import Hierarchy, find_hierarchies
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.zygote import Zygote
from tests.runtime.hosts import Bench, available_versions, find_templates, launcher_host, until

TEMPLATE = f"python-{available_versions()[-1]}"
STANDARD = pytest.param(Isolation.STANDARD, marks=pytest.mark.needs_root_namespaces)
GVISOR = pytest.param(Isolation.GVISOR, marks=pytest.mark.needs_gvisor)
both = pytest.mark.parametrize("isolation", [STANDARD, Isolation.PROCESS])
every = pytest.mark.parametrize("isolation", [STANDARD, GVISOR, Isolation.PROCESS])


@asynccontextmanager
async def own_launcher(isolation: Isolation, **changes: object) -> AsyncIterator[Bench]:
    """A launcher with a configuration of its own, and a runtime connected to it."""
    with launcher_host(isolation, **changes) as host:
        bench = Bench(host, host.runtime())
        await bench.runtime.start(bench.on_end)
        try:
            yield bench
        finally:
            await bench.runtime.stop(keep_sandboxes=True)


async def _refusal(bench: Bench, template: str) -> str:
    """Why a sandbox of a template cannot be made."""
    with pytest.raises(SandboxFailed) as refused:
        await bench.runtime.create(SandboxSpec(make_environment_id(), template, Limits(), 60))
    return str(refused.value.details["reason"])


# Programs in the place of an interpreter, and what is said about each.
BROKEN = {
    "missing": (None, "cannot start the zygote"),
    "not executable": ("", "cannot start the zygote"),
    "ends": ("exit 3", "no message"),
    "ends with words": ("echo 'first line' >&2; echo 'no good \\033[31m' >&2; exit 3", "no good"),
    "hangs": ("exec sleep 1000", "was not ready within 4 seconds"),
    "talks nonsense": ("printf garbage >&3; exec sleep 1000", "broke the protocol"),
    "lets go of its channel": ("exec 3>&- 3<&-; exec sleep 1000", "its zygote ended"),
    "floods": ("exec yes", "was not ready within 4 seconds"),
}


def _program(folder: Path, script: str | None) -> str:
    path = folder / "bin" / "python"
    path.parent.mkdir(parents=True)
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755 if script else 0o644)
    return str(path)


@both
async def test_broken_interpreters(isolation: Isolation, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is in an interpreter's place, create is refused with what is wrong, and the others are served."""
    folders = {name: tmp_path_factory.mktemp("broken") for name in BROKEN}
    for each in folders.values():
        each.chmod(0o755)
    templates = [
        TemplateConfig(name.replace(" ", "-"), _program(folders[name], BROKEN[name][0]), str(folders[name]))
        for name in BROKEN
    ]
    async with own_launcher(isolation, templates=(*find_templates(), *templates), start_limit_s=4.0) as bench:
        sandbox = await bench.make()
        reasons = await asyncio.gather(*(_refusal(bench, template.name) for template in templates))
        for name, reason in zip(BROKEN, reasons, strict=True):
            assert BROKEN[name][1] in reason, name
            assert reason.isprintable()
        assert await bench.works(sandbox)
        # What was in their place is killed, which takes the kernel a moment.
        await until(lambda: len(bench.host.zygotes()) == 1, what=bench.host.zygotes)
        assert "no template" in await _refusal(bench, "python-1.0")


@every
async def test_packages_that_cannot_be_imported_ahead(isolation: Isolation) -> None:
    """One that is missing, prints, or exits is left to the code that imports it."""
    templates = tuple(
        TemplateConfig(f.name, f.interpreter, f.prefix, ("no_such_module", "this", "venv.__main__", "json"))
        for f in find_templates()
    )
    async with own_launcher(isolation, templates=templates) as bench:
        sandbox = await bench.make()
        assert await bench.ask(sandbox, "import sys\nanswer = 'decimal' in sys.modules") is False
        assert await bench.works(sandbox)
        await until(lambda: "preloading no_such_module failed" in bench.host.log())
        await until(lambda: "preloading venv.__main__ failed" in bench.host.log())


PRELOADS = {
    "raises": ("raise ValueError('not today')", None),
    "prints": ("print('x' * 100_000)", None),
    "starts_a_thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()", None),
    "ends_the_zygote": ("import os\nprint('last words')\nos._exit(7)", "last words"),
    "takes_for_ever": ("import time\ntime.sleep(1000)", "was not ready within 4 seconds"),
}


# The same in a container, whose channel is standard input.
CONTAINED = {
    "missing": (None, "it could not be built"),
    "ends with words": ("echo 'first line' >&2; echo 'no good \033[31m' >&2; exit 3", "no good"),
    "talks nonsense": ("printf garbage >&0; exec sleep 1000", "it broke the protocol"),
    "says what nobody asked": ("printf 'O%024d' 0 >&0; exec sleep 1000", "it broke the protocol"),
}


@pytest.mark.needs_gvisor
async def test_broken_interpreters_in_containers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Create is refused with what is wrong, nothing is left of it, and the others are served."""
    folders = {name: tmp_path_factory.mktemp("broken") for name in CONTAINED}
    for each in folders.values():
        each.chmod(0o755)
    templates = [
        TemplateConfig(name.replace(" ", "-"), _program(folders[name], CONTAINED[name][0]), str(folders[name]))
        for name in CONTAINED
    ]
    everything = (*find_templates(), *templates)
    async with own_launcher(Isolation.GVISOR, templates=everything) as bench:
        sandbox = await bench.make()
        reasons = await asyncio.gather(*(_refusal(bench, template.name) for template in templates))
        for (name, (_text, expected)), reason in zip(CONTAINED.items(), reasons, strict=True):
            assert expected in reason, name
            assert reason.isprintable()
        assert await bench.works(sandbox)
        assert len(bench.host.groups()) == 1


async def test_packages_that_break_the_zygote(tmp_path: Path) -> None:
    """They are the reason of a refusal, if they let no environment be made, and of nothing else."""
    real = find_templates()[-1].interpreter
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        os.chmod(folder, 0o755)
    interpreter = _program(tmp_path, f'PYTHONPATH={tmp_path} exec {real} "$@"')
    for name, (text, _reason) in PRELOADS.items():
        (tmp_path / f"{name}.py").write_text(text)
    breaking = [TemplateConfig(n.replace("_", "-"), interpreter, str(tmp_path), (n,)) for n in PRELOADS]
    async with own_launcher(Isolation.PROCESS, templates=(*find_templates(), *breaking), start_limit_s=4.0) as bench:
        for template, (_text, reason) in zip(breaking, PRELOADS.values(), strict=True):
            if reason is not None:
                assert reason in await _refusal(bench, template.name)
                continue
            sandbox = await bench.runtime.create(SandboxSpec(make_environment_id(), template.name, Limits(), 60))
            assert await bench.works(sandbox), template.name
            await bench.runtime.destroy(sandbox.environment_id)


@both
async def test_zygote_killed(isolation: Isolation) -> None:
    """Its environments end with the reason, those of other templates go on, and the next one starts anew."""
    versions = available_versions()
    async with own_launcher(isolation) as bench:
        sandboxes = [await bench.make() for _each in range(3)]
        running = sandboxes[0].execute(ExecutionRequest("import os, time\nos.fork()\ntime.sleep(1000)", 60))
        (zygote,) = bench.host.zygotes()
        other = await bench.make(versions[0])
        os.kill(zygote, signal.SIGKILL)
        assert (await running.wait()).status is ExecutionStatus.LOST
        expected = {sandbox.environment_id for sandbox in sandboxes} | (
            {other.environment_id} if len(versions) == 1 else set()
        )
        await until(lambda: len(bench.ended) == len(expected))
        assert {name for name, _reason in bench.ended} == expected
        assert all("its zygote ended" in reason or "its process 1 ended" in reason for _name, reason in bench.ended)
        again = await bench.make()
        assert await bench.works(again)
        if len(versions) > 1:
            assert await bench.works(other)


async def _made_at_last(bench: Bench) -> Sandbox:
    """A sandbox, when the zygote has done what nobody waits for any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(SandboxFailed):
            return await bench.make()
    pytest.fail("the zygote does not serve again")


@both
async def test_zygote_stopped(isolation: Isolation) -> None:
    """One that answers nothing is waited for so long; what it clones after all is killed; then it serves again."""
    async with own_launcher(isolation, build_limit_s=0.5) as bench:
        sandbox = await _made_at_last(bench)
        (zygote,) = bench.host.zygotes()
        os.kill(zygote, signal.SIGSTOP)
        reasons = await asyncio.gather(*(_refusal(bench, TEMPLATE) for _each in range(400)))
        assert all("not built within" in reason for reason in reasons)
        assert await bench.works(sandbox)
        os.kill(zygote, signal.SIGCONT)
        assert await bench.works(await _made_at_last(bench))
        await bench.quiet(2)


@both
async def test_hundred_at_once(isolation: Isolation) -> None:
    """A hundred are made and used at the same time; fewer where each process has to be found to be killed."""
    count = 100 if isolation is Isolation.STANDARD else 50
    async with own_launcher(isolation) as bench:
        sandboxes = await asyncio.gather(*(bench.make() for _each in range(count)))
        assert all(await asyncio.gather(*(bench.works(sandbox) for sandbox in sandboxes)))
        assert len(bench.host.forkers()) == count
        await asyncio.gather(*(bench.runtime.destroy(sandbox.environment_id) for sandbox in sandboxes))
        assert isolation is not Isolation.STANDARD or bench.host.processes() == {}
        await until(lambda: bench.host.processes() == {})
        if isolation is Isolation.STANDARD:
            assert bench.host.groups() == []
        assert bench.ended == []


@both
async def test_no_room(isolation: Isolation) -> None:
    """Beyond what the launcher may hold a sandbox is refused, and there is room again when one has gone."""
    async with own_launcher(isolation, most_sandboxes=2) as bench:
        sandboxes = [await bench.make() for _each in range(2)]
        assert "no room for more" in await _refusal(bench, TEMPLATE)
        await bench.runtime.destroy(sandboxes[0].environment_id)
        assert await bench.works(await bench.make())


@both
async def test_spares(isolation: Isolation) -> None:
    """What is made ahead is handed out fresh, replaced, and never used twice."""
    async with own_launcher(isolation, spares=2) as bench:
        first = await bench.make()
        await until(lambda: len(bench.host.forkers()) == 3)
        await bench.quiet(3)
        leave = "import tempfile\nopen('mine', 'w').close()\nopen(tempfile.gettempdir() + '/mine', 'w').close()"
        assert (await bench.run(first, leave)).exit_code == 0
        forkers = set(bench.host.forkers())
        second = await bench.make()
        await until(lambda: len(bench.host.forkers()) == 4)
        assert forkers < set(bench.host.forkers())
        look = "import os, tempfile\nanswer = [os.listdir(), os.listdir(os.environ.get('TMPDIR', '/tmp'))]"
        assert await bench.ask(second, look) == [[], []]
        await bench.runtime.destroy(first.environment_id)
        third = await bench.make()
        assert await bench.ask(third, look) == [[], []]
        await until(lambda: len(bench.host.forkers()) == 4)
        assert sorted(await bench.runtime._list()) == sorted([second.environment_id, third.environment_id])
        assert bench.ended == []


def _find_hierarchies() -> list[Hierarchy]:
    return find_hierarchies(Path("/proc/self/mountinfo").read_text())


@pytest.mark.needs_root_namespaces
async def test_forkers_are_found_in_their_groups() -> None:
    """The launcher sees that they have come there by themselves, or it would move each, and the machine would wait."""
    async with own_launcher(Isolation.STANDARD) as bench:
        sandbox = await bench.make()
        await asyncio.gather(*(bench.run(sandbox, "import time; time.sleep(0.05)") for _each in range(2)))
        hierarchies = _find_hierarchies()
        if any(hierarchy.version != 1 for hierarchy in hierarchies):
            pytest.skip("not all control groups are of version 1")
        (name,) = (folder.name for folder in bench.host.groups())
        group = Group([(each, each.mount / bench.host.config.tree_name / name) for each in hierarchies])
        first, second = bench.host.forkers()[:2]
        assert [group.has_entered(first), group.has_entered(second, "1"), group.has_entered(os.getpid())] == [
            True,
            True,
            False,
        ]


@both
async def test_spares_of_other_limits(isolation: Isolation) -> None:
    """Whoever asks for limits that a spare cannot be given gets them; spares follow what was asked for."""
    async with own_launcher(isolation, spares=2) as bench:
        await bench.make()
        await until(lambda: len(bench.host.forkers()) == 3)
        small = await bench.make(limits=Limits(open_files=100))
        look = "import resource\nanswer = resource.getrlimit(resource.RLIMIT_NOFILE)[0]"
        assert await bench.ask(small, look) == 100
        await bench.quiet(4)
        assert await bench.ask(await bench.make(limits=Limits(open_files=100)), look) == 100


@both
async def test_spares_that_die(isolation: Isolation) -> None:
    """One that dies while it waits is never handed out, nor is anybody told."""
    async with own_launcher(isolation, spares=2) as bench:
        first = await bench.make()
        (used,) = bench.host.forkers()[:1]
        await bench.quiet(3)
        for pid in bench.host.forkers():
            if pid != used:
                os.kill(pid, signal.SIGKILL)
        await until(lambda: len(bench.host.forkers()) == 1)
        assert await bench.works(await bench.make())
        assert await bench.works(first)
        assert bench.ended == []


@both
async def test_spares_expire_with_their_owner_only(isolation: Isolation) -> None:
    """A lifetime is counted from the moment that a spare is handed out."""
    async with own_launcher(isolation, spares=1) as bench:
        await bench.make()
        await bench.quiet(2)
        brief = await bench.make(lifetime_s=0.2)
        await until(lambda: bench.ended)
        assert bench.ended == [(brief.environment_id, "expired")]


@pytest.mark.needs_root_namespaces
async def test_build_that_fails() -> None:
    """Walls that cannot be put up are the reason of a refusal, with nothing left behind."""
    async with own_launcher(Isolation.STANDARD) as bench:
        limits = Limits(memory_bytes=MIB, disk_bytes=MIB, inodes=3)
        with pytest.raises(SandboxFailed) as refused:
            await bench.make(limits=limits)
        assert "could not be" in str(refused.value.details["reason"])
        assert bench.host.groups() == []
        assert await bench.works(await bench.make())


@pytest.mark.needs_root_namespaces
async def test_no_process_for_a_zygote() -> None:
    """One that cannot clone refuses what it is asked for, and nothing that is there ends."""
    async with own_launcher(Isolation.STANDARD) as bench:
        sandbox = await bench.make()
        limit = bench.host.groups()[0].parent / f"zygote-{TEMPLATE}" / "pids.max"
        limit.write_text("0")
        first, second = (sandbox.execute(bench.request("import time; time.sleep(0.3)")) for _ in range(2))
        await until(lambda: "nothing can be cloned" in bench.host.log())
        limit.write_text("max")
        assert [(await each.wait()).status for each in (first, second)] == [ExecutionStatus.COMPLETED] * 2
        assert await bench.works(sandbox)
        assert await bench.works(await bench.make())


@pytest.mark.needs_root_namespaces
async def test_no_descriptor_for_a_slot() -> None:
    """A launcher that has none left makes no slot, and goes on."""
    async with own_launcher(Isolation.STANDARD) as bench:
        sandbox = await bench.make()
        launcher = bench.host.process.pid
        ordinary = resource.prlimit(launcher, resource.RLIMIT_NOFILE)
        # Room for what is opened of the environment's namespaces, and not for the sockets after them.
        lowest_free = min(set(range(1000)) - {int(name) for name in os.listdir(f"/proc/{launcher}/fd")})
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, (lowest_free + 7, ordinary[1]))
        first, second = (sandbox.execute(bench.request("import time; time.sleep(0.3)")) for _ in range(2))
        await first.wait()
        resource.prlimit(launcher, resource.RLIMIT_NOFILE, ordinary)
        assert (await second.wait()).status is ExecutionStatus.COMPLETED
        assert bench.host.process.poll() is None
        assert await bench.works(await bench.make())


class _Unconfining(Group):
    """A control group that takes nobody."""

    def make(self, limits: GroupLimits) -> None:
        """Make nothing."""

    def attach(self, pid: int, part: str = "") -> None:
        """As where the group was taken away meanwhile."""
        raise OSError(f"no room for {pid}")


def test_what_cannot_be_confined_is_not_started(tmp_path: Path) -> None:
    """It is killed while it waits to be told to go on, and no descriptor of it stays."""
    config = LauncherConfig(
        run_folder=tmp_path, tree_name="sandgate-test-none", gateway_uid=os.geteuid(), host_id_base=0,
        most_sandboxes=1, standard=False, templates=find_templates(),
    )  # fmt: skip
    zygote = Zygote(config, config.templates[0], Reactor(), on_end=lambda _zygote: None)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no room for") as refused:
        zygote.start(0, _Unconfining([]), None)
    assert zygote.pid == -1
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not Path("/proc", str(refused.value).rpartition(" ")[2]).exists()
