#!/usr/bin/env python3
"""Keep the generated pages of docs/ the same as the code: without arguments say what differs, with --write mend it."""

import sys
from pathlib import Path

from sandgate.cli.manual import render as commands_page
from sandgate.config.docs import render as settings_page
from sandgate.core import errors
from sandgate.http import problems

DOCS = Path(__file__).resolve().parent.parent / "docs"

ERRORS_HEAD = """\
# Error codes

<!-- Generated from src/sandgate/core/errors/ by scripts/check --write-docs; changes by hand are lost. -->

Every answer that is not a success has the same shape:

```json
{"error": {"code": "ENVIRONMENT_NOT_FOUND", "message": "what was tried, on what, and what to do", "details": {}}}
```

`code` never changes its meaning, so programs may match on it; `message` is for a person and may change. Code of a user
that fails is no error of the service: it is answered with 200 and a `status` that says how the execution ended.

| code | HTTP status | what it says |
| --- | --- | --- |
"""


def error_classes(base: type[errors.SandgateError]) -> list[type[errors.SandgateError]]:
    """Every class of the vocabulary's errors, in the order in which they are written."""
    return [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, base)]


def error_row(error: type[errors.SandgateError]) -> str:
    """A class as a row of the table: its code, its status and the first paragraph of its docstring."""
    promise = " ".join((error.__doc__ or "").split("\n\n")[0].split()).replace("``", "`").replace("|", r"\|")
    return f"| `{error.code}` | {problems.status_of(error)} | {promise} |\n"


def errors_page() -> str:
    """The whole of docs/errors.md."""
    return ERRORS_HEAD + "".join(map(error_row, error_classes(errors.SandgateError)))


def main() -> int:
    """Compare, or write; the exit status is 1 when a page is not current."""
    write = sys.argv[1:] == ["--write"]
    pages = {"cli.md": commands_page(), "configuration.md": settings_page(), "errors.md": errors_page()}
    stale = [name for name, text in pages.items() if not _is_current(DOCS / name, text)]
    for name in stale:
        if write:
            (DOCS / name).write_text(pages[name], encoding="utf-8")
        print(f"docs/{name} {'written' if write else 'is not current; run scripts/check --write-docs'}")
    return 1 if stale and not write else 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
