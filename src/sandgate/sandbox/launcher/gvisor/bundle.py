"""What a container is made of: the tree that ``runsc`` is shut in, and the OCI bundle in it.

Source: the OCI runtime specification, ``config.md`` and ``config-linux.md``.
"""

import json
import os
from pathlib import Path
from typing import Any

from sandgate.core.limits import Limits
from sandgate.sandbox.launcher import jail
from sandgate.sandbox.launcher.config import TemplateConfig
from sandgate.sandbox.launcher.volume_verbs import MOST_MOUNTED
from sandgate_agent import calls, system

RUNSC = "/runsc"
BUNDLE = "/bundle"
STATE = "/state"
# Where the mounts of volumes are attached, each at a number, in the tree and in the container: gVisor's kernel shows a
# part of a mount with the flags of that mount only, so that those for reading are a mount of their own.
VOLUMES, VOLUMES_TO_READ = f"{jail.AGENT_FOLDER}/volumes", f"{jail.AGENT_FOLDER}/volumes-to-read"
_LOCKED_BYTES = 65_536
# Of process 1 of the container and of the forkers, over gVisor's kernel and nothing else; children have none.
_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_IPC_OWNER", "CAP_KILL", "CAP_MKNOD", "CAP_SETGID",
    "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT",
]  # fmt: skip


def _config(template: TemplateConfig) -> dict[str, Any]:
    """The OCI configuration."""
    begin = f"import sys; {jail.check_version(template)}sys.path.insert(0, {jail.AGENT_FOLDER!r})"
    start = f"{begin}; from sandgate_agent import contained; contained.run()"
    environ = [f"{name}={value}" for name, value in jail.environ(template).items()]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [template.interpreter, "-u", "-c", start],
            "env": environ,
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
            # As in the jail of the other class.
            *([{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}] if template.is_built else []),  # noqa: S108
            # Not of the root, of which gVisor remembers what it has seen: others write to a volume, too.
            *(
                {"destination": places, "type": "bind", "source": places, "options": ["rbind", flag, "rslave"]}
                for places, flag in ((VOLUMES, "rw"), (VOLUMES_TO_READ, "ro"))
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _setup(template: TemplateConfig, limits: Limits) -> dict[str, Any]:
    """What process 1 of the container needs to know."""
    return {
        "preload": list(template.preload),
        "agent": jail.AGENT_FOLDER,
        "lowers": jail.lowers(template),
        "links": jail.links(template),
        "folder": template.begins_in,
        "bare": [] if template.root is None else list(template.root.bare),
        "disk_bytes": limits.disk_bytes,
        "inodes": limits.inodes,
        "processes": limits.processes,
        # As in the standard class, though no core leaves gVisor's kernel.
        "core": 1,
        "file_size": limits.file_size_bytes,
        "open_files": limits.open_files,
        "locked": _LOCKED_BYTES,
        "address_space": None,
    }


def build(
    place: Path,
    template: TemplateConfig,
    limits: Limits,
    runsc: str,
    filter_program: bytes,
    owner: int,
    layers_folder: Path | None = None,
) -> None:
    """Lay out the tree and make it the root of this process; ``owner`` is whom ``runsc`` will run as."""
    system.mount("", "/", "", system.MS_REC | system.MS_PRIVATE)
    system.mount("jail", str(place), "tmpfs", system.MS_NOSUID | system.MS_NODEV, "size=16m,mode=755")
    # gVisor makes the root of its kernel upon /tmp.
    for folder in (BUNDLE, STATE, "proc", "tmp", f"{BUNDLE}/rootfs"):
        (place / folder.lstrip("/")).mkdir()
    os.chown(place / STATE.lstrip("/"), owner, owner)
    (place / RUNSC.lstrip("/")).touch()
    system.mount(runsc, str(place / RUNSC.lstrip("/")), "", system.MS_BIND)
    jail.make_devices(place / "dev")
    for places in (VOLUMES, VOLUMES_TO_READ):
        _make_places(place / places.lstrip("/"))
    bundle = place / BUNDLE.lstrip("/")
    (bundle / "config.json").write_text(json.dumps(_config(template)))
    _lay_out(bundle / "rootfs", template, limits, filter_program, layers_folder)
    system.mount("proc", str(place / "proc"), "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
    calls.run(system.prepare_pivot_root(str(place)))


def _make_places(folder: Path) -> None:
    """A place for each mount of a volume that may come, which nobody can write to."""
    folder.mkdir(parents=True)
    system.mount("volumes", str(folder), "tmpfs", system.MS_NOSUID | system.MS_NODEV, "size=64k,nr_inodes=64,mode=755")
    for number in range(MOST_MOUNTED):
        (folder / str(number)).mkdir()
    flags = system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID | system.MS_NODEV
    system.mount("", str(folder), "", flags)


def share_volumes() -> None:
    """Have what is attached to the places of volumes from now on appear in the file server, too.

    In namespaces of its own, once this process is in them. Source: mount_namespaces(7), "Shared subtrees".
    """
    for places in (VOLUMES, VOLUMES_TO_READ):
        system.mount("", places, "", system.MS_SHARED)


def _lay_out(
    root: Path, template: TemplateConfig, limits: Limits, filter_program: bytes, layers_folder: Path | None
) -> None:
    """The container's root: what sandboxes see read-only, and the places that process 1 mounts upon."""
    # A file system of its own without flags, because runsc mounts it once more and may not drop any.
    system.mount("root", str(root), "tmpfs", 0, "size=8m,mode=755")
    for folder in ("env", "slots", "proc", "dev", "dev/pts", "sys", "tmp", VOLUMES, VOLUMES_TO_READ):
        (root / folder.lstrip("/")).mkdir(parents=True)
    jail.lay_out_lowers(layers_folder, template, root)
    agent = root / jail.AGENT_FOLDER.lstrip("/")
    jail.copy_agent(agent / "sandgate_agent")
    (agent / "setup.json").write_text(json.dumps(_setup(template, limits)))
    (agent / "filter").write_bytes(filter_program)
