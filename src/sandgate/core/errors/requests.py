"""What is wrong with a request, whatever it is about."""

from collections.abc import Sequence

from sandgate.core.errors.base import Conflict, RequestRefused, TooManyRequests


class InvalidRequest(RequestRefused):
    """Fields of a request are wrong; ``details`` is ``{"fields": [{"field", "problem"}]}``."""

    code = "VALIDATION_FAILED"

    @classmethod
    def for_fields(cls, problems: Sequence[tuple[str, str]]) -> "InvalidRequest":
        """Refuse with one entry for each (field, problem) pair."""
        named = "; ".join(f"{field}: {problem}" for field, problem in problems)
        fields = [{"field": field, "problem": problem} for field, problem in problems]
        return cls(f"The request is not valid: {named}", {"fields": fields})


class MalformedRequest(RequestRefused):
    """What arrived cannot be read as one request."""

    code = "MALFORMED_REQUEST"


class MethodNotAllowed(RequestRefused):
    """The path exists, but not with this method; ``details`` has ``allowed``."""

    code = "METHOD_NOT_ALLOWED"


class PayloadTooLarge(RequestRefused):
    """The body is larger than the setting allows; ``details`` has ``limit_bytes``."""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(RequestRefused):
    """The body is of a type that this path does not read; ``details`` has ``supported``."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RequestTimeout(RequestRefused):
    """The client took too long to send its request; ``details`` has ``limit_s``."""

    code = "REQUEST_TIMEOUT"


class HeadTooLarge(RequestRefused):
    """The head of the request is larger than the server reads; ``details`` has ``limit_bytes``."""

    code = "HEAD_TOO_LARGE"


class UpgradeRequired(RequestRefused):
    """The address speaks another protocol than HTTP, which the request does not ask for."""

    code = "UPGRADE_REQUIRED"


class ForeignOrigin(RequestRefused):
    """The page that opens a web socket is neither the server's own nor one of those that may."""

    code = "FOREIGN_ORIGIN"


class IdempotencyKeyReused(Conflict):
    """The key was used before with another request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class IdempotencyInProgress(Conflict):
    """The first request with this key has not been answered yet."""

    code = "IDEMPOTENCY_IN_PROGRESS"


class TooManyRequestsAtOnce(TooManyRequests):
    """As many requests of the caller are being served as the setting allows; ``details`` has ``limit``, or
    ``limit_bytes`` when it is definitions that are being checked.
    """

    code = "TOO_MANY_REQUESTS_AT_ONCE"


class TooManyUnreadAnswers(TooManyRequests):
    """The caller has asked for more than it reads; ``details`` has ``limit_bytes`` and ``scope``: user or server."""

    code = "TOO_MANY_UNREAD_ANSWERS"


class TooManyStreams(TooManyRequests):
    """As many event streams are open, of the caller or of all, as the settings allow."""

    code = "TOO_MANY_STREAMS"
