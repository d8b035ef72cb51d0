"""Modules of this package that few children need: kept as bytes in the zygote, made into modules by who needs them.

So they cost nobody else memory, and none of the pages that hold what every child uses.
"""

import marshal
import os
import sys
from typing import Any, Dict

NAMES = (
    "session_wire", "session_interrupts", "session_display", "session_hooks", "session_errors", "session_shell",
    "session_commands", "session",
)  # fmt: skip
_PACKAGE = __name__.rpartition(".")[0]
_kept: Dict[str, bytes] = {}
_loaded: Dict[str, Any] = {}


def keep(compiled: bool) -> None:
    """In the zygote, once, while the package's files can be seen.

    ``compiled``: whoever needs them later does not have to wait for that; otherwise the zygote has not.
    """
    folder = os.path.dirname(__file__)
    for name in NAMES:
        with open("{}/{}.py".format(folder, name), "rb") as file:
            source = file.read()
        _kept[name] = marshal.dumps(_compile(name, source)) if compiled else source


def forget_package() -> None:
    """Code is not to find this package among the modules; what is loaded later is given it."""
    for name in [name for name in sys.modules if name.split(".")[0] == _PACKAGE]:
        _loaded[name] = sys.modules.pop(name)


def load(name: str) -> Any:
    """The module of this name, with what it imports of the package; the code that is run then finds none of them."""
    sys.modules.update(_loaded)
    for each in NAMES:
        whole = "{}.{}".format(_PACKAGE, each)
        if whole not in sys.modules:
            kept = _kept.pop(each)
            module = type(sys)(whole)
            sys.modules[whole] = module
            setattr(sys.modules[_PACKAGE], each, module)
            # A source begins with the quotes of its docstring, which nothing that is marshalled does.
            code = _compile(each, kept) if kept[:3] == b'"""' else marshal.loads(kept)
            exec(code, module.__dict__)
    forget_package()
    return _loaded["{}.{}".format(_PACKAGE, name)]


def _compile(name: str, source: bytes) -> Any:
    return compile(source, "<{}.{}>".format(_PACKAGE, name), "exec", 0, True)
