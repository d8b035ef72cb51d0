"""What clients send. Every model is strict: no unknown field, no number in a text, no ``true`` for a number."""

from base64 import b64decode
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from sandgate.auth.names import LONGEST_LABEL
from sandgate.auth.passwords import LONGEST_PASSWORD, SHORTEST_PASSWORD
from sandgate.core.execution import InputFile, Surroundings
from sandgate.core.limits import MIB, AskedLimits
from sandgate.core.principal import Role
from sandgate.core.states import EnvironmentStatus, Isolation
from sandgate.environments.base import NewEnvironment
from sandgate.http.pagination import PageQuery

_MOST_METADATA = 32


def example(*examples: dict[str, Any]) -> ConfigDict:
    """The settings of every model of a body, with examples for the document."""
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": list(examples)})


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 60.0 is an integer there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Comes last, because what comes later is checked first.
Whole = BeforeValidator(_whole)


class Change(BaseModel):
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


class LimitsWanted(BaseModel):
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


class CreateEnvironment(BaseModel):
    """A new environment."""

    model_config = example({"name": "test-env", "template": "python-3.9", "timeout": 3600})

    name: EnvironmentName
    template: Annotated[
        str, Field(min_length=1, max_length=128, description="A name from `GET /api/v1/sandbox/templates`.")
    ]
    timeout: Lifetime | None = None
    metadata: Metadata | None = None
    isolation: Annotated[
        Literal["standard", "gvisor", "process"] | None, Field(description="How strong the wall has to be.")
    ] = None
    limits: Annotated[LimitsWanted | None, Field(description="Within the ceilings of the server and of the user.")] = (
        None
    )

    def wanted(self) -> NewEnvironment:
        """For the use case."""
        isolation = None if self.isolation is None else Isolation(self.isolation)
        limits = None if self.limits is None else self.limits.asked()
        return NewEnvironment(self.name, self.template, self.timeout, self.metadata, isolation, limits)


class UpdateEnvironment(Change):
    """What is to be changed of an environment."""

    model_config = _change_example({"name": "renamed", "timeout": 7200})

    name: EnvironmentName | None = None
    metadata: Metadata | None = None
    timeout: Lifetime | None = None


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


NO_NUL = "^[^\\u0000]*$"
_Text = Annotated[str, Field(json_schema_extra={"pattern": NO_NUL})]


class ExecutionFile(BaseModel):
    """A file that is written before the code runs; either `content` or `content_base64` has to be there."""

    model_config = example({"path": "data/input.csv", "content": "a,b\n1,2\n"})

    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^(?:[^\x00]*[^/\x00])$",
            description="Where it goes, in the work folder unless it begins with a slash; folders are made.",
        ),
    ]
    content: Annotated[_Text | None, Field(description="A text; written in UTF-8.")] = None
    content_base64: Annotated[str | None, Field(description="Any bytes.")] = None

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if (self.content is None) == (self.content_base64 is None):
            raise ValueError("has to have either content or content_base64")
        self.content_bytes()
        return self

    def content_bytes(self) -> bytes:
        """What is to be written."""
        if self.content_base64 is None:
            return (self.content or "").encode()
        try:
            return b64decode(self.content_base64, validate=True)
        except ValueError:
            raise ValueError("content_base64 is not base64") from None


class Execute(BaseModel):
    """Code to run, and what it finds when it begins."""

    model_config = example(
        {"code": "print('Hello, World!')", "timeout": 30},
        {
            "code": "import os, sys\nprint(sys.argv[1:], os.environ['MODE'], input(), open('a.txt').read())",
            "args": ["--fast"],
            "env": {"MODE": "test"},
            "stdin": "a line\n",
            "files": [{"path": "data/a.txt", "content": "from a file"}],
            "cwd": "data",
        },
    )

    # Checked when the body is read; here it would cost a search through a megabyte.
    code: Annotated[str, Field(json_schema_extra={"pattern": "^[^\\u0000]*$"})]
    timeout: Annotated[float | None, Field(ge=0.1, le=3600, description="Time limit in seconds; by default 30.")] = None
    stdin: Annotated[_Text | None, Field(description="What the code reads from standard input.")] = None
    env: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")],
            Annotated[str, Field(max_length=32_768, json_schema_extra={"pattern": NO_NUL})],
        ]
        | None,
        Field(max_length=256, description="Environment variables.", json_schema_extra={"additionalProperties": False}),
    ] = None
    cwd: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            description="The folder that the code begins in, as seen from the work folder, which is the default.",
            json_schema_extra={"pattern": NO_NUL},
        ),
    ] = None
    args: Annotated[list[_Text] | None, Field(max_length=256, description="`sys.argv` from 1 on.")] = None
    files: Annotated[list[ExecutionFile] | None, Field(description="Written before the code runs.")] = None
    stream: Annotated[
        bool, Field(description="Answer with server-sent events as they happen, as with `Accept: text/event-stream`.")
    ] = False
    detach: Annotated[
        bool,
        Field(
            description="Go on when the client goes away. Without `stream` the answer comes at once, and the execution "
            "is `running`."
        ),
    ] = False

    def around(self) -> Surroundings | None:
        """For the use case."""
        if not self.model_fields_set & _AROUND:
            return None
        files = [InputFile(file.path, file.content_bytes()) for file in self.files or ()]
        return Surroundings(self.stdin or "", self.env or {}, self.cwd, self.args or (), files)


_AROUND = frozenset({"stdin", "env", "cwd", "args", "files"})


class Credentials(BaseModel):
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


class Revoke(BaseModel):
    """The token to end; without one, the token that the request came with."""

    model_config = example({})

    token: Annotated[str | None, Field(min_length=1, max_length=8192)] = None


class CreateApiKey(BaseModel):
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


class CreateUser(BaseModel):
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
