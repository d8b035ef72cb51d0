"""Text from elsewhere, made harmless for a terminal.

Names, messages and output of code may hold characters that move the cursor, repaint lines above, retitle the window or
type answers into the shell. They are shown instead of obeyed.
"""

import re

# C0 but newline and tab, DEL, C1, marks that turn the direction of text, separators of lines, and halves of pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def neutralise(text: str) -> str:
    """The text with every character that a terminal may obey written out, as in ``\\x1b``; lines and tabs stay."""
    return _UNSAFE.sub(_spell, text.replace("\r\n", "\n"))


def one_line(text: str, most: int = 2000) -> str:
    """The same for text that has to stay on one line; what is beyond ``most`` characters is left out."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return neutralise(shown).replace("\n", "\\n").replace("\t", " ")


def _spell(found: "re.Match[str]") -> str:
    return found.group().encode("unicode_escape", "surrogatepass").decode("ascii")
