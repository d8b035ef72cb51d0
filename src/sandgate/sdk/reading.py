"""What all parts of the client do with paths and answers."""

from typing import TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from sandgate.sdk.answers import AnswerModel
from sandgate.sdk.errors import UnexpectedAnswer
from sandgate.sdk.transport import Json

AnswerT = TypeVar("AnswerT", bound=AnswerModel)


def quote_part(text: str) -> str:
    """Text as one part of a path, whatever is in it."""
    quoted = quote(text, safe="")
    # Dots alone would be taken for a way through the path.
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def read_answer(kind: type[AnswerT], answer: Json) -> AnswerT:
    """An answer as a record. Raises ``UnexpectedAnswer``."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) for item in error.errors(include_input=False)[:3])
        raise UnexpectedAnswer(f"The server's answer is no {kind.__name__}; look at: {fields or 'all of it'}") from None
