"""An archive as an answer, to a client that may go away."""

import asyncio
from typing import Any, cast

import pytest

from sandgate.environments.archives import OpenArchive
from sandgate.http.archive_answer import answer_archive
from sandgate.http.connection import ClientGone
from sandgate.http.exchange import Exchange


class _Slow:
    """An archive of which nothing comes."""

    form = "tar"
    skipped = 0
    closed = False

    async def read(self) -> bytes:
        """Never."""
        await asyncio.get_running_loop().create_future()
        return b""

    def close(self) -> None:
        """Let go."""
        self.closed = True


async def test_nothing_is_packed_for_a_client_that_has_gone() -> None:
    """However long the next part takes."""
    archive = _Slow()
    answer = answer_archive(Exchange([]), cast(OpenArchive, archive), "x")

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    async with asyncio.timeout(30):
        with pytest.raises(ClientGone):
            await answer.serve(receive, send)
    assert archive.closed
