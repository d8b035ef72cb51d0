"""Schedules over HTTP, and what a ticker makes of them."""

from datetime import timedelta
from typing import Any

import pytest

from sandgate.core.errors import StoreUnavailable
from sandgate.core.principal import Role
from tests.unit.http.site import Site

ORCHESTRATOR = "/api/v1/orchestrator"
SCHEDULES = f"{ORCHESTRATOR}/schedules"
ASK = [{"name": "ask", "type": "approval"}]


async def a_workflow(site: Site, **more: Any) -> str:
    """A workflow whose runs wait until they are cancelled."""
    answer = await site.post(f"{ORCHESTRATOR}/workflows", {"name": "w", "steps": ASK, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["workflow_id"])


async def a_schedule(site: Site, workflow_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A new schedule of the user's."""
    wanted = {"workflow_id": workflow_id or await a_workflow(site), **fields}
    if "cron" not in wanted:
        wanted.setdefault("interval", 60)
    answer = await site.post(SCHEDULES, wanted)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def look_at(site: Site, schedule: dict[str, Any], seconds: float = 0) -> dict[str, Any]:
    """The schedule after the time, and after a ticker came by."""
    site.clock.advance(seconds)
    await site.ticker.look()
    answer = await site.get(f"{SCHEDULES}/{schedule['schedule_id']}")
    found: dict[str, Any] = answer.json()
    return found


async def runs_of(site: Site, schedule: dict[str, Any]) -> list[dict[str, Any]]:
    """Its runs, newest first."""
    answer = await site.get(f"{ORCHESTRATOR}/runs", params={"workflow_id": schedule["workflow_id"]})
    return list(answer.json()["runs"])


async def test_a_schedule_is_answered_with_its_defaults(site: Site) -> None:
    """And with the times that come next, in UTC."""
    made = await a_schedule(site, cron="0 7 * * MON-FRI", timezone="Europe/Berlin", name="mornings")
    assert (made["status"], made["overlap"], made["catch_up"]) == ("active", "allow", "last")
    expected = ["2026-01-01T06:00:00Z", "2026-01-02T06:00:00Z", "2026-01-05T06:00:00Z"]
    assert made["upcoming"] == expected
    assert made["next_run_at"] == expected[0]
    path = f"{SCHEDULES}/{made['schedule_id']}"
    assert (await site.get(path)).json() == made
    assert (await site.get(f"{path}/upcoming", params={"count": 2})).json()["upcoming"] == expected[:2]
    assert (await site.get(SCHEDULES)).json()["schedules"] == [made]
    other = (await site.get(SCHEDULES, params={"workflow_id": "workflow-000000000000"})).json()
    assert other["schedules"] == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, {"cron"}),
        ({"cron": "@daily", "interval": 60}, {"cron"}),
        ({"cron": "61 * * * *", "timezone": "Mars/Olympus"}, {"cron", "timezone"}),
        ({"cron": "@daily", "anchor_at": "2026-01-01T00:00:00Z"}, {"anchor_at"}),
        ({"interval": 60, "start_at": "2027-01-01T00:00:00Z", "end_at": "2026-06-01T00:00:00Z"}, {"end_at"}),
        ({"interval": 60, "end_at": "2025-01-01T00:00:00Z"}, {"interval"}),
        ({"interval": 60, "start_at": "2026-01-01T00:00:00"}, {"start_at"}),
        ({"interval": 60, "start_at": "9999-12-31T23:59:59-23:59"}, {"start_at"}),
        ({"interval": 0}, {"interval"}),
        ({"interval": 60, "inputs": {"x": 1}}, {"inputs.x"}),
        ({"interval": 60, "overlap": "maybe", "catch_up_limit": 101, "typo": 1}, {"overlap", "catch_up_limit", "typo"}),
    ],
)
async def test_what_is_wrong_is_named_at_once(site: Site, fields: dict[str, Any], named: set[str]) -> None:
    """All of it, each by its field."""
    answer = await site.post(SCHEDULES, {"workflow_id": await a_workflow(site), **fields})
    assert answer.status_code == 400, answer.text
    assert {item["field"] for item in answer.json()["error"]["details"]["fields"]} == named


async def test_a_tick_starts_one_run(site: Site) -> None:
    """As the owner, with the schedule's inputs and mark; looking again starts none."""
    workflow_id = await a_workflow(site, inputs={"day": {"required": True}, "n": {"type": "integer", "default": 3}})
    made = await a_schedule(site, workflow_id, interval=60, inputs={"day": "mon"})
    assert (await look_at(site, made, 59))["last_run_id"] is None
    found = await look_at(site, made, 1)
    await look_at(site, made)
    (run,) = await runs_of(site, made)
    assert run["trigger"] == {"type": "schedule", "id": made["schedule_id"], "at": "2026-01-01T00:01:00Z"}
    assert run["inputs"] == {"day": "mon", "n": 3}
    assert run["owner_id"] == site.accounts["user"].principal.user_id
    assert (found["last_run_id"], found["last_run_at"]) == (run["run_id"], "2026-01-01T00:01:00Z")
    assert found["next_run_at"] == "2026-01-01T00:02:00Z"
    (first, *_) = await site.store.runs.list_history(run["run_id"])
    assert first.kind == "run_started"
    assert first.details["trigger"] == "schedule"


async def test_the_newest_version_is_started(site: Site) -> None:
    """The one that the workflow has when the tick comes."""
    made = await a_schedule(site)
    again = {"name": "w2", "steps": ASK}
    await site.send("PUT", f"{ORCHESTRATOR}/workflows/{made['workflow_id']}", json=again)
    await look_at(site, made, 60)
    (run,) = await runs_of(site, made)
    assert (run["workflow_version"], run["workflow_name"]) == (2, "w2")


async def test_pause_resume_and_change(site: Site) -> None:
    """What comes while it is paused is gone; changed times count from now on; other fields touch no time."""
    made = await a_schedule(site, catch_up="all")
    path = f"{SCHEDULES}/{made['schedule_id']}"
    paused = (await site.send("PATCH", path, json={"paused": True})).json()
    assert (paused["status"], paused["next_run_at"], len(paused["upcoming"])) == ("paused", None, 3)
    assert (await look_at(site, made, 600))["last_run_id"] is None
    resumed = (await site.send("PATCH", path, json={"paused": False})).json()
    assert resumed["next_run_at"] == "2026-01-01T00:11:00Z"
    renamed = (await site.send("PATCH", path, json={"name": "n", "overlap": "skip"})).json()
    assert (renamed["next_run_at"], renamed["name"], renamed["overlap"]) == ("2026-01-01T00:11:00Z", "n", "skip")
    cron = (await site.send("PATCH", path, json={"cron": "30 * * * *"})).json()
    assert (cron["interval"], cron["anchor_at"], cron["next_run_at"]) == (None, None, "2026-01-01T00:30:00Z")
    every = (await site.send("PATCH", path, json={"interval": 7})).json()
    assert (every["cron"], every["next_run_at"]) == (None, "2026-01-01T00:10:07Z")
    wrong = await site.send("PATCH", path, json={"cron": "nonsense"})
    assert wrong.status_code == 400
    ended = (await site.send("PATCH", path, json={"end_at": "2026-01-01T00:10:07Z"})).json()
    assert ended["status"] == "active"
    assert (await look_at(site, made, 8))["status"] == "ended"
    endless = (await site.send("PATCH", path, json={"end_at": None})).json()
    assert (endless["status"], endless["end_at"]) == ("active", None)
    assert (await site.send("PATCH", path, json={"timezone": None})).status_code == 400


async def test_run_now(site: Site) -> None:
    """Paused or not, beside what runs; once for an idempotency key."""
    made = await a_schedule(site, overlap="skip", paused=True)
    path = f"{SCHEDULES}/{made['schedule_id']}/trigger"
    answers = [await site.post(path, headers={"Idempotency-Key": key}) for key in ("a", "b", "b")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[1].json() == answers[2].json()
    runs = await runs_of(site, made)
    assert [run["trigger"]["id"] for run in runs] == [made["schedule_id"]] * 2
    assert (await look_at(site, made))["last_run_id"] == runs[0]["run_id"]


async def _end(site: Site, run: dict[str, Any]) -> None:
    assert (await site.post(f"{ORCHESTRATOR}/runs/{run['run_id']}/cancel")).status_code == 200


async def test_a_queued_tick_runs_when_the_run_before_is_over(site: Site) -> None:
    """And tells that it waits meanwhile."""
    made = await a_schedule(site, overlap="queue", queue_limit=1)
    await look_at(site, made, 60)
    await look_at(site, made, 60)
    found = await look_at(site, made, 60)
    assert found["queued"] == ["2026-01-01T00:02:00Z"]
    assert found["last_skipped"] == {"at": "2026-01-01T00:03:00Z", "reason": "queue_full"}
    (run,) = await runs_of(site, made)
    await _end(site, run)
    assert (await look_at(site, made))["queued"] == []
    assert [run["trigger"]["at"] for run in await runs_of(site, made)] == [
        "2026-01-01T00:02:00Z",
        "2026-01-01T00:01:00Z",
    ]


async def test_the_previous_run_is_cancelled_first(site: Site) -> None:
    """The new one begins when it is over."""
    made = await a_schedule(site, overlap="cancel_previous")
    await look_at(site, made, 60)
    await look_at(site, made, 60)
    (first,) = [run for run in await runs_of(site, made) if run["trigger"]["at"] == "2026-01-01T00:01:00Z"]
    live = site.workflows._engine.find(first["run_id"])
    if live is not None:
        await live.wait_for_end(10)
    await look_at(site, made)
    newest, first = await runs_of(site, made)
    assert (first["status"], newest["status"]) == ("cancelled", "waiting")
    assert newest["trigger"]["at"] == "2026-01-01T00:02:00Z"


async def test_the_previous_run_is_cancelled_wherever_it_is(site: Site) -> None:
    """The process that works on it is told by a signal, as when somebody asks for it."""
    made = await a_schedule(site, overlap="cancel_previous")
    await look_at(site, made, 60)
    (run,) = await runs_of(site, made)
    late = site.clock.now() + timedelta(hours=1)
    assert [taken.run_id for taken in await site.store.runs.claim("another", late, 3600, 1)] == [run["run_id"]]
    site.workflows._engine.let_go(run["run_id"])
    await look_at(site, made, 60)
    (signal,) = await site.store.signals.list_held("another")
    assert (signal.run_id, signal.body) == (run["run_id"], {"who": f"schedule {made['schedule_id']}"})


async def test_a_tick_that_is_refused_is_recorded(site: Site) -> None:
    """Inputs that no longer fit, an owner who is disabled: no run, the reason, and the next tick tries again."""
    made = await a_schedule(site)
    needs = {"name": "w", "steps": ASK, "inputs": {"day": {"required": True}}}
    path = f"{ORCHESTRATOR}/workflows/{made['workflow_id']}"
    await site.send("PUT", path, json=needs)
    found = await look_at(site, made, 60)
    assert (found["last_error"]["code"], found["last_error"]["at"]) == ("VALIDATION_FAILED", "2026-01-01T00:01:00Z")
    assert found["next_run_at"] == "2026-01-01T00:02:00Z"
    await site.send("PUT", path, json={"name": "w", "steps": ASK})
    found = await look_at(site, made, 60)
    assert found["last_error"] is None
    user = site.accounts["user"].principal
    await site.users.update(site.accounts["admin"].principal, user.user_id, disabled=True)
    site.clock.advance(60)
    await site.ticker.look()
    shown = (await site.get(f"{SCHEDULES}/{made['schedule_id']}", "admin")).json()
    assert shown["last_error"]["code"] == "FORBIDDEN"
    assert len((await site.get(f"{ORCHESTRATOR}/runs", "admin")).json()["runs"]) == 1


async def test_a_full_server_is_tried_again(site: Site) -> None:
    """The tick stays due, its reason is told, and it runs when there is room."""
    made = await a_schedule(site, catch_up="none")
    site.workflows._most_runs = 0
    found = await look_at(site, made, 60)
    assert found["last_error"]["code"] == "TOO_MANY_RUNS"
    assert found["next_run_at"] == "2026-01-01T00:01:00Z"
    site.workflows._most_runs = 10
    assert (await look_at(site, made, 1))["last_run_id"] is None
    found = await look_at(site, made, 5)
    assert found["last_run_id"] is not None
    assert found["last_error"] is None


async def test_a_deleted_workflow_takes_its_schedules_along(site: Site) -> None:
    """They are not found any more, and start nothing."""
    made = await a_schedule(site)
    await site.send("DELETE", f"{ORCHESTRATOR}/workflows/{made['workflow_id']}")
    site.clock.advance(120)
    await site.ticker.look()
    assert (await site.get(f"{SCHEDULES}/{made['schedule_id']}")).json()["error"]["code"] == "SCHEDULE_NOT_FOUND"
    assert (await site.get(SCHEDULES)).json()["schedules"] == []


async def test_a_bug_in_one_schedule_leaves_the_others_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put aside for a while."""
    bad, good = await a_schedule(site), await a_schedule(site)
    start = site.workflows.start_triggered

    async def fail(workflow_id: Any, *rest: Any) -> Any:
        if workflow_id == bad["workflow_id"]:
            raise RuntimeError("a bug")
        return await start(workflow_id, *rest)

    monkeypatch.setattr(site.workflows, "start_triggered", fail)
    assert (await look_at(site, good, 60))["last_run_id"] is not None
    assert (await look_at(site, bad))["last_run_id"] is None
    monkeypatch.undo()
    assert (await look_at(site, bad, 301))["last_run_id"] is not None


async def test_nothing_is_done_before_it_is_due(site: Site) -> None:
    """The time to sleep leads to the next tick, and is bounded because clocks are set."""
    assert await site.ticker.look() == 60
    await a_schedule(site, interval=3600)
    assert await site.ticker.look() == 60
    await a_schedule(site, interval=20)
    assert await site.ticker.look() == timedelta(seconds=20).total_seconds()


async def test_a_user_has_so_many_schedules(site: Site) -> None:
    """The next is refused, and says the limit."""
    site.schedules._most = 1
    made = await a_schedule(site)
    answer = await site.post(SCHEDULES, {"workflow_id": made["workflow_id"], "interval": 60})
    assert (answer.status_code, answer.json()["error"]["details"]) == (429, {"limit": 1})


async def test_an_admin_s_schedule_runs_as_the_owner_of_the_workflow(site: Site) -> None:
    """Whoever makes it: it belongs to whom the workflow belongs to, who sees it."""
    workflow_id = await a_workflow(site)
    made = await site.post(SCHEDULES, {"workflow_id": workflow_id, "interval": 60}, "admin")
    assert made.json()["owner_id"] == site.accounts["user"].principal.user_id
    assert (await site.get(SCHEDULES)).json()["schedules"] == [made.json()]
    assert site.accounts["admin"].principal.role is Role.ADMIN


async def test_a_start_whose_answer_was_lost_is_found_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database did it and could not say so: the tick is not started again, and its run is worked on."""
    made = await a_schedule(site)
    fire = site.store.schedules.fire

    async def lose_the_answer(*arguments: Any) -> bool:
        await fire(*arguments)
        raise StoreUnavailable("the connection was lost", {"outcome": "unknown"})

    monkeypatch.setattr(site.store.schedules, "fire", lose_the_answer)
    site.clock.advance(60)
    with pytest.raises(ExceptionGroup) as raised:
        await site.ticker.look()
    assert raised.group_contains(StoreUnavailable)
    monkeypatch.undo()
    found = await look_at(site, made)
    (run,) = await runs_of(site, made)
    assert (found["last_run_id"], found["next_run_at"]) == (run["run_id"], "2026-01-01T00:02:00Z")
    engine = site.workflows._engine
    assert engine.find(run["run_id"]) is None
    for _ in range(2):
        await engine._leases._keep()
    live = engine.find(run["run_id"])
    assert live is not None
    assert (await site.post(f"{ORCHESTRATOR}/runs/{run['run_id']}/cancel")).json()["status"] == "cancelled"
