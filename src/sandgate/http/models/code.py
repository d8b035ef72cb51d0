"""Code that clients send to be run, and what comes with it."""

from base64 import b64decode
from typing import Annotated, Self

from pydantic import Field, model_validator

from sandgate.core.execution import InputFile, Surroundings
from sandgate.http.models.base import Model
from sandgate.http.models.requests import NO_NUL, GivenVariables, WorkFolder, example

_Text = Annotated[str, Field(json_schema_extra={"pattern": NO_NUL})]


class ExecutionFile(Model):
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


class Execute(Model):
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
        {"code": 'echo "Hello, $1!"', "language": "bash", "args": ["World"]},
        {"code": "total = sum(range(10))\ntotal", "session_id": "session-06evrhy3k000t5v8c0p9x2m4qj"},
    )

    # Checked when the body is read; here it would cost a search through a megabyte.
    code: Annotated[str, Field(json_schema_extra={"pattern": "^[^\\u0000]*$"})]
    language: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="One of the template's `languages`; by default `python`.",
            json_schema_extra={"pattern": NO_NUL},
        ),
    ] = None
    session_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="The session that runs it, where it finds what was run there before. Not with `language`.",
            json_schema_extra={"pattern": NO_NUL},
        ),
    ] = None
    timeout: Annotated[float | None, Field(ge=0.1, le=3600, description="Time limit in seconds; by default 30.")] = None
    stdin: Annotated[_Text | None, Field(description="What the code reads from standard input.")] = None
    env: GivenVariables | None = None
    cwd: WorkFolder | None = None
    args: Annotated[list[_Text] | None, Field(max_length=256, description="Arguments: `sys.argv` from 1 on.")] = None
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

    @model_validator(mode="after")
    def _check_language(self) -> Self:
        if self.session_id is not None and self.language is not None:
            raise ValueError("language cannot come with session_id: a session has its own")
        return self

    def around(self) -> Surroundings | None:
        """For the use case."""
        if not self.model_fields_set & _AROUND:
            return None
        files = [InputFile(file.path, file.content_bytes()) for file in self.files or ()]
        return Surroundings(self.stdin or "", self.env or {}, self.cwd, self.args or (), files)


_AROUND = frozenset({"stdin", "env", "cwd", "args", "files"})
