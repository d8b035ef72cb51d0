"""What a client can meet instead of an answer."""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of everything that a client raises; ``message`` is a sentence for a person."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ApiError(ClientError):
    """The server has refused a request or could not do it.

    ``code`` is stable and meant for programs (docs/errors.md lists them), ``message`` says what was tried and what to
    do, ``details`` is a JSON object. ``retry_after_s`` is when asking again may help, where the server said so.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details: dict[str, Any] = dict(details or {})
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class ServerUnreachable(ClientError):
    """There was no answer: no connection, a broken one, or nothing in time.

    ``sent`` says whether the request may have reached the server all the same, ``timed_out`` whether that was for
    want of time.
    """

    def __init__(self, message: str, *, sent: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class UnexpectedAnswer(ClientError):
    """The answer has not the form of this API: the address leads to something else, or to another version."""


class InvalidAddress(ClientError):
    """The address of a server or a credential cannot be used as it is written."""
