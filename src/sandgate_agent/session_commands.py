"""What notebooks have in cells that is no Python: lines that begin with ``!`` or ``%``, and whole cells of ``%%bash``.

A line is made into a call in its place, so that all others keep their numbers. Which lines those are the compiler says:
one that it stumbles over. So those in the middle of a text or of an expression are left alone.
"""

import _ast
import os
import re
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sandgate_agent import child

#: What is called in the place of a line.
RUN = "_sandgate_run"
_COMMAND = re.compile(r"(\s*)(?:!+|(%%?)(\w+))(.*)")
_PIP = re.compile(r"\s*pip3?(?=\s|$)")
_KNOWN = "lines may begin with !, %pip and %matplotlib, and whole cells with %%bash"


def may_be_in(source: bytes) -> bool:
    """Whether a cell that is no Python may be one with commands."""
    return b"!" in source or b"%" in source


def find_script(name: str, source: bytes) -> Optional[Tuple[List[str], bytes]]:
    """Options and script of a cell of ``%%bash``, lines at their numbers; None for others. Raises ``SyntaxError``."""
    before, _, rest = source.partition(b"%%")
    if before.strip():
        return None
    head, _, script = rest.partition(b"\n")
    words = head.decode("utf-8", "replace").split()
    if words[:1] != ["bash"]:
        raise _unknown(name, before.count(b"\n"), "%%" + head.decode("utf-8", "replace"), "%%" + "".join(words[:1]))
    return words[1:], b"\n" * (before.count(b"\n") + 1) + script


def _unknown(name: str, index: int, line: str, word: str) -> SyntaxError:
    message = "{} is not known here: {}".format(word, _KNOWN)
    return SyntaxError(message, (name, index + 1, len(line) - len(line.lstrip()) + 1, line.rstrip() + "\n"))


def parse(name: str, source: bytes, flags: int, error: SyntaxError) -> Any:
    """The tree of a cell over which the compiler has stumbled so. Raises ``SyntaxError``: this one, or another."""
    lines = source.decode("utf-8", "replace").split("\n")
    widths: Dict[int, Tuple[int, int]] = {}
    first = error
    while True:
        index = (error.lineno or 0) - 1
        if index in widths:
            # What is wrong is around it.
            raise first
        found = _COMMAND.fullmatch(lines[index].rstrip("\r")) if 0 <= index < len(lines) else None
        if found is None:
            raise error
        width = len(found.group(1).encode()), len(lines[index].rstrip().encode())
        _replace(name, lines, index, found)
        widths[index] = width
        try:
            tree = compile("\n".join(lines), name, "exec", flags | _ast.PyCF_ONLY_AST, True)
        except SyntaxError as next_error:
            error = next_error
        else:
            _show_as_written(tree, widths)
            return tree


def _replace(name: str, lines: List[str], index: int, found: Any) -> None:
    """A line, and those that go on from it, by what is done. Raises ``SyntaxError``."""
    indent, sign, word, text = found.groups()
    if sign == "%%" or word not in (None, "pip", "matplotlib"):
        raise _unknown(name, index, lines[index], sign + word)
    after = index
    while text.endswith("\\") and after + 1 < len(lines):
        after += 1
        text = text[:-1] + lines[after].rstrip("\r")
        lines[after] = ""
    if word == "matplotlib":
        # What is drawn is shown in any case.
        lines[index] = indent + "pass"
    else:
        lines[index] = "{}{}({!r})".format(indent, RUN, "pip" + text if word else text)


def _show_as_written(tree: Any, widths: Dict[int, Tuple[int, int]]) -> None:
    """Have tracebacks mark the line that was written, and not a part of it that was not there."""
    left = [tree]
    while left:
        node = left.pop()
        for field in node._fields:
            value = getattr(node, field, None)
            left += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, _ast.AST)]
        width = widths.get(getattr(node, "lineno", 0) - 1)
        if width is not None:
            node.col_offset, node.end_col_offset = width


class Commands:
    """Runs them, for the module of the cells."""

    def __init__(self, names: Dict[str, Any]) -> None:
        self._names = names
        names[RUN] = self.run

    def run(self, line: str) -> None:
        """A line for a shell; its exit code is ``_exit_code`` of the cells. Raises ``OSError``."""
        pip = _PIP.match(line)
        if pip is not None:
            # That of this interpreter, whatever else is in the path of programs.
            line = _find_pip() + line[pip.end() :]
        try:
            self._names["_exit_code"] = _call(["-c", line], ("bash", "sh"))
        except KeyboardInterrupt:
            # Where it was waited is nobody's concern.
            raise KeyboardInterrupt from None

    def run_script(self, options: List[str], script: bytes) -> int:
        """A script for bash; its exit code. Raises ``OSError``."""
        file = os.memfd_create("cell", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as writer:
                writer.write(script)
            return _call([*options, "/dev/fd/{}".format(file)], ("bash",), file)
        finally:
            os.close(file)


def _find_pip() -> str:
    """What starts pip for this interpreter: that of its packages, or else the one that it has for new environments."""
    import glob
    import importlib.util
    import shlex
    import sysconfig

    start = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None:
        # A wheel can be run as it is. Distributions keep theirs in a folder of their own.
        bundled = os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled")
        for folder in (sysconfig.get_config_var("WHEEL_PKG_DIR") or bundled, bundled, "/usr/share/python-wheels"):
            for wheel in sorted(glob.glob(os.path.join(folder, "pip-*.whl")), reverse=True):
                return "{} {}".format(start, shlex.quote(os.path.join(wheel, "pip")))
    return start + " -m pip"


def _call(arguments: List[str], shells: Sequence[str], *kept: int) -> int:
    """Have the first shell that is there run something; its exit code. Raises ``OSError``."""
    import importlib
    import shutil
    import subprocess

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    shell = next((each for each in shells if shutil.which(each)), shells[-1])
    environ = dict(os.environ)
    # Where programs of packages are that were installed in here; and nothing in here is a distribution's to keep.
    places, own = environ.get("PATH", os.defpath), os.path.expanduser("~/.local/bin")
    environ["PATH"] = places if own in places.split(":") else "{}:{}".format(places, own)
    environ.setdefault("PIP_BREAK_SYSTEM_PACKAGES", "1")
    code = subprocess.call([shell, *arguments], pass_fds=kept, env=environ)
    child._find_user_packages()
    importlib.invalidate_caches()
    # As a shell says it.
    return 128 - code if code < 0 else code
