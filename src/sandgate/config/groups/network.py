"""What environments may reach of the network, and through how many connections."""

from sandgate.config.groups.row import Group, setting
from sandgate.core.network import NetworkLimits, NetworkPolicy


class NetworkSettings(Group):
    """What environments may reach of the network, and through how many connections."""

    network_enabled: bool = setting(
        True, "Let environments reach the hosts that they are made with. False: none reaches anything."
    )
    network_only: str = setting(
        "",
        "Hosts that environments may reach at all, separated by commas: `name`, `*.name`, each with `:port` or "
        "without. Empty: every host of the public network.",
    )
    network_deny: str = setting(
        "*:25",
        "Hosts that no environment reaches, separated by commas: `name`, `*.name`, `*`, each with `:port` or without, "
        "or networks as `192.0.2.0/24`.",
    )
    network_allow_special: str = setting(
        "",
        "Networks and host names, separated by commas, that environments may reach although their addresses are "
        "private, of this machine, or special in another way; an environment still has to name them.",
    )
    max_network_rules: int = setting(64, "Hosts that an environment may name.", ge=1, le=100)
    max_network_connections: int = setting(
        1024, "Connections of all environments at once, on this server.", ge=1, le=16_384
    )
    max_network_connections_per_user: int = setting(
        256, "Connections of one user's environments at once, on this server.", ge=1, le=16_384
    )
    max_network_connections_per_environment: int = setting(
        64, "Connections of one environment at once.", ge=1, le=16_384
    )
    network_bytes: int = setting(
        10 * 1024**3,
        "What may pass between an environment and the network, both ways together. 0: no bound.",
        unit="bytes",
        ge=0,
    )
    network_connect_timeout_s: float = setting(
        10.0, "How long a host may take to be found and to answer.", unit="s", ge=0.1, le=120
    )
    network_idle_timeout_s: float = setting(
        120.0, "How long a connection may be open without a byte.", unit="s", ge=0.1, le=86_400
    )
    network_connection_timeout_s: float = setting(
        3600.0, "How long a connection may be open.", unit="s", ge=1, le=86_400
    )
    network_log_per_minute: int = setting(
        60,
        "Connections of one environment that have a line each in the log within a minute; the rest are counted. "
        "0: no lines.",
        ge=0,
        le=100_000,
    )
    max_port_connections: int = setting(
        512, "Connections to ports of all environments at once, on this server.", ge=1, le=16_384
    )
    max_port_connections_per_user: int = setting(
        128, "Connections to ports of all environments of one owner at once, on this server.", ge=1, le=16_384
    )
    max_port_connections_per_environment: int = setting(
        64, "Connections to ports of one environment at once.", ge=1, le=16_384
    )
    port_answer_timeout_s: float = setting(
        300.0,
        "How long a server in an environment may take to answer a request, and then be silent.",
        unit="s",
        ge=0.1,
        le=86_400,
    )
    port_connection_timeout_s: float = setting(
        3600.0, "How long a request to a port of an environment, with its answer, may take.", unit="s", ge=1, le=86_400
    )
    max_port_link_lifetime_s: int = setting(
        7 * 86_400, "The longest that a link to a port may be good for.", unit="s", ge=1, le=366 * 86_400
    )
    ports_domain: str = setting(
        "",
        "A domain whose names below it, as `8000-env-….DOMAIN`, lead to ports of environments; all of them have to "
        "lead to this server. It should be used for nothing else. Empty: there are no such names.",
        pattern=r"^[a-z0-9.-]*$",
        max_length=150,
    )

    def network_policy(self) -> NetworkPolicy:
        """For the proxy."""
        limits = NetworkLimits(
            connections=self.max_network_connections,
            connections_of_owner=self.max_network_connections_per_user,
            connections_of_environment=self.max_network_connections_per_environment,
            total_bytes=self.network_bytes,
            connect_timeout_s=self.network_connect_timeout_s,
            idle_timeout_s=self.network_idle_timeout_s,
            lifetime_s=self.network_connection_timeout_s,
            logged_per_minute=self.network_log_per_minute,
        )
        return NetworkPolicy(self.network_allow_special, self.network_only, self.network_deny, limits)
