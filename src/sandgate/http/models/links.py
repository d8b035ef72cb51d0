"""Links to files of environments, as clients ask for and get them."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sandgate.core.file_link import FileGrant, FileLink, LinkMethod
from sandgate.core.ids import EnvironmentId
from sandgate.http.models.base import Model
from sandgate.http.models.files import FilePath
from sandgate.http.models.parts import with_example
from sandgate.http.models.requests import NO_NUL, example

LINKS = "/api/v1/links"


class CreateLink(Model):
    """What a link is to allow, and for how long."""

    model_config = example({"path": "out/report.html", "method": "GET", "expires_in": 3600})

    path: FilePath
    method: LinkMethod = "GET"
    expires_in: Annotated[int | None, Field(ge=1, description="Seconds; an hour, if it is left out.")] = None
    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=255,
            description="What a browser saves the file as; of GET.",
            json_schema_extra={"pattern": NO_NUL},
        ),
    ] = None
    max_bytes: Annotated[int | None, Field(ge=0, le=2**53, description="How long the file may be; of PUT.")] = None
    overwrite: Annotated[bool, Field(description="Whether a file that is there is replaced; of PUT.")] = True

    def grant(self, environment_id: EnvironmentId) -> FileGrant:
        """As it is signed."""
        return FileGrant(self.method, environment_id, self.path, self.name, self.max_bytes, self.overwrite)


class LinkAnswer(Model):
    """A link. It is a credential: whoever has it may do what it allows, and nothing else, until it expires."""

    model_config = with_example(
        {
            "link_path": f"{LINKS}/eyJ1c2VyIjoi…",
            "link_url": f"https://sandgate.example.com{LINKS}/eyJ1c2VyIjoi…",
            "method": "GET",
            "path": "out/report.html",
            "expires_at": "2026-01-01T01:00:00Z",
        }
    )

    link_path: Annotated[str, Field(description="On this server.")]
    link_url: Annotated[
        str | None,
        Field(description="The same with the server before it, as it was asked; null where it was not named."),
    ]
    method: LinkMethod
    path: str
    expires_at: datetime

    @classmethod
    def of(cls, link: FileLink, origin: str | None) -> "LinkAnswer":
        """With the address where it is used; ``origin`` is that of the server, if it is known."""
        path = f"{LINKS}/{link.token}"
        return cls(
            link_path=path,
            link_url=None if origin is None else origin + path,
            method=link.grant.method,
            path=link.grant.path,
            expires_at=link.expires_at,
        )
