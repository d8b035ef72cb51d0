"""Refusals and faults about what workflows keep: secrets and artifacts."""

from sandgate.core.errors.base import Conflict, MechanismFault, NotFound, RequestRefused


class SecretNotFound(NotFound):
    """The caller has no secret of this name."""

    code = "SECRET_NOT_FOUND"


class TooManySecrets(Conflict):
    """The user has as many secrets as the setting allows; ``details`` has ``limit``."""

    code = "TOO_MANY_SECRETS"


class SecretUnreadable(MechanismFault):
    """A secret was sealed with a key that this server does not have, or was changed where it is kept."""

    code = "SECRET_UNREADABLE"


class ArtifactNotFound(NotFound):
    """No run of the caller has this artifact, or its time is over."""

    code = "ARTIFACT_NOT_FOUND"


class RangeNotSatisfiable(RequestRefused):
    """The wanted part of a file begins after its end; ``details`` has ``size_bytes``."""

    code = "RANGE_NOT_SATISFIABLE"
