"""Probes and figures."""

import asyncio

import pytest

from sandgate.core.clock import ManualClock
from sandgate.core.errors import NotReady, StoreUnavailable
from sandgate.http import readiness
from sandgate.http.readiness import Readiness
from tests.unit.http.site import ENVIRONMENTS, Site


async def test_the_process_is_alive(site: Site) -> None:
    """Without a token and without asking anything below."""
    assert (await site.get("/healthz", None)).json() == {"status": "ok"}


async def test_readiness_names_what_is_missing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 while a part does not answer, 200 again when it does."""
    monkeypatch.setattr(readiness, "_PATIENCE_S", 60.0)
    site.clock.advance(10_000)
    assert (await site.get("/readyz", None)).json() == {"status": "ready"}
    site.runtime.unavailable = True
    site.clock.advance(2)
    answer = await site.get("/readyz", None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "NOT_READY")
    assert answer.json()["error"]["details"] == {"missing": {"launcher": "The launcher does not answer"}}
    site.runtime.unavailable = False
    site.clock.advance(2)
    assert (await site.get("/readyz", None)).status_code == 200


async def test_one_look_serves_all_who_ask() -> None:
    """However many ask, the database is asked once a second."""
    clock, asked, gate = ManualClock(), list[int](), asyncio.Event()

    async def check() -> None:
        asked.append(1)
        await gate.wait()

    ready = Readiness({"database": check}, clock)
    crowd = [asyncio.ensure_future(ready.check()) for _ in range(10)]
    crowd.pop().cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*crowd[:-1])
    await ready.check()
    assert len(asked) == 1
    clock.advance(1)
    await ready.check()
    assert len(asked) == 2


async def test_a_part_that_hangs_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe answers in time, and all that is missing is named."""
    monkeypatch.setattr(readiness, "_PATIENCE_S", 0.001)

    async def fail() -> None:
        raise StoreUnavailable("gone")

    ready = Readiness({"slow": asyncio.Event().wait, "broken": fail}, ManualClock())  # type: ignore[dict-item]
    with pytest.raises(NotReady) as caught:
        await ready.check()
    assert set(caught.value.details["missing"]) == {"slow", "broken"}


async def _figures(site: Site) -> dict[str, float]:
    lines = (await site.get("/metrics", "admin")).text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


async def test_figures_are_for_admins(site: Site) -> None:
    """In the text format, by operation and status."""
    before = await _figures(site)
    await site.create_environment()
    await site.get(ENVIRONMENTS, None)
    after = await _figures(site)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('sandgate_http_requests_total{operation="create_environment",status="201"}') == 1
    assert grown('sandgate_http_requests_total{operation="list_environments",status="401"}') == 1
    assert grown('sandgate_http_request_seconds_count{operation="create_environment"}') == 1
    assert after["sandgate_environments_live"] == 1
    assert not [name for name in after if name.partition("{")[0].endswith("_created")]
    for who, status in (("user", 403), ("viewer", 403), (None, 401)):
        assert (await site.get("/metrics", who)).status_code == status


async def test_figures_do_not_grow_with_what_strangers_ask(site: Site) -> None:
    """Paths and methods that do not exist share one label."""
    await site.send("M", "/path")
    before = await _figures(site)
    for number in range(5):
        await site.send(f"M{number}", f"/path-{number}")
    after = await _figures(site)
    unknown = 'sandgate_http_requests_total{operation="unknown",status="404"}'
    assert after[unknown] - before[unknown] == 5
    assert after.keys() - before.keys() <= {name for name in after if "get_metrics" in name}
