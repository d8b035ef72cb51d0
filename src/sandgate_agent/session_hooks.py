"""What libraries find changed in a session, so that what they draw is shown where the session is.

Modules are changed when the code imports them, and only then.
"""

import importlib.machinery
import os
import sys
import types
from typing import Any, Callable, Dict, List

from sandgate_agent.session_display import FIGURES, Display, figure_bundle

_CLASSES = (
    ("HTML", "text/html"),
    ("Markdown", "text/markdown"),
    ("Latex", "text/latex"),
    ("SVG", "image/svg+xml"),
    ("JSON", "application/json"),
    ("Javascript", "application/javascript"),
)
_EXTENSIONS = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "svg": "image/svg+xml",
}


class _Changing:
    """Finds modules as everybody does, and changes those that have a hook when they are executed."""

    def __init__(self, hooks: Dict[str, Callable[[Any], None]]) -> None:
        self._hooks = hooks

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """See ``importlib.abc.MetaPathFinder``."""
        hook = self._hooks.get(name)
        if hook is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self or not hasattr(finder, "find_spec") else finder.find_spec(name, path, target)
            if spec is None or spec.loader is None:
                continue
            execute = spec.loader.exec_module

            def exec_module(module: Any, execute: Any = execute, hook: Any = hook) -> None:
                execute(module)
                hook(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec
        return None


class _StandIn:
    """Makes a small ``IPython.display`` where there is no IPython."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        """See ``importlib.abc.MetaPathFinder``. It comes last, so that what is installed is found before."""
        if name not in ("IPython", "IPython.display"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name == "IPython")  # type: ignore[arg-type]

    def create_module(self, _spec: Any) -> None:
        """As usual."""

    def exec_module(self, module: Any) -> None:
        """Fill it."""
        if module.__name__ == "IPython":
            module.get_ipython = lambda: None
            module.version_info, module.__version__ = (0, 0, 0), "0.0.0"
            return
        module.display = self._display.show
        module.publish_display_data = lambda data, **_options: self._display.publish(dict(data))
        module.clear_output = lambda *_wait, **_options: None
        module.Image = _Image
        for name, kind in _CLASSES:
            setattr(module, name, _make_class(name, kind))


def _make_class(name: str, kind: str) -> Any:
    class Shown:
        def __init__(self, data: Any = None, **_options: Any) -> None:
            self.data = data

        def _repr_mimebundle_(self, **_options: Any) -> Dict[str, Any]:
            return {kind: self.data}

    # As it is called where it is installed.
    Shown.__module__, Shown.__name__, Shown.__qualname__ = "IPython.core.display", name, name
    return Shown


class _Image:
    """A picture: its bytes, or the path of its file; ``format`` among the options."""

    def __init__(self, data: Any = None, filename: Any = None, **options: Any) -> None:
        if isinstance(data, str):
            data, filename = None, data
        if filename is not None:
            with open(filename, "rb") as file:
                data = file.read()
            options.setdefault("format", os.path.splitext(filename)[1][1:].lower())
        self.data = data
        self._kind = _EXTENSIONS.get(options.get("format", "png"), "image/png")

    def _repr_mimebundle_(self, **_options: Any) -> Dict[str, Any]:
        data = self.data.decode() if self._kind == "image/svg+xml" else self.data
        return {self._kind: data}


def _show_figures(display: Display) -> None:
    """Show what pyplot holds, and close it: the next cell draws its own. Raises what one that cannot be drawn did."""
    helpers = sys.modules.get(FIGURES)
    if helpers is None:
        return
    failed: List[Exception] = []
    for manager in list(helpers.Gcf.get_all_fig_managers()):
        figure = manager.canvas.figure
        helpers.Gcf.destroy(manager.num)
        try:
            if figure.get_axes() or getattr(figure, "texts", None) or getattr(figure, "images", None):
                display.publish(figure_bundle(figure))
        except Exception as error:
            # The others are shown all the same, and not by the next cell.
            failed.append(error)
    if failed:
        raise failed[0]


def install(display: Display) -> None:
    """For the interpreter that this is."""
    # What draws on no screen is chosen without a look for one.
    os.environ.setdefault("MPLBACKEND", "agg")

    def show_figures(*_ignored: Any, **_options: Any) -> None:
        _show_figures(display)

    def change_pyplot(module: types.ModuleType) -> None:
        module.show = show_figures  # type: ignore[attr-defined]

    def change_ipython(module: types.ModuleType) -> None:
        module.display = display.show  # type: ignore[attr-defined]
        module.publish_display_data = lambda data, **_options: display.publish(dict(data))  # type: ignore[attr-defined]

    display.flushers.append(show_figures)
    hooks: Dict[str, Callable[[Any], None]] = {
        "matplotlib.pyplot": change_pyplot,
        "IPython.core.display_functions": change_ipython,
    }
    for name, hook in hooks.items():
        # A template may have imported it before.
        if name in sys.modules:
            hook(sys.modules[name])
    sys.meta_path.insert(0, _Changing(hooks))
    sys.meta_path.append(_StandIn(display))
