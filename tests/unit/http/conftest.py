"""The whole HTTP layer in process: real store, authentication and use cases, a stand-in runtime, no sockets."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sandgate.http.streaming import EventStream
from sandgate.store.sql_store import SqlStore
from tests.sqlite_store import database_path, empty_database, store
from tests.unit.http.inner import Inner
from tests.unit.http.site import Site

__all__ = ["database_path", "empty_database", "store"]


@pytest.fixture
async def site(store: SqlStore, tmp_path: Path) -> AsyncIterator[Site]:
    """A started service with a user of each role."""
    made = await Site.open(store, tmp_path)
    yield made
    await made.close()


StreamLifetime = Callable[[float], None]


@pytest.fixture
def stream_lifetime(monkeypatch: pytest.MonkeyPatch) -> StreamLifetime:
    """Decides how long streams last that begin from now on and do not end by themselves."""
    begin = EventStream.__init__

    def decide(seconds: float) -> None:
        def begin_short(stream: EventStream, *given: Any, **named: Any) -> None:
            begin(stream, *given, **named)
            stream._lifetime_s = seconds

        monkeypatch.setattr(EventStream, "__init__", begin_short)

    return decide


@pytest.fixture
async def inner(site: Site) -> AsyncIterator[Inner]:
    """Makes servers."""
    made = Inner(site)
    yield made
    await made.close()
