"""``multiprocessing`` with spawn: its processes are new interpreters that read the main module from a file.

Code runs without one, so that a file is written when such a process is about to be started, and at no other time. The
module that starts them is changed as it is loaded, because loading it ahead would cost every environment its memory.
"""

import os
import sys
from typing import Any, List, Optional

_MODULE = "multiprocessing.spawn"

# The source and the file name of the one execution that a process is.
known: List[Any] = [None, None]
# The file that was written for it, and by which process.
written: List[Any] = []


class _Finder:
    """Finds modules of a folder as ``inner`` does, and changes the one that spawns when it is executed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def find_spec(self, name: str, target: Any = None) -> Any:
        """As the inner finder."""
        spec = self._inner.find_spec(name, target)
        if name != _MODULE or spec is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _change(module)

        spec.loader.exec_module = exec_module
        return spec


def prepare() -> None:
    """In the zygote, once."""
    if _MODULE in sys.modules:
        _change(sys.modules[_MODULE])
        return
    # Beside this module of the standard library is the package.
    folder = os.path.join(os.path.dirname(os.__file__), "multiprocessing")
    for hook in sys.path_hooks:
        try:
            sys.path_importer_cache[folder] = _Finder(hook(folder))
        except ImportError:
            continue
        return


def _change(module: Any) -> None:
    describe = module.get_preparation_data

    def get_preparation_data(name: str) -> Any:
        data = describe(name)
        if known[1] and data.get("init_main_from_path") == os.path.normpath(known[1]):
            data["init_main_from_path"] = _write() or known[1]
        return data

    module.get_preparation_data = get_preparation_data


def _write() -> Optional[str]:
    """The path of a file with the code, in the folder that the code is run in; None when it cannot be written."""
    if written:
        path: str = written[0]
        return path
    source, filename = known
    # The name may be taken by an execution side by side, by one that was killed, or by the user.
    for path in (filename, "{}-{}".format(filename, os.urandom(8).hex())):
        try:
            with open(path, "xb") as file:
                written[:] = path, os.getpid()
                file.write(source)
        except OSError:
            continue
        return path
    return None


def clean_up() -> None:
    """At the end of the execution."""
    if written and written[1] == os.getpid():
        try:
            os.unlink(written[0])
        except OSError:
            return
