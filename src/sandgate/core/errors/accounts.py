"""Refusals about who asks: users, credentials and what they may do."""

from sandgate.core.errors.base import Conflict, NotFound, RequestRefused, TooManyRequests


class NotAuthenticated(RequestRefused):
    """No credential, or one that is malformed, expired, revoked or of a disabled user."""

    code = "NOT_AUTHENTICATED"


class InvalidCredentials(RequestRefused):
    """Name and password do not belong together; never says which of the two was wrong."""

    code = "INVALID_CREDENTIALS"


class Forbidden(RequestRefused):
    """The caller is known, but the role does not allow this."""

    code = "FORBIDDEN"


class UserNotFound(NotFound):
    """No user has this id."""

    code = "USER_NOT_FOUND"


class ApiKeyNotFound(NotFound):
    """No API key of the caller has this id."""

    code = "API_KEY_NOT_FOUND"


class UserNameTaken(Conflict):
    """Another user has this name."""

    code = "USER_NAME_TAKEN"


class LastAdmin(Conflict):
    """The change would leave the server without an enabled admin."""

    code = "LAST_ADMIN"


class TooManyLoginAttempts(TooManyRequests):
    """Failed logins of this name or address are slowed down."""

    code = "TOO_MANY_LOGIN_ATTEMPTS"
