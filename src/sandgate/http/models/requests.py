"""What clients send. Every model is strict: no unknown field, no number in a text, no ``true`` for a number."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, JsonValue, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from sandgate.auth.names import LONGEST_LABEL
from sandgate.auth.passwords import LONGEST_PASSWORD, SHORTEST_PASSWORD
from sandgate.core.environment import EnvironmentChange, NetworkChange
from sandgate.core.ids import SnapshotId
from sandgate.core.limits import MIB, AskedLimits
from sandgate.core.principal import Role
from sandgate.core.states import EnvironmentStatus, Isolation, OnTimeout
from sandgate.core.variables import Variables
from sandgate.environments.base import NewEnvironment
from sandgate.http.bodies import refuse_field
from sandgate.http.models.base import Model
from sandgate.http.models.life import IdleTimeout, OnTimeoutWanted
from sandgate.http.models.network import NetworkWanted
from sandgate.http.models.parts import Whole, strict
from sandgate.http.models.volumes import MOST_VOLUMES, VolumeWanted
from sandgate.http.pagination import PageQuery

_MOST_METADATA = 32


example = strict


class Change(Model):
    """A PATCH: what is left out stays as it is. At least one field has to be there, and none may be null but those of
    ``CLEARED``, which null takes away.
    """

    CLEARED: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _check_something_changes(cls, value: Any) -> Any:
        if isinstance(value, dict):
            nulls = [name for name, field in value.items() if field is None and name not in cls.CLEARED]
            if nulls or not value:
                raise ValueError(f"{nulls[0][:80]} may be left out, but not null" if nulls else "changes nothing")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        for name, part in handler.resolve_ref_schema(schema)["properties"].items():
            part.pop("default", None)
            if name in cls.CLEARED:
                continue
            # None stands for what was left out; on the wire there is no null.
            (kind,) = [choice for choice in part.pop("anyOf") if choice != {"type": "null"}]
            part.update(kind)
        return schema


def _change_example(*examples: dict[str, Any]) -> ConfigDict:
    """The settings of a change."""
    config = example(*examples)
    config["json_schema_extra"] = {"examples": list(examples), "minProperties": 1}
    return config


def _create_example(*examples: dict[str, Any]) -> ConfigDict:
    """The settings of what needs a template or a snapshot."""
    config = example(*examples)
    needed: list[JsonValue] = [{"required": ["template"]}, {"required": ["snapshot_id"]}]
    config["json_schema_extra"] = {"examples": list(examples), "anyOf": needed}
    return config


EnvironmentName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$", description="Needs not be unique.", examples=["test-env"])
]
Lifetime = Annotated[int, Field(ge=1, le=86_400, description="Lifetime in seconds, counted from now."), Whole]
NewPassword = Annotated[
    str, Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD, json_schema_extra={"format": "password"})
]
Metadata = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,63}$")],
        Annotated[str, Field(max_length=512)],
    ],
    Field(
        max_length=_MOST_METADATA,
        description="Labels of your own.",
        json_schema_extra={"additionalProperties": False},
    ),
]


NO_NUL = "^[^\\u0000]*$"
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
VariableValue = Annotated[str, Field(max_length=32_768, json_schema_extra={"pattern": NO_NUL})]


GivenVariables = Annotated[
    dict[VariableName, VariableValue],
    Field(max_length=256, description="Environment variables.", json_schema_extra={"additionalProperties": False}),
]
WorkFolder = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        description="The folder to begin in, as seen from the work folder, which is the default.",
        json_schema_extra={"pattern": NO_NUL},
    ),
]


SnapshotIdText = Annotated[str, Field(pattern="^snap-[0-9a-z]{12,64}$", examples=["snap-06evrhxq8g000wmabyzsqnd3wf"])]


class LimitsWanted(Model):
    """Limits instead of the template's; what is left out stays as the template has it."""

    model_config = example({"memory_mb": 256, "cpu": 0.5})

    memory_mb: Annotated[int, Field(ge=32, le=1 << 20), Whole] | None = None
    cpu: Annotated[float, Field(ge=0.05, le=1024, description="In cores.")] | None = None
    processes: Annotated[int, Field(ge=8, le=32_768), Whole] | None = None
    disk_mb: Annotated[int, Field(ge=1, le=1 << 20), Whole] | None = None

    def asked(self) -> AskedLimits:
        """For the use case."""
        return AskedLimits(
            memory_bytes=None if self.memory_mb is None else self.memory_mb * MIB,
            cpu_millis=None if self.cpu is None else round(self.cpu * 1000),
            processes=self.processes,
            disk_bytes=None if self.disk_mb is None else self.disk_mb * MIB,
        )


class CreateEnvironment(Model):
    """A new environment, of a template or with the files of a snapshot."""

    model_config = _create_example({"name": "test-env", "template": "python-3.9", "timeout": 3600})

    name: EnvironmentName
    template: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            description="A name from `GET /api/v1/sandbox/templates`. With a snapshot it is that one's.",
        ),
    ] = None
    snapshot_id: Annotated[SnapshotIdText | None, Field(description="It begins with the files of this.")] = None
    timeout: Lifetime | None = None
    metadata: Metadata | None = None
    isolation: Annotated[
        Literal["standard", "gvisor", "process"] | None, Field(description="How strong the wall has to be.")
    ] = None
    limits: Annotated[LimitsWanted | None, Field(description="Within the ceilings of the server and of the user.")] = (
        None
    )

    network: Annotated[NetworkWanted | None, Field(description="What code may reach; without it nothing.")] = None
    env: Annotated[
        dict[VariableName, VariableValue] | None,
        Field(
            max_length=64,
            description="Environment variables of all code in it; what comes with code is stronger.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = None
    secrets: Annotated[
        list[Annotated[str, Field(pattern="^[A-Z_][A-Z0-9_]{0,63}$")]] | None,
        Field(
            max_length=32,
            description="Names of your secrets, which your code in it finds as environment variables.",
            json_schema_extra={"examples": [["API_TOKEN"]]},
        ),
    ] = None
    on_timeout: OnTimeoutWanted = "delete"
    idle_timeout: Annotated[IdleTimeout, Whole] | None = None
    volumes: Annotated[
        list[VolumeWanted] | None, Field(max_length=MOST_VOLUMES, description="Your volumes that it has.")
    ] = None

    def wanted(self) -> NewEnvironment:
        """For the use case."""
        network = None if self.network is None else self.network.rules()
        isolation = None if self.isolation is None else Isolation(self.isolation)
        limits = None if self.limits is None else self.limits.asked()
        variables = Variables(self.env or {}, tuple(dict.fromkeys(self.secrets or ())))
        asked = self.name, self.template, self.timeout, self.metadata, isolation, limits, network, variables
        snapshot_id = None if self.snapshot_id is None else SnapshotId(self.snapshot_id)
        volumes = tuple(volume.wish() for volume in self.volumes or ())
        return NewEnvironment(*asked, OnTimeout(self.on_timeout), self.idle_timeout, snapshot_id, volumes)

    @model_validator(mode="after")
    def _check_begins_with_something(self) -> "CreateEnvironment":
        if self.template is None and self.snapshot_id is None:
            raise ValueError("needs a template or a snapshot_id")
        return self


class UpdateEnvironment(Change):
    """What is to be changed of an environment."""

    model_config = _change_example({"name": "renamed", "timeout": 7200}, {"on_timeout": "pause", "idle_timeout": 300})
    CLEARED = frozenset({"network"})

    name: EnvironmentName | None = None
    metadata: Metadata | None = None
    timeout: Lifetime | None = None
    network: Annotated[NetworkWanted | None, Field(description="What code may reach from now on; null: nothing.")] = (
        None
    )

    on_timeout: OnTimeoutWanted | None = None
    idle_timeout: Annotated[IdleTimeout, Whole] | None = None

    def change(self) -> EnvironmentChange:
        """For the use case."""
        network = None
        if "network" in self.model_fields_set:
            network = NetworkChange(None if self.network is None else self.network.rules())
        on_timeout = None if self.on_timeout is None else OnTimeout(self.on_timeout)
        return EnvironmentChange(self.name, self.metadata, self.timeout, network, on_timeout, self.idle_timeout)


class ListEnvironments(PageQuery):
    """Which environments are wanted."""

    status: Annotated[
        list[Literal["creating", "running", "paused", "terminated", "failed", "expired"]] | None,
        Field(max_length=6, description="May be repeated. Default: creating, running and paused."),
    ] = None
    template: Annotated[str | None, Field(max_length=128)] = None
    name: Annotated[str | None, Field(max_length=63)] = None
    metadata: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,63}=[^\x00]{0,512}$")]] | None,
        Field(
            max_length=_MOST_METADATA,
            description="Labels that they have, as `metadata=team=blue` or `metadata.team=blue`. May be repeated.",
            json_schema_extra={"examples": [["team=blue"]]},
        ),
    ] = None

    PAIRS: ClassVar[frozenset[str]] = frozenset({"metadata"})

    def labels(self) -> dict[str, str]:
        """For the use case. Raises ``InvalidRequest`` for a label that is to have two values."""
        found: dict[str, str] = {}
        for name, _, value in (pair.partition("=") for pair in self.metadata or ()):
            if found.setdefault(name, value) != value:
                refuse_field(f"metadata.{name}", "is to have two values, which none has")
        return found

    def statuses(self) -> frozenset[EnvironmentStatus] | None:
        """For the use case."""
        return None if self.status is None else frozenset(map(EnvironmentStatus, self.status))


class Credentials(Model):
    """A name and its password."""

    model_config = example({"username": "your_username", "password": "your_password"})

    username: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})]


class PasswordForm(Credentials):
    """The password form of OAuth 2, as documentation pages send it; beyond name and password nothing is used."""

    model_config = example({"grant_type": "password", "username": "your_username", "password": "your_password"})

    grant_type: Literal["password", ""] | None = None
    scope: Annotated[str | None, Field(max_length=1024)] = None
    client_id: Annotated[str | None, Field(max_length=1024)] = None
    client_secret: Annotated[str | None, Field(max_length=1024)] = None


class Revoke(Model):
    """The token to end; without one, the token that the request came with."""

    model_config = example({})

    token: Annotated[str | None, Field(min_length=1, max_length=8192)] = None


class CreateApiKey(Model):
    """A new API key."""

    model_config = example({"label": "build server", "expires_in": 2_592_000})

    label: Annotated[
        str, Field(min_length=1, max_length=LONGEST_LABEL, description="What it is for; printable characters.")
    ]
    expires_in: Annotated[
        int | None,
        Field(ge=1, le=10 * 365 * 86_400, description="Seconds from now; by default it does not expire."),
        Whole,
    ] = None


class CreateUser(Model):
    """A new user."""

    model_config = example({"username": "alice", "password": "correct horse battery staple", "role": "user"})

    username: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
    password: NewPassword
    role: Literal["viewer", "user", "admin"] = "user"

    def wanted_role(self) -> Role:
        """For the use case."""
        return Role(self.role)


class UpdateUser(Change):
    """What is to be changed of a user."""

    model_config = _change_example({"role": "viewer"}, {"disabled": True})

    role: Literal["viewer", "user", "admin"] | None = None
    password: NewPassword | None = None
    disabled: bool | None = None

    def wanted_role(self) -> Role | None:
        """For the use case."""
        return None if self.role is None else Role(self.role)
