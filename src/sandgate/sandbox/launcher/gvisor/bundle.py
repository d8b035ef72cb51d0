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
from sandgate_agent import calls, system

RUNSC = "/runsc"
BUNDLE = "/bundle"
STATE = "/state"
_LOCKED_BYTES = 65_536
# Of process 1 of the container and of the forkers, over gVisor's kernel and nothing else; children have none.
_CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
    "CAP_SYS_ADMIN", "CAP_SYS_CHROOT",
]  # fmt: skip


def _config(template: TemplateConfig) -> dict[str, Any]:
    """The OCI configuration."""
    begin = f"import sys; sys.path.insert(0, {jail.AGENT_FOLDER!r})"
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
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _setup(template: TemplateConfig, limits: Limits) -> dict[str, Any]:
    """What process 1 of the container needs to know."""
    return {
        "preload": list(template.preload),
        "agent": jail.AGENT_FOLDER,
        "lowers": jail.lowers(template),
        "links": jail.top_level()[0],
        "disk_bytes": limits.disk_bytes,
        "processes": limits.processes,
        # As in the standard class, though no core leaves gVisor's kernel.
        "core": 1,
        "file_size": limits.file_size_bytes,
        "open_files": limits.open_files,
        "locked": _LOCKED_BYTES,
        "address_space": None,
    }


def build(place: Path, template: TemplateConfig, limits: Limits, runsc: str, filter_program: bytes, owner: int) -> None:
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
    bundle = place / BUNDLE.lstrip("/")
    (bundle / "config.json").write_text(json.dumps(_config(template)))
    _lay_out(bundle / "rootfs", template, limits, filter_program)
    system.mount("proc", str(place / "proc"), "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
    calls.run(system.prepare_pivot_root(str(place)))


def _lay_out(root: Path, template: TemplateConfig, limits: Limits, filter_program: bytes) -> None:
    """The container's root: what sandboxes see read-only, and the places that process 1 mounts upon."""
    # A file system of its own without flags, because runsc mounts it once more and may not drop any.
    system.mount("root", str(root), "tmpfs", 0, "size=8m,mode=755")
    links, folders = jail.top_level()
    for folder in ("env", "slots", "proc", "dev", "dev/pts", "sys", "tmp"):
        (root / folder).mkdir()
    for link, target in links.items():
        (root / link.lstrip("/")).symlink_to(target)
    jail.write_etc(root / "etc")
    for source in ["/usr", *folders]:
        jail.bind_read_only(source, root / source.lstrip("/"))
    if template.prefix in jail.lowers(template):
        jail.bind_read_only(template.prefix, root / template.prefix.lstrip("/"))
    agent = root / jail.AGENT_FOLDER.lstrip("/")
    jail.copy_agent(agent / "sandgate_agent")
    (agent / "setup.json").write_text(json.dumps(_setup(template, limits)))
    (agent / "filter").write_bytes(filter_program)
