"""Layers of built templates, as the launcher shows them: by name, never through a link, so many at once."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.execution import ExecutionRequest
from sandgate.core.ids import make_environment_id, make_template_id
from sandgate.core.limits import MIB, Limits
from sandgate.core.states import Isolation
from sandgate.core.template import Layer
from sandgate.sandbox.base import Sandbox, SandboxSpec
from sandgate.sandbox.zygote_runtime import ZygoteRuntime
from tests.runtime.hosts import LauncherHost, available_versions, find_templates, launcher_host, until
from tests.runtime.test_gvisor import spare_group, until_taken

pytestmark = pytest.mark.needs_root_namespaces
BASE = f"python-{available_versions()[-1]}" if available_versions() else ""
MOST_BUILT = 2
MEMORY_BYTES = 128 * MIB


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LauncherHost]:
    """A launcher with layers."""
    folder = tmp_path_factory.mktemp("layers")
    bounds = {"most_built": MOST_BUILT, "built_memory_bytes": MEMORY_BYTES}
    with launcher_host(Isolation.STANDARD, layers_folder=folder, **bounds) as running:
        yield running


@pytest.fixture
async def runtime(host: LauncherHost) -> AsyncIterator[ZygoteRuntime]:
    """Connected to it."""
    connected = host.runtime()
    await connected.start(lambda _environment_id, _reason: None)
    yield connected
    await connected.stop(keep_sandboxes=True)


def _layers(host: LauncherHost) -> Path:
    assert host.config.layers_folder is not None
    return host.config.layers_folder


def _make_layer(host: LauncherHost, module: str = "") -> Layer:
    """A layer with a module ``own``."""
    (template,) = [each for each in find_templates() if each.name == BASE]
    name = make_template_id()
    folder = _layers(host) / name
    program = template.interpreter
    subprocess.run([program, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "own.py").write_text(module)
    # It lies elsewhere in sandboxes, where the interpreter is found by this file.
    return Layer(BASE, name, ("own",), {"MARK": "here"})


async def _create(runtime: ZygoteRuntime, layer: Layer, isolation: Isolation = Isolation.STANDARD) -> Sandbox:
    limits = layer.limits or Limits()
    spec = SandboxSpec(make_environment_id(), layer.folder or f"build-{BASE}", limits, 60.0, isolation, layer)
    return await runtime.create(spec)


async def _say(sandbox: Sandbox, code: str) -> str:
    ended = await sandbox.execute(ExecutionRequest(code, 60.0)).wait()
    return (ended.stdout + ended.stderr).decode()


async def test_a_layer_is_shown_and_cannot_be_changed(host: LauncherHost, runtime: ZygoteRuntime) -> None:
    """Its modules were imported beforehand, its variables are there; the host's folder stays as it is."""
    layer = _make_layer(host, "WORD = 'own'")
    sandbox = await _create(runtime, layer)
    code = "import os, sys\nprint('own' in sys.modules, os.environ['MARK'], sys.prefix)\nopen('/opt/template/x', 'w')"
    said = await _say(sandbox, code)
    assert said.startswith("True here /opt/template\n")
    assert "Read-only file system" in said
    assert not (_layers(host) / layer.folder / "x").exists()
    await runtime.destroy(sandbox.environment_id)


async def test_where_a_template_is_built_there_is_an_open_folder(host: LauncherHost, runtime: ZygoteRuntime) -> None:
    """Of the user's, empty, and nobody else's: the next sandbox finds nothing in it."""
    for _round in range(2):
        sandbox = await _create(runtime, Layer(BASE))
        code = "import os\nprint(os.listdir('/opt/template'), os.getuid())\nopen('/opt/template/x', 'w')"
        assert await _say(sandbox, code) == "[] 1000\n"
        await runtime.destroy(sandbox.environment_id)


@pytest.mark.parametrize("kind", ["missing", "a link", "a file"])
async def test_what_is_no_layer_is_not_shown(host: LauncherHost, runtime: ZygoteRuntime, kind: str) -> None:
    """The folder belongs to a process without privileges, which may not have the launcher show anything else."""
    name = make_template_id()
    if kind == "a link":
        (_layers(host) / name).symlink_to("/")
    elif kind == "a file":
        (_layers(host) / name).touch()
    with pytest.raises(SandboxFailed):
        await _create(runtime, Layer(BASE, name))
    with pytest.raises(SandboxFailed, match="knows no template python-1"):
        await _create(runtime, Layer("python-1", make_template_id()))


async def test_what_is_imported_beforehand_has_a_bound(host: LauncherHost, runtime: ZygoteRuntime) -> None:
    """A template of a user's that takes too much is of no use; others are as before."""
    with pytest.raises(SandboxFailed, match="took more memory than the 128 MiB"):
        await _create(runtime, _make_layer(host, f"held = bytearray({2 * MEMORY_BYTES})"))
    sandbox = await _create(runtime, _make_layer(host, f"held = bytearray({MEMORY_BYTES // 2})"))
    assert await _say(sandbox, "import own\nprint(len(own.held))") == f"{MEMORY_BYTES // 2}\n"
    await runtime.destroy(sandbox.environment_id)


@pytest.mark.needs_gvisor
async def test_spares_have_the_limits_of_their_template(tmp_path: Path) -> None:
    """So that who asks for none is given one, also in a class whose sandboxes keep the limits they were made with."""
    with launcher_host(Isolation.GVISOR, layers_folder=tmp_path, gvisor_spares=1) as host:
        runtime = host.runtime()
        await runtime.start(lambda _environment_id, _reason: None)
        layer = replace(_make_layer(host), limits=Limits(memory_bytes=300 * MIB))
        await _create(runtime, layer, Isolation.GVISOR)

        async def use() -> None:
            sandbox = await _create(runtime, layer, Isolation.GVISOR)
            assert await _say(sandbox, "print('works')") == "works\n"
            await runtime.destroy(sandbox.environment_id)

        await until_taken(host, await spare_group(host, 1), use)
        await runtime.stop(keep_sandboxes=False)


async def test_builds_take_no_place_of_what_was_built(host: LauncherHost, runtime: ZygoteRuntime) -> None:
    """What is ready for either stays when there is no room for one more of the other."""
    building = await _create(runtime, Layer(BASE))
    processes = host.groups()[0].parent / f"zygote-build-{BASE}" / "cgroup.procs"
    of_build = processes.read_text()
    await runtime.destroy(building.environment_id)
    for _number in range(MOST_BUILT + 1):
        await runtime.destroy((await _create(runtime, _make_layer(host))).environment_id)
    assert of_build
    assert processes.read_text() == of_build


async def test_so_many_are_in_use_at_once(host: LauncherHost, runtime: ZygoteRuntime) -> None:
    """One more is refused while all have sandboxes, and takes the place of one that has none."""
    layers = [_make_layer(host) for _number in range(MOST_BUILT + 1)]
    # Zygotes of the tests before may still be ending: only those that come now count.
    others = set(host.zygotes())
    used = [await _create(runtime, layer) for layer in layers[:MOST_BUILT]]
    with pytest.raises(SandboxFailed, match="the most at once"):
        await _create(runtime, layers[-1])
    await until(lambda: len(set(host.zygotes()) - others) == MOST_BUILT)
    zygotes = set(host.zygotes()) - others
    await runtime.destroy(used[0].environment_id)
    last = await _create(runtime, layers[-1])
    assert await _say(last, "print(1)") == "1\n"
    assert await _say(used[1], "print(2)") == "2\n"
    await until(lambda: len(zygotes - set(host.zygotes())) == 1)
    await until(lambda: len(set(host.zygotes()) - others - zygotes) == 1)
    for sandbox in (last, used[1]):
        await runtime.destroy(sandbox.environment_id)
