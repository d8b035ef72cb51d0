"""Why a connection comes to nothing; never leaves the proxy but as a reason in its records."""

from enum import StrEnum

from sandgate.core.network import Verdict


class Reason(StrEnum):
    """Why a connection was denied, why it failed, or how it ended. The words are part of the API."""

    CLOSED = "closed"
    HOST_NOT_ALLOWED = "host_not_allowed"
    DENIED_BY_ADMINISTRATOR = "denied_by_administrator"
    ADDRESS_REFUSED = "address_refused"
    BAD_REQUEST = "bad_request"
    HEAD_TOO_LARGE = "head_too_large"
    BYTE_LIMIT = "byte_limit"
    TOO_MANY_NAMES = "too_many_names"
    NAME_UNKNOWN = "name_unknown"
    CONNECTION_FAILED = "connection_failed"
    CONNECTION_LOST = "connection_lost"
    BAD_ANSWER = "bad_answer"
    TIMED_OUT = "timed_out"
    RULES_CHANGED = "rules_changed"


_DENIED = frozenset(
    {
        Reason.HOST_NOT_ALLOWED,
        Reason.DENIED_BY_ADMINISTRATOR,
        Reason.ADDRESS_REFUSED,
        Reason.BAD_REQUEST,
        Reason.HEAD_TOO_LARGE,
        Reason.BYTE_LIMIT,
        Reason.TOO_MANY_NAMES,
    }
)
_STATUSES = {
    Reason.BAD_REQUEST: 400,
    Reason.HEAD_TOO_LARGE: 431,
    Reason.BYTE_LIMIT: 429,
    Reason.TOO_MANY_NAMES: 429,
    Reason.NAME_UNKNOWN: 502,
    Reason.CONNECTION_FAILED: 502,
    Reason.CONNECTION_LOST: 502,
    Reason.BAD_ANSWER: 502,
    Reason.TIMED_OUT: 504,
}


class Problem(Exception):
    """``text`` is for the code that asked; it names no address."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text

    @property
    def verdict(self) -> Verdict:
        """Whether it was forbidden, or went wrong."""
        return Verdict.DENIED if self.reason in _DENIED else Verdict.FAILED

    @property
    def status(self) -> int:
        """What code is answered in HTTP."""
        return _STATUSES.get(self.reason, 403)
