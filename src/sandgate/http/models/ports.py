"""Links to ports of environments, as clients ask for and get them."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sandgate.core.port_link import PortLink
from sandgate.http.models.base import Model
from sandgate.http.models.parts import Whole, strict, with_example

PORT_LINKS = "/api/v1/port-links"


class CreatePortLink(Model):
    """For how long a link is to be good."""

    model_config = strict({"expires_in": 3600})

    expires_in: Annotated[int | None, Field(ge=1, description="Seconds; an hour, if it is left out."), Whole] = None


class PortLinkAnswer(Model):
    """A link. It is a credential: whoever has it may talk to the port until it expires."""

    model_config = with_example(
        {
            "link_path": f"{PORT_LINKS}/eyJ1c2VyIjoi…/",
            "link_url": None,
            "port": 8000,
            "expires_at": "2026-01-01T01:00:00Z",
        }
    )

    link_path: Annotated[str, Field(description="On this server. What is behind it is passed on to the port.")]
    link_url: Annotated[
        str | None,
        Field(
            description="For a browser, under a name of its own, at the port that the server was asked at; null where "
            "the server has no such names."
        ),
    ]
    port: int
    expires_at: datetime

    @classmethod
    def of(cls, link: PortLink, origin: str | None) -> "PortLinkAnswer":
        """With the addresses where it is used; ``origin`` is that of the port, if it has one."""
        return cls(
            link_path=f"{PORT_LINKS}/{link.token}/",
            link_url=None if origin is None else f"{origin}/?sandgate-link={link.token}",
            port=link.grant.port,
            expires_at=link.expires_at,
        )
