"""What an environment may reach of the network, as clients write and read it."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, model_validator

from sandgate.core.network import LONGEST_RULE, Connection, NetworkReport, NetworkRules, Verdict
from sandgate.http.models.base import Model
from sandgate.http.models.parts import strict, with_example

_TIME = "2026-01-01T00:00:00Z"
RULES = {"allow": ["packages.example.com", "*.example.org:443"]}
# How many a request may have, whatever the setting says.
_MOST_RULES = 1000


class NetworkWanted(Model):
    """Hosts that code may reach; nothing else can be reached."""

    model_config = strict(RULES)

    allow: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=LONGEST_RULE)]],
        Field(
            max_length=_MOST_RULES,
            description="`name`, `*.name` (every name below it), an address, or one of these with `:port`; without a "
            "port 80 and 443.",
            examples=[RULES["allow"]],
        ),
    ]

    @model_validator(mode="after")
    def _check_rules(self) -> "NetworkWanted":
        self.rules()
        return self

    def rules(self) -> NetworkRules:
        """For the use case. Raises ``ValueError``."""
        return NetworkRules.parse(self.allow)


class NetworkGiven(Model):
    """Hosts that code may reach."""

    allow: list[str]

    @classmethod
    def of(cls, rules: NetworkRules | None) -> "NetworkGiven | None":
        """From the record; null where nothing may be reached."""
        return None if rules is None else cls(allow=rules.texts())


_CONNECTION: dict[str, Any] = {
    "started_at": _TIME,
    "host": "packages.example.com",
    "port": 443,
    "verdict": "allowed",
    "reason": "closed",
    "sent_bytes": 1042,
    "received_bytes": 88210,
    "duration_ms": 180,
}
_TOTALS = {"allowed": 1, "denied": 0, "failed": 0, "open": 0, "sent_bytes": 1042, "received_bytes": 88210}


class ConnectionAnswer(Model):
    """A connection that code asked for."""

    model_config = with_example(_CONNECTION)

    started_at: datetime
    host: Annotated[str | None, Field(description="Null where nothing readable was asked for.")]
    port: int | None
    verdict: Verdict
    reason: Annotated[
        str, Field(description="Why it was denied, why it failed, or how it ended; empty while it is open.")
    ]
    sent_bytes: Annotated[int, Field(description="By the code.")]
    received_bytes: int
    duration_ms: int

    @classmethod
    def of(cls, connection: Connection) -> "ConnectionAnswer":
        """From the record."""
        return cls(**{name: getattr(connection, name) for name in cls.model_fields})


class NetworkTotalsAnswer(Model):
    """All connections together; of these `open` are open."""

    model_config = with_example(_TOTALS)

    allowed: int
    denied: int
    failed: int
    open: int
    sent_bytes: int
    received_bytes: int


class NetworkAnswer(Model):
    """What an environment may reach, and has reached."""

    model_config = with_example(
        {
            "environment_id": "env-06evrhxq8g000wmabyzsqnd3wf",
            "network": RULES,
            "totals": _TOTALS,
            "connections": [_CONNECTION],
        }
    )

    environment_id: str
    network: NetworkGiven | None
    totals: Annotated[NetworkTotalsAnswer, Field(description="Since the server was started, or the environment made.")]
    connections: Annotated[list[ConnectionAnswer], Field(description="The newest, newest first.")]

    @classmethod
    def of(cls, environment_id: str, report: NetworkReport) -> "NetworkAnswer":
        """From the record."""
        totals = {name: getattr(report.totals, name) for name in NetworkTotalsAnswer.model_fields}
        return cls(
            environment_id=environment_id,
            network=NetworkGiven.of(report.rules),
            totals=NetworkTotalsAnswer(**totals),
            connections=[ConnectionAnswer.of(connection) for connection in report.connections],
        )
