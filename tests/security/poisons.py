"""Templates whose packages were written to harm: what each does when it is imported in the zygote."""

from collections.abc import Mapping
from pathlib import Path

from sandgate.sandbox.launcher.config import TemplateConfig


def lay_out(folder: Path, sources: Mapping[str, str]) -> list[TemplateConfig]:
    """A template for each source, all of one folder and of ``/usr/bin/python3``."""
    for each in (folder, *list(folder.parents)[:2]):
        each.chmod(0o755)
    program = folder / "bin" / "python"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec /usr/bin/python3 "$@"\n')
    program.chmod(0o755)
    modules = {name: name.replace("-", "_") + "_" for name in sources}
    for name, text in sources.items():
        (folder / f"{modules[name]}.py").write_text(text + "\n")
    return [TemplateConfig(name, str(program), str(folder), (modules[name],)) for name in sources]
