"""One build: a sandbox of the base in which everything is laid out, packed, kept, and tried.

Nothing of a recipe ever runs anywhere else, and what comes out of the sandbox is taken as hostile.
"""

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from sandgate.config.settings import Settings
from sandgate.core.built import BuildFailed, BuiltTemplate, LayerSize, Root
from sandgate.core.errors import MechanismFault, SandboxFailed, SandgateError
from sandgate.core.execution import FileOperation, InputFile, Surroundings
from sandgate.core.ids import make_environment_id
from sandgate.core.limits import Limits
from sandgate.core.network import NetworkRules
from sandgate.core.outlet import Outlet
from sandgate.core.recipe import LAYER_FOLDER
from sandgate.core.states import Isolation
from sandgate.core.template import BUILD_PREFIX, Layer, Template, make_layer
from sandgate.environments.builds import apt
from sandgate.environments.builds.base import BuildTools
from sandgate.environments.builds.inside import RUN, Inside, parse_names, plain
from sandgate.environments.builds.log import BuildLog
from sandgate.environments.builds.roots import Roots
from sandgate.sandbox.base import Runtime, SandboxSpec

_LENGTH = struct.Struct("!I")
_PIECE_BYTES = 1 << 20
_UV = "/tmp/.sandgate/uv"  # noqa: S108 - within the walls
_UNDER_FOLDER = "/opt/base"
_PYTHON = f"{LAYER_FOLDER}/bin/python"
_BRING_UV_S = 60.0
_TRIAL_S = 60.0
_TRIAL_LIFETIME_S = 120.0
_PROCESSES = 512
_INODES = 1_000_000
_NEEDS_GLIBC = (
    "packages are installed by uv, which does not run in this root file system: it needs glibc, as images of Debian "
    "have it. Take one of those, or an image that has the packages in it"
)
_UV_ENVIRON = {
    "UV_CACHE_DIR": "/tmp/.sandgate/cache",  # noqa: S108 - within the walls
    "UV_LINK_MODE": "hardlink",
    "UV_NO_PROGRESS": "1",
    "UV_NO_CONFIG": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "NO_COLOR": "1",
}
_VERSION = "import platform\nprint(platform.python_version())"
# An interpreter that is in a virtual environment itself has packages that another one of its kind would not see.
_VENV = """
import glob, site, subprocess, sys
sys.argv = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", {folder!r}]
if subprocess.call(sys.argv, stdin=subprocess.DEVNULL):
    sys.exit(1)
if sys.prefix != sys.base_prefix:
    for packages in glob.glob({folder!r} + "/lib/python3*/site-packages"):
        with open(packages + "/_of_root.pth", "w") as file:
            file.writelines("import site; site.addsitedir(%r)\\n" % place for place in site.getsitepackages())
"""
# What is installed in the home folder is not kept.
_SETTING_UP = Surroundings(env={"PIP_USER": "0"})
# What setup commands and code install with it is for the template's interpreter, not for its base.
_PIP = """
import glob, importlib.util, os, sysconfig
found = importlib.util.find_spec("pip") is not None
bundled = os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled")
folders = [] if found else [sysconfig.get_config_var("WHEEL_PKG_DIR") or bundled, bundled, "/usr/share/python-wheels"]
wheels = [wheel for folder in folders for wheel in sorted(glob.glob(folder + "/pip-*.whl"), reverse=True)]
ahead = "sys.path.insert(0, %r)\\n" % wheels[0] if wheels else ""
begin = "from pip._internal.cli.main import main\\nsys.exit(main())\\n"
script = "#!{folder}/bin/python\\nimport sys\\n" + ahead + begin
for path in ("{folder}/bin/pip", "{folder}/bin/pip3"):
    if (found or wheels) and not os.path.lexists(path):
        with open(path, "x") as file:
            file.write(script)
        os.chmod(path, 0o755)
"""
_COPY = "import shutil\nshutil.copytree({source!r}, {target!r}, symlinks=True, dirs_exist_ok=True)"
_IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
_TRY = """
import json, shutil, sys
print(json.dumps([name for name in {modules!r} if name not in sys.modules]))
print(json.dumps([name for name in {programs!r} if shutil.which(name) is None]))
"""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build came to."""

    size: LayerSize
    lock: str | None
    root: Root | None = None


class Building:
    """Builds one row. ``base`` is what it rests on, ``rules`` what it may reach, ``index`` where packages come from."""

    def __init__(
        self,
        runtime: Runtime,
        tools: BuildTools,
        settings: Settings,
        row: BuiltTemplate,
        base: Template,
        rules: NetworkRules,
        index: str,
        log: BuildLog,
        under: BuiltTemplate | None,
        roots: Roots,
    ) -> None:
        self._runtime = runtime
        self._tools = tools
        self._settings = settings
        self._row = row
        self._recipe = row.recipe
        self._base = base
        self._rules = rules
        self._index = index
        self._log = log
        self._under = under
        self._roots = roots
        # Once it is there, and for one that rests on a root file system.
        self._root: Root | None = None
        self._deadline = asyncio.get_running_loop().time() + settings.template_build_timeout_s

    async def run(self) -> Built:
        """Build it. Raises ``BuildFailed``, ``MechanismFault``, with nothing kept."""
        name = self._row.template_id
        try:
            async with asyncio.timeout_at(self._deadline):
                self._root = await self._roots.prepare(self._row, self._log)
                if self._root is not None and self._recipe.apt:
                    self._root = await self._add_packages(self._root)
                built = await self._make()
                await self._try()
        except BaseException as error:
            await asyncio.shield(self._tools.layers.drop(name))
            await asyncio.shield(self._roots.end(self._row))
            if isinstance(error, TimeoutError):
                limit_s = self._settings.template_build_timeout_s
                raise BuildFailed(f"the build was not done within {limit_s:g} s") from None
            raise
        return built

    async def _make(self) -> Built:
        under = "" if self._under is None else self._under.template_id
        layer = make_layer(self._base.name, self._root, "", under=under)
        inside = await self._create_for_building(under or layer.root or self._base.name, layer)
        try:
            await self._lay_out(inside)
            lock = await self._install(inside) if self._recipe.packages else None
            await inside.run("pip", [_PYTHON, "-Ic", _PIP.format(folder=LAYER_FOLDER)])
            for number, command in enumerate(self._recipe.setup, 1):
                self._log.say(f"setup {number}: {command}")
                await inside.run(f"setup command {number}", ["/bin/sh", "-ec", command], _SETTING_UP)
            if self._recipe.preload:
                self._log.say("preload " + " ".join(self._recipe.preload))
                await inside.run("preload", [_PYTHON, "-c", _IMPORT, *self._recipe.preload])
            self._log.say("packing")
            packed = inside.pack(path=LAYER_FOLDER, **self._most_kept())
            size = await self._tools.layers.keep(self._row.template_id, packed)
        finally:
            await self._destroy(inside)
        self._log.say(f"{size.files} files of {size.size_bytes} bytes are kept")
        if self._root is None:
            return Built(size, lock)
        whole = LayerSize(size.files + self._root.size.files, size.size_bytes + self._root.size.size_bytes)
        return Built(whole, lock, self._root)

    def _limits(self) -> Limits:
        settings = self._settings
        return replace(
            self._base.limits,
            memory_bytes=settings.template_build_memory_bytes,
            disk_bytes=settings.template_build_disk_bytes,
            file_size_bytes=settings.template_build_disk_bytes,
            cpu_millis=settings.template_build_cpu_millis,
            processes=_PROCESSES,
            inodes=_INODES,
        )

    def _most_kept(self) -> dict[str, int]:
        settings = self._settings
        return {"most_entries": settings.max_template_files, "most_bytes": settings.max_template_bytes}

    def _left_s(self) -> float:
        return max(0.1, self._deadline - asyncio.get_running_loop().time())

    async def _create(
        self,
        template: str,
        layer: Layer,
        limits: Limits,
        lifetime_s: float,
        isolation: Isolation = Isolation.STANDARD,
    ) -> Inside:
        spec = SandboxSpec(make_environment_id(), template, limits, lifetime_s, isolation, layer)
        return Inside(await self._runtime.create(spec), self._recipe.env, self._log, self._deadline)

    async def _create_for_building(self, template: str, layer: Layer) -> Inside:
        """One that may reach what the recipe says."""
        try:
            inside = await self._create(f"{BUILD_PREFIX}{template}", layer, self._limits(), self._left_s())
        except SandboxFailed as failed:
            if self._root is None:
                raise
            raise BuildFailed(f"its root file system is of no use: {failed.message}") from None
        try:
            if self._rules.allow:
                await inside.sandbox.network.allow(self._rules, self._row.owner_id)
        except BaseException:
            await self._destroy(inside)
            raise
        return inside

    async def _add_packages(self, root: Root) -> Root:
        """The root file system with the recipe's Debian packages in it, which may be there already."""
        if self._roots.has_packages(self._row):
            self._log.say("apt: the packages are there already")
            return root
        self._log.say("apt: copying the root file system")
        layer = make_layer("", root, "", changes_root=True)
        inside = await self._create_for_building(f"apt-{root.name}", layer)
        try:
            installed = await apt.install(inside, self._recipe.apt, self._log)
            self._log.say(f"{len(installed)} packages were installed")
            packed = inside.pack(path="/", closed=apt.CLOSED, **self._most_kept())
            return await self._roots.keep_changed(self._row, packed, installed, self._log)
        finally:
            await self._destroy(inside)

    async def _destroy(self, inside: Inside) -> None:
        # What cannot be ended now is ended by its lifetime.
        with suppress(MechanismFault):
            await asyncio.shield(self._runtime.destroy(inside.sandbox.environment_id))

    async def _lay_out(self, inside: Inside) -> None:
        """The files of the recipe, and the interpreter's own folder of packages."""
        if self._root is not None:
            await self._lay_out_upon_root(inside)
        else:
            self._log.say(f"base {self._base.name} ({self._base.language_version})")
            if self._under is None:
                # What belongs to the base, pip above all, and what code installs for itself can be imported, too.
                options = ["--without-pip", "--system-site-packages"]
                make = [self._base.interpreter or "", "-m", "venv", *options, LAYER_FOLDER]
            else:
                self._log.say(f"upon {self._under.reference}")
                make = ["cp", "-rP", "--preserve=mode,timestamps", f"{_UNDER_FOLDER}/.", LAYER_FOLDER]
            await inside.run("the base", make)
        for file in self._recipe.files:
            path = f"{LAYER_FOLDER}/{file.path}"
            self._log.say(f"file {path}")
            around = Surroundings(files=[InputFile(path, file.content)])
            code = f"import os\nos.chmod({path!r}, 0o755)" if file.is_executable else ""
            await inside.execute(f"file {file.path}", code, around)

    async def _lay_out_upon_root(self, inside: Inside) -> None:
        """Its packages are there in the template's folder, too. No program but the interpreter is needed for it."""
        said = await inside.execute("the interpreter", _VERSION, is_told=False)
        self._root = self._roots.note_version(self._row, said.stdout.decode("utf-8", "replace").strip())
        self._log.say(f"Python {self._root.version}")
        if self._under is None:
            await inside.execute("the base", _VENV.format(folder=LAYER_FOLDER))
        else:
            self._log.say(f"upon {self._under.reference}")
            await inside.execute("the base", _COPY.format(source=_UNDER_FOLDER, target=LAYER_FOLDER))

    async def _install(self, inside: Inside) -> str:
        """Find out which packages exactly are meant, note that with their hashes, and install those."""
        if self._tools.uv is None:
            raise BuildFailed("this server has no uv to install packages with")
        self._log.say(f"packages from {self._index}")
        await self._bring_uv(inside)
        if self._root is not None:
            await inside.check_runs(_UV, _NEEDS_GLIBC)
        wanted = InputFile("/tmp/.sandgate/wanted.txt", "\n".join(self._recipe.packages).encode())  # noqa: S108 - inside
        environ = {**_UV_ENVIRON, "UV_DEFAULT_INDEX": self._index}
        around = Surroundings(files=[wanted], env=environ)
        lock = "/tmp/.sandgate/lock.txt"  # noqa: S108 - within the walls
        compile_ = [
            _UV, "pip", "compile", "--quiet", "--no-header", "--generate-hashes", "--python", _PYTHON,
            "--output-file", lock, wanted.path,
        ]  # fmt: skip
        await inside.run("packages", compile_, around)
        shown = await inside.execute("the lock", f"print(open({lock!r}).read(), end='')", is_told=False)
        sync = [_UV, "pip", "install", "--python", _PYTHON, "--require-hashes", "--compile-bytecode", "-r", lock]
        await inside.run("packages", sync, Surroundings(env=environ))
        if shown.stdout_truncated:
            raise BuildFailed("the lock of the packages is too long to be kept")
        return plain(shown.stdout.decode("utf-8", "replace"))

    async def _bring_uv(self, inside: Inside) -> None:
        assert self._tools.uv is not None  # noqa: S101 - was checked
        program = await asyncio.to_thread(self._tools.uv.read_bytes)
        await inside.execute("uv", "import os\nos.makedirs('/tmp/.sandgate', exist_ok=True)")
        outlet, arguments = Outlet(), {"path": _UV, "overwrite": True, "mode": 0o755}
        channel = inside.begin(FileOperation("write", arguments, outlet))
        try:
            async with asyncio.timeout(_BRING_UV_S):
                for start in range(0, len(program), _PIECE_BYTES):
                    piece = program[start : start + _PIECE_BYTES]
                    if not await outlet.put(_LENGTH.pack(len(piece)) + piece):
                        break
                await outlet.put(_LENGTH.pack(0))
                await channel.answer()
        except SandgateError as error:
            raise BuildFailed(f"uv could not be laid out: {error.message}") from None
        except TimeoutError:
            raise BuildFailed(f"uv could not be laid out within {_BRING_UV_S:g} s") from None
        finally:
            outlet.close()
            channel.close()

    async def _try(self) -> None:
        """Make an environment of it, and see that it is as it was meant."""
        recipe = self._recipe
        layer = make_layer(self._base.name, self._root, self._row.template_id, recipe.preload, recipe.env)
        limits = replace(self._base.limits, **recipe.limits.given())
        layer = replace(layer, limits=limits)
        # Of the class that its environments have unasked: what is ready elsewhere may not be so there.
        classes = [each for each in self._base.isolations if each is not Isolation.PROCESS]
        isolation = classes[0] if classes else Isolation.STANDARD
        self._log.say(f"trial in the class {isolation}")
        try:
            inside = await self._create(self._row.template_id, layer, limits, _TRIAL_LIFETIME_S, isolation)
        except MechanismFault as fault:
            raise BuildFailed(f"no environment can be made from it: {fault.message}") from None
        try:
            programs = [language.commands[0][0] for language in recipe.languages]
            code = _TRY.format(modules=list(recipe.preload), programs=programs)
            tried = await inside.execute("the trial", code, is_told=False, limit_s=_TRIAL_S)
            _check_trial(tried.stdout)
            if recipe.ready is not None:
                self._log.say(f"ready: {recipe.ready}")
                command = RUN.format(argv=["/bin/sh", "-ec", recipe.ready])
                await inside.execute("the ready command", command, limit_s=_TRIAL_S)
        finally:
            await self._destroy(inside)


def _check_trial(said: bytes) -> None:
    """What an environment says is missing of modules, and of programs. Raises ``BuildFailed``."""
    modules, programs = (parse_names(line) for line in (said + b"\n\n").split(b"\n")[:2])
    if modules is None or modules:
        raise BuildFailed(f"preload: {', '.join(modules or ['something'])} could not be imported beforehand")
    if programs is None or programs:
        raise BuildFailed(f"languages: there is no program {', '.join(programs or ['of one of them'])}")


def environ_bytes(env: Mapping[str, str]) -> int:
    """How long variables are together."""
    return sum(len(text.encode("utf-8", "replace")) for pair in env.items() for text in pair)
