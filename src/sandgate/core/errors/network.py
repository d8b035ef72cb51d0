"""Refusals about the network of environments, and about their ports."""

from sandgate.core.errors.base import Conflict, MechanismFault, NotFound, RequestRefused, TooManyRequests


class NetworkNotOffered(RequestRefused):
    """This server, or this class of environments, offers none; ``details`` has ``isolation`` where it is the class."""

    code = "NETWORK_NOT_OFFERED"


class TooManyNetworkRules(RequestRefused):
    """More hosts are named than the setting allows; ``details`` has ``limit``."""

    code = "TOO_MANY_NETWORK_RULES"


class PortNotServed(Conflict):
    """Nothing listens at the port within the environment; ``details`` has ``port``."""

    code = "PORT_NOT_SERVED"


class PortLinkNotFound(NotFound):
    """It is no link to a port, or none any more."""

    code = "PORT_LINK_NOT_FOUND"


class TooManyPortConnections(TooManyRequests):
    """The environment or the server has as many connections to ports as the setting allows."""

    code = "TOO_MANY_PORT_CONNECTIONS"


class PortAnswerInvalid(MechanismFault):
    """What listens at the port does not answer in HTTP, or broke off before it had; ``details`` has ``port``."""

    code = "PORT_ANSWER_INVALID"


class PortTimeout(MechanismFault):
    """What listens at the port did not answer in time; ``details`` has ``port``."""

    code = "PORT_TIMEOUT"


class NetworkUnavailable(MechanismFault):
    """The proxy of environments does not answer; it is being started again."""

    code = "NETWORK_UNAVAILABLE"
