"""What is wrong with a definition, each problem with the line where it stands."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sandgate.cli.printable import one_line
from sandgate.core.errors import RequestRefused

if TYPE_CHECKING:
    from sandgate.cli.workflows.documents import Document
    from sandgate.sdk.errors import ApiError

INVALID = "WORKFLOW_INVALID"


class DefinitionRefused(RequestRefused):
    """The server finds problems in a definition; the message has a line for each, as compilers write them."""

    code = INVALID


def definition_refused(document: "Document", error: "ApiError") -> DefinitionRefused:
    """What to raise for an answer with the code ``INVALID``."""
    problems = list_problems(document, error)
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    lines = [
        f"{document.name}:{each['line']}: {one_line(each['pointer']) or 'the document'}: {one_line(each['problem'])}"
        for each in problems
    ]
    return DefinitionRefused("\n".join([f"{document.name} is no valid workflow; {count}:", *lines]))


def list_problems(document: "Document", error: "ApiError") -> list[dict[str, Any]]:
    """Each problem with its pointer and its line, by the order of lines."""
    return sorted(_problems(document, error), key=lambda each: int(each["line"]))


def _problems(document: "Document", error: "ApiError") -> Iterator[dict[str, Any]]:
    found = error.details.get("problems")
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            pointer = str(each.get("pointer", ""))
            yield {"line": document.line_of(pointer), "pointer": pointer, "problem": str(each.get("problem", ""))}
