"""The shapes of failure that everything else is one of."""

from collections.abc import Mapping
from typing import Any, ClassVar


class SandgateError(Exception):
    """The service failed in a way that it has no word for; its log has the cause under the request id.

    Base of everything that is raised on purpose. ``message`` says what was tried, on what, what was found and what to
    do; ``details`` is a JSON object.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})


class RequestRefused(SandgateError):
    """The caller asked for something that is refused; asking again in the same way gets the same answer."""

    code = "REQUEST_REFUSED"


class NotFound(RequestRefused):
    """There is no such thing, or it belongs to somebody else; the two look alike on purpose."""

    code = "NOT_FOUND"


class Conflict(RequestRefused):
    """The state of the thing does not allow this now."""

    code = "CONFLICT"


class TooManyRequests(RequestRefused):
    """A rate or a count is over its limit; ``Retry-After`` says when asking again may help."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, details)
        self.retry_after_s = retry_after_s


class MechanismFault(SandgateError):
    """A mechanism below broke: the request was right, the service could not do it."""

    code = "MECHANISM_FAULT"


class ConfigurationError(SandgateError):
    """A setting is unknown, out of range, or does not fit this machine; the server does not start."""

    code = "CONFIGURATION_ERROR"
