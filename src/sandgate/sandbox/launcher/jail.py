"""Starts a template's zygote: its own interpreter, without privileges, in a small tree of read-only mounts.

The mounts are made here by root, outside every user namespace that a sandbox will have, and are therefore locked in
each of them: nothing inside can undo them.
"""

import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
from contextlib import suppress
from pathlib import Path

import sandgate_agent
from sandgate.sandbox import apparmor
from sandgate.sandbox.launcher.config import LAYER, UNDER, LauncherConfig, TemplateConfig
from sandgate.sandbox.launcher.root_folder import open_shown
from sandgate.sandbox.seccomp import build_zygote_filter
from sandgate_agent import calls, system, wire

CHANNEL_FD = 3
AGENT_FOLDER = "/sandgate"
# Where an environment is built, before it becomes the root.
ROOT = "/env"
# Source: include/uapi/asm-generic/resource.h
_RLIMIT_SIGPENDING, _RLIMIT_MSGQUEUE = 11, 12
_SAFE = system.MS_NOSUID | system.MS_NODEV
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}  # fmt: skip
# Where packages put folders of their own beside those that each sandbox has.
_SHARED = ("/", "/home", "/opt", "/run", "/var")
_TOP_LEVEL = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC_FILES = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "resolv.conf": "",
    "host.conf": "multi on\n",
}
_ETC_COPIED = (
    "alternatives", "ca-certificates.conf", "debian_version", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "mime.types", "os-release", "protocols", "services", "shells", "ssl/certs/ca-certificates.crt",
    "ssl/openssl.cnf", "timezone",
)  # fmt: skip


def top_level() -> tuple[dict[str, str], list[str]]:
    """How the host's ``/bin`` and its like look: links (path: target), and folders of their own."""
    links = {path: os.readlink(path) for path in _TOP_LEVEL if os.path.islink(path)}
    folders = [path for path in _TOP_LEVEL if os.path.isdir(path) and not os.path.islink(path)]
    return links, folders


def links(template: TemplateConfig) -> dict[str, str]:
    """The links in the root that every sandbox of a template sees, by path, and where they lead."""
    return top_level()[0] if template.root is None else dict(template.root.links)


def lowers(template: TemplateConfig) -> list[str]:
    """The folders that every sandbox of a template sees read-only, outermost first."""
    if template.root is not None:
        return [*template.root.shown, *(place for place, layer in _layers(template) if layer)]
    folders = ["/usr", "/etc", *top_level()[1]]
    if not Path(template.prefix).is_relative_to("/usr"):
        folders.append(template.prefix)
    return [*folders, *(place for place, layer in _layers(template) if layer)]


def _layers(template: TemplateConfig) -> tuple[tuple[str, str], ...]:
    """Where its layers are seen, and their names."""
    return (LAYER, template.layer), (UNDER, template.under)


def lay_out_lowers(layers_folder: Path | None, template: TemplateConfig, root: Path) -> None:
    """Show, below ``root``, what every sandbox of a template sees read-only, and its links. Raises ``OSError``."""
    if template.root is not None:
        with open_shown(layers_folder, template.root) as shown:
            for source, path in shown:
                bind_read_only(source, root / path.lstrip("/"))
    else:
        write_etc(root / "etc")
        for source in ["/usr", *top_level()[1]]:
            bind_read_only(source, root / source.lstrip("/"))
        if template.prefix in lowers(template):
            bind_read_only(template.prefix, root / template.prefix.lstrip("/"))
    bind_layers(layers_folder, template, root)
    for link, target in links(template).items():
        (root / link.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / link.lstrip("/")).symlink_to(target)


def bind_layers(layers_folder: Path | None, template: TemplateConfig, root: Path) -> None:
    """Show what was built for a template. Raises ``OSError``."""
    for place, name in _layers(template):
        if name:
            _bind_layer(layers_folder, name, root / place.lstrip("/"))


def _bind_layer(layers_folder: Path | None, name: str, target: Path) -> None:
    """The folder is another user's: no link on the way to it is followed."""
    if layers_folder is None:
        raise FileNotFoundError(errno.ENOENT, "there are no built templates", name)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    layers = os.open(layers_folder, flags)
    try:
        layer = os.open(name, flags, dir_fd=layers)
    finally:
        os.close(layers)
    try:
        bind_read_only(f"/proc/self/fd/{layer}", target)
    finally:
        os.close(layer)


def bind_read_only(source: str, target: Path) -> None:
    """Show a folder of the host's, which nobody can write through it."""
    target.mkdir(parents=True, exist_ok=True)
    system.mount(source, str(target), "", system.MS_BIND)
    system.mount("", str(target), "", system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | _SAFE)


def write_etc(etc: Path) -> None:
    """A synthetic ``/etc``: no accounts, names or keys of the host's."""
    etc.mkdir()
    for name, text in _ETC_FILES.items():
        (etc / name).write_text(text)
    for name in _ETC_COPIED:
        source, target = Path("/etc") / name, etc / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.is_symlink():
            # A link into /etc that is not copied would dangle.
            target.symlink_to(os.readlink(source)) if not source.is_file() else shutil.copyfile(source, target)
        elif source.is_file():
            shutil.copyfile(source, target)


def make_devices(dev: Path) -> None:
    """The harmless devices, on a file system that may hold devices because root has mounted it."""
    dev.mkdir()
    system.mount("dev", str(dev), "tmpfs", system.MS_NOSUID | system.MS_NOEXEC, "size=64k,nr_inodes=64,mode=755")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(dev / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(dev / name, 0o666)  # noqa: S103 - harmless devices
    for name, target in _DEVICE_LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    flags = system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID | system.MS_NOEXEC
    system.mount("", str(dev), "", flags)


def copy_agent(target: Path) -> None:
    """The agent's files; copied, so that it does not matter who may read the folder that they are installed in."""
    source = Path(sandgate_agent.__file__).parent
    target.mkdir(parents=True)
    for file in source.glob("*.py"):
        shutil.copyfile(file, target / file.name)


def _build(config: LauncherConfig, template: TemplateConfig) -> None:
    """Lay out the tree and make it the root."""
    jail = config.run_folder / "jail"
    system.mount("", "/", "", system.MS_REC | system.MS_PRIVATE)
    system.mount("jail", str(jail), "tmpfs", _SAFE, "size=32m,mode=755")
    for folder in (ROOT.lstrip("/"), "empty", "proc"):
        (jail / folder).mkdir()
    lay_out_lowers(config.layers_folder, template, jail)
    if template.is_built:
        # Some modules want a place for files when they are imported; environments have one of their own.
        (jail / "tmp").mkdir()
        (jail / "tmp").chmod(0o1777)
    make_devices(jail / "dev")
    copy_agent(jail / AGENT_FOLDER.lstrip("/") / "sandgate_agent")
    system.mount("proc", str(jail / "proc"), "proc", _SAFE | system.MS_NOEXEC)
    calls.run(system.prepare_pivot_root(str(jail)))


def environ(template: TemplateConfig, *, is_walled: bool = True) -> dict[str, str]:
    """Everything that user code finds in its environment variables."""
    places = [f"{template.prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"]
    built = {"VIRTUAL_ENV": LAYER, **dict(template.env)} if template.is_built else {}
    if template.is_built:
        places.insert(0, f"{LAYER}/bin")
    # Within the walls nothing is a distribution's to keep.
    installing = {"PIP_BREAK_SYSTEM_PACKAGES": "1"} if is_walled else {}
    variables = {
        "HOME": "/home/user",
        "LANG": "C.UTF-8",
        "LOGNAME": "user",
        "PATH": ":".join(dict.fromkeys(places)),
        "PWD": "/workspace",
        "USER": "user",
        **installing,
        **built,
    }
    if is_walled:
        # Of packages that code installs; last, so that they take no other program's place.
        variables["PATH"] = ":".join(filter(None, (variables["PATH"], variables["HOME"] + "/.local/bin")))
    return variables


def check_version(template: TemplateConfig) -> str:
    """Code with which an interpreter that nobody has looked at says that it is too old, or lacks something."""
    if template.root is None:
        return ""
    lacks = "sys.exit('its python3 is Python %d.%d; 3.8 is the oldest that is of use' % sys.version_info[:2])"
    return f"sys.version_info < (3, 8) and {lacks}; import ctypes; "


def _arguments(template: TemplateConfig, agent: str) -> list[str]:
    start = (
        f"import sys; {check_version(template)}sys.path.insert(0, {agent!r}); "
        "from sandgate_agent import heap; heap.begin_fresh_pages(); "
        f"from sandgate_agent import zygote; zygote.main({CHANNEL_FD})"
    )
    return [template.interpreter, "-u", "-c", start]


def _settle_descriptors(channel: int, log: int) -> None:
    """The channel as ``CHANNEL_FD``, the log as output, and not one other descriptor of the launcher's."""
    null = os.open("/dev/null", os.O_RDONLY)
    # At a number that is free: that of the log would be taken from it.
    high = fcntl.fcntl(channel, fcntl.F_DUPFD, CHANNEL_FD + 1)
    for number, source in enumerate((null, log, log)):
        os.dup2(source, number)
    os.dup2(high, CHANNEL_FD)
    os.closerange(CHANNEL_FD + 1, os.sysconf("SC_OPEN_MAX"))


def _lift_shared_limits() -> None:
    """Leave what the kernel counts for a user to each environment.

    It counts it for whoever made their user namespaces as well, which is the zygote for all of a template's, up to the
    limits that the zygote has: one environment could use up what is there for all. Source: user_namespaces(7), and
    ``create_user_ns`` in kernel/user_namespace.c. Where root may not raise them (no CAP_SYS_RESOURCE) they stay, and a
    few environments together can still use them up.
    """
    for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK, _RLIMIT_SIGPENDING, _RLIMIT_MSGQUEUE):
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _start_standard(config: LauncherConfig, template: TemplateConfig, host_id: int) -> None:
    os.umask(0o022)
    if apparmor.is_restricted():
        apparmor.enter_at_exec()
    _lift_shared_limits()
    if template.is_built:
        # Built before the tree changes, in which the library may not be found.
        confine = system.Filter(build_zygote_filter())
    _build(config, template)
    if template.is_built:
        # As root, so that it needs no no_new_privs, with which a profile could not be entered at exec.
        calls.run((confine.install,))
    os.setgroups([])
    os.setresgid(host_id, host_id, host_id)
    os.setresuid(host_id, host_id, host_id)
    os.execve(template.interpreter, _arguments(template, AGENT_FOLDER), environ(template))  # noqa: S606 - there is no shell


def _start_plain(template: TemplateConfig) -> None:
    agent = str(Path(sandgate_agent.__file__).parent.parent)
    os.execve(template.interpreter, _arguments(template, agent), environ(template, is_walled=False))  # noqa: S606 - there is no shell


def start_zygote(
    config: LauncherConfig, template: TemplateConfig, *, host_id: int, channel: int, log: int, ready: int
) -> int:
    """Start a zygote and answer its process id. ``channel`` becomes its socket, ``log`` its output.

    It waits until a byte comes on ``ready``, by when the caller has put it into its control group.
    """
    flags = system.CLONE_NEWNS | system.CLONE_NEWPID | system.CLONE_NEWNET | system.CLONE_NEWIPC | system.CLONE_NEWUTS
    pid = system.clone(flags if config.standard else 0)
    if pid:
        return pid
    try:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
            # An ignored signal stays ignored in every program that is started from here.
            signal.signal(number, signal.SIG_DFL)
        if os.read(ready, 1) != wire.GO:
            os._exit(1)
        _settle_descriptors(channel, log)
        if config.standard:
            _start_standard(config, template, host_id)
        _start_plain(template)
    except BaseException as error:
        os.write(2, f"cannot start the zygote of {template.name}: {error}\n".encode())
    os._exit(1)


def setup_message(config: LauncherConfig, template: TemplateConfig) -> dict[str, object]:
    """The first message to a zygote."""
    agent = AGENT_FOLDER if config.standard else str(Path(sandgate_agent.__file__).parent.parent)
    bare = [] if template.root is None else list(template.root.bare)
    changed = [*template.root.shown, *bare] if template.changes_root and template.root is not None else []
    return {
        "preload": list(template.preload),
        "agent": agent,
        "standard": config.standard,
        "lowers": lowers(template),
        "links": links(template),
        # Where it is to be changed it is below another one, and so is its folder.
        "folder": "" if changed else template.begins_in,
        "bare": bare,
        "open": [*([LAYER] if template.is_open else []), *changed],
        "shared": list(_SHARED) if changed else [],
        "below": UNDER if changed else "",
    }
