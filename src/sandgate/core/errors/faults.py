"""Mechanisms that broke: nobody asked for anything wrong."""

from sandgate.core.errors.base import MechanismFault


class LauncherUnavailable(MechanismFault):
    """The launcher does not answer; it is being started again."""

    code = "LAUNCHER_UNAVAILABLE"


class SandboxFailed(MechanismFault):
    """A sandbox could not be made, or died; ``details`` may have ``reason``."""

    code = "SANDBOX_FAILED"


class StoreUnavailable(MechanismFault):
    """The database does not answer or refuses to write."""

    code = "STORE_UNAVAILABLE"


class ServiceDraining(MechanismFault):
    """The service is stopping and takes no new work."""

    code = "SERVICE_DRAINING"


class TooManyConnections(MechanismFault):
    """The server holds as many connections, in all or from one address, as the settings allow."""

    code = "TOO_MANY_CONNECTIONS"


class NotReady(MechanismFault):
    """The service cannot do its work now; ``details`` has ``missing``, a reason for each part that does not answer."""

    code = "NOT_READY"
