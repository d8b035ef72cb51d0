"""Debian packages in a root file system: installed by its own apt, in a sandbox that has a copy of it to change.

Whatever runs there is hostile, the scripts of packages first of all, and so is everything that is found afterwards.
"""

import re
from collections.abc import Mapping

from sandgate.core.built import BuildFailed
from sandgate.core.execution import Surroundings
from sandgate.environments.builds.inside import Inside
from sandgate.environments.builds.log import BuildLog

BELOW = "/opt/base"
"""Where the sandbox sees the root file system as it was."""
#: Folders that are nothing of a root file system, though each sandbox has them.
CLOSED = (
    "dev", "home/user", "opt/base", "opt/template", "proc", "run", "sys", "tmp", "var/empty", "var/tmp", "workspace",
)  # fmt: skip
_TOOLS = "/tmp/.sandgate"  # noqa: S108 - within the walls
_BEFORE = f"{_TOOLS}/before"
_MOST_INSTALLED = 1000
_INSTALLED = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}:[a-z0-9-]{1,20}=[0-9][A-Za-z0-9.+:~-]{0,199}")
_ENV = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "DEBCONF_NOWARNINGS": "yes",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# Nobody is to become another user, who would not be there; no terminal; the newest files or none; and a power failure
# half way through is the end of the sandbox anyway.
_APT = (
    "apt-get", "--quiet", "--yes",
    *(
        part
        for option in (
            "APT::Sandbox::User=root", "APT::Install-Recommends=false", "APT::Update::Error-Mode=any",
            "Acquire::Languages=none", "Acquire::Retries=2", "Acquire::http::Timeout=30", "Acquire::https::Timeout=30",
            "Dpkg::Use-Pty=false", "Dpkg::Options::=--force-unsafe-io", "Dpkg::Options::=--force-confold",
        )
        for part in ("-o", option)
    ),
)  # fmt: skip
# What it has been started from is not there before this: only modules that every interpreter has loaded already.
_COPY = """
import os
below = {below!r}
lacking = [path for path in ("/usr/bin/apt-get", "/usr/bin/dpkg", "/var/lib/dpkg/status")
           if not os.path.isfile(below + path)]
if lacking:
    raise SystemExit("its root file system has no " + lacking[0])
known = {{}}
todo = [""]
while todo:
    folder = todo.pop()
    for entry in list(os.scandir(below + folder or below)):
        path, status = folder + "/" + entry.name, entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        elif entry.is_dir(follow_symlinks=False):
            if not os.path.isdir(path):
                os.mkdir(path)
            todo.append(path)
        elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in known:
            os.link(known[status.st_dev, status.st_ino], path)
        else:
            known[status.st_dev, status.st_ino] = path
            source = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, status.st_mode & 0o777)
            while os.sendfile(target, source, None, 1 << 30):
                pass
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.close(source)
            os.close(target)
"""
# Packages are told not to start what they bring: nothing runs in a root file system.
_PREPARE = """
import os
for folder in ({tools!r}, "/run/lock", "/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial", "/var/log/apt"):
    os.makedirs(folder, exist_ok=True)
if not os.path.lexists({policy!r}):
    with open({policy!r}, "w") as file:
        file.write("#!/bin/sh\\nexit 101\\n")
    os.chmod({policy!r}, 0o755)
    os.symlink({policy!r}, {tools!r} + "/policy")
"""
_POLICY = "/usr/sbin/policy-rc.d"
_FIND = """
import subprocess
query = ["dpkg-query", "-W", "-f", "${{Package}}:${{Architecture}}=${{Version}} ${{db:Status-Status}}\\n"]
said = subprocess.run(query, stdout=subprocess.PIPE, check=True).stdout.decode()
found = {{line.split()[0] for line in said.splitlines() if line.endswith(" installed")}}
"""
_NOTE = """
with open({before!r}, "w") as file:
    file.write("\\n".join(found))
"""
_TELL = """
with open({before!r}) as file:
    before = set(file.read().split("\\n"))
print("\\n".join(sorted(found - before)))
"""
# What cannot be read would be left out. Package lists and archives are of no use to anybody who cannot install.
_CLEAR = """
import os, shutil
if os.path.lexists({tools!r} + "/policy"):
    os.unlink({policy!r})
for folder in ("/var/lib/apt/lists", "/var/cache/apt"):
    if os.path.isdir(folder) and not os.path.islink(folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, exist_ok=True)
closed = {{"/" + folder for folder in {closed!r}}}
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in closed]
    for name in (*folders, *names):
        path = os.path.join(folder, name)
        status = os.lstat(path)
        wanted = 0o700 if name in folders else 0o400
        if not os.path.islink(path) and status.st_mode & wanted != wanted:
            try:
                os.chmod(path, status.st_mode & 0o777 | wanted)
            except OSError:
                pass
"""


async def install(inside: Inside, packages: tuple[str, ...], log: BuildLog) -> tuple[str, ...]:
    """Copy the root file system and install packages in the copy; which there are then that were not there before.

    Raises ``BuildFailed``.
    """
    names = {"below": BELOW, "tools": _TOOLS, "before": _BEFORE, "policy": _POLICY, "closed": CLOSED}
    await _copy(inside, names)
    around = Surroundings(env=_ENV)
    await inside.execute("apt", _PREPARE.format(**names), around)
    await inside.execute("apt", (_FIND + _NOTE).format(**names), around)
    log.say("apt-get update")
    await inside.run("apt-get update", [*_APT, "update"], around)
    log.say("apt-get install " + " ".join(packages))
    await inside.run("apt-get install", [*_APT, "install", "--", *packages], around)
    said = await inside.execute("the list of packages", (_FIND + _TELL).format(**names), around, is_told=False)
    await inside.execute("apt", _CLEAR.format(**names), around)
    return _parse(said.stdout, is_whole=not said.stdout_truncated)


async def _copy(inside: Inside, names: Mapping[str, object]) -> None:
    try:
        await inside.execute("the copy of the root file system", _COPY.format(**names))
    except BuildFailed as failed:
        if "its root file system has no" not in str(failed):
            raise
        raise BuildFailed(
            f"apt: {str(failed).rpartition(': ')[2]}; its packages need a base with apt and dpkg, such as an image of "
            "Debian or Ubuntu"
        ) from None


def _parse(said: bytes, *, is_whole: bool) -> tuple[str, ...]:
    """Raises ``BuildFailed``."""
    lines = said.decode("utf-8", "replace").split()
    if not is_whole or len(lines) > _MOST_INSTALLED:
        raise BuildFailed(f"apt: more than {_MOST_INSTALLED} packages were installed")
    odd = next((line for line in lines if not _INSTALLED.fullmatch(line)), None)
    if odd is not None:
        raise BuildFailed(f"apt: {odd[:100]!a} is no package with its version")
    return tuple(lines)
