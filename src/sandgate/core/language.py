"""What code can be written in beside the language of a template's interpreter."""

from collections.abc import Sequence
from dataclasses import dataclass

FILE = "{file}"
"""Stands in a command for the file with the code; without it the file comes last. Arguments come behind."""


@dataclass(frozen=True, slots=True)
class Language:
    """``commands`` are tried in their order: the first whose program is there runs the code.

    ``extension`` is how the name of the file with the code ends.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    extension: str = ""


BUILT_IN: Sequence[Language] = (
    Language("bash", (("bash",), ("sh",)), ".sh"),
    Language("javascript", (("node",),), ".js"),
)
