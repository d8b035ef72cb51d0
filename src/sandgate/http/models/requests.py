"""What clients send. Every model is strict: no unknown field, no number in a text, no ``true`` for a number."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sandgate.core.principal import Role
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.environments.base import NewEnvironment
from sandgate.http.pagination import PageQuery

_MOST_METADATA = 32


def _example(*examples: dict[str, Any]) -> ConfigDict:
    """The settings of every model, with examples for the document."""
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": list(examples)})


EnvironmentName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$", description="Needs not be unique.", examples=["test-env"])
]
Lifetime = Annotated[int, Field(ge=1, le=86_400, description="Lifetime in seconds, counted from now.")]
Metadata = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,63}$")],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=_MOST_METADATA, description="Labels of your own."),
]


class CreateEnvironment(BaseModel):
    """A new environment."""

    model_config = _example({"name": "test-env", "template": "python-3.9", "timeout": 3600})

    name: EnvironmentName
    template: Annotated[
        str, Field(min_length=1, max_length=128, description="A name from `GET /api/v1/sandbox/templates`.")
    ]
    timeout: Lifetime | None = None
    metadata: Metadata | None = None
    isolation: Annotated[
        Literal["standard", "gvisor", "process"] | None, Field(description="How strong the wall has to be.")
    ] = None

    def wanted(self) -> NewEnvironment:
        """For the use case."""
        isolation = None if self.isolation is None else Isolation(self.isolation)
        return NewEnvironment(self.name, self.template, self.timeout, self.metadata, isolation)


class UpdateEnvironment(BaseModel):
    """What is to be changed; what is left out stays as it is."""

    model_config = _example({"name": "renamed", "timeout": 7200})

    name: EnvironmentName | None = None
    metadata: Metadata | None = None
    timeout: Lifetime | None = None

    @model_validator(mode="after")
    def _check_something_changes(self) -> "UpdateEnvironment":
        if self.name is None and self.metadata is None and self.timeout is None:
            raise ValueError("give at least one of name, metadata, timeout")
        return self


class ListEnvironments(PageQuery):
    """Which environments are wanted."""

    status: Annotated[
        list[Literal["creating", "running", "paused", "terminated", "failed", "expired"]] | None,
        Field(max_length=6, description="May be repeated. Default: creating, running and paused."),
    ] = None
    template: Annotated[str | None, Field(max_length=128)] = None
    name: Annotated[str | None, Field(max_length=63)] = None

    def statuses(self) -> frozenset[EnvironmentStatus] | None:
        """For the use case."""
        return None if self.status is None else frozenset(map(EnvironmentStatus, self.status))


class Execute(BaseModel):
    """Code to run."""

    model_config = _example({"code": "print('Hello, World!')", "timeout": 30})

    code: str
    timeout: Annotated[float | None, Field(ge=0.1, le=3600, description="Time limit in seconds; by default 30.")] = None


class Credentials(BaseModel):
    """A name and its password."""

    model_config = _example({"username": "your_username", "password": "your_password"})

    username: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})]


class PasswordForm(Credentials):
    """The password form of OAuth 2, as documentation pages send it; beyond name and password nothing is used."""

    model_config = _example({"grant_type": "password", "username": "your_username", "password": "your_password"})

    grant_type: Literal["password", ""] | None = None
    scope: Annotated[str | None, Field(max_length=1024)] = None
    client_id: Annotated[str | None, Field(max_length=1024)] = None
    client_secret: Annotated[str | None, Field(max_length=1024)] = None


class Revoke(BaseModel):
    """The token to end; without one, the token that the request came with."""

    model_config = _example({})

    token: Annotated[str | None, Field(min_length=1, max_length=8192)] = None


class CreateApiKey(BaseModel):
    """A new API key."""

    model_config = _example({"label": "build server", "expires_in": 2_592_000})

    label: Annotated[str, Field(min_length=1, max_length=100, description="What it is for; printable characters.")]
    expires_in: Annotated[
        int | None, Field(ge=1, le=10 * 365 * 86_400, description="Seconds from now; by default it does not expire.")
    ] = None


class CreateUser(BaseModel):
    """A new user."""

    model_config = _example({"username": "alice", "password": "correct horse battery staple", "role": "user"})

    username: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
    password: Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})]
    role: Literal["viewer", "user", "admin"] = "user"

    def wanted_role(self) -> Role:
        """For the use case."""
        return Role(self.role)


class UpdateUser(BaseModel):
    """What is to be changed; what is left out stays as it is."""

    model_config = _example({"role": "viewer"}, {"disabled": True})

    role: Literal["viewer", "user", "admin"] | None = None
    password: Annotated[str | None, Field(min_length=1, max_length=1024, json_schema_extra={"format": "password"})] = (
        None
    )
    disabled: bool | None = None

    @model_validator(mode="after")
    def _check_something_changes(self) -> "UpdateUser":
        if self.role is None and self.password is None and self.disabled is None:
            raise ValueError("give at least one of role, password, disabled")
        return self

    def wanted_role(self) -> Role | None:
        """For the use case."""
        return None if self.role is None else Role(self.role)
