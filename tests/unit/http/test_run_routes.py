"""Runs over HTTP: followed, listed, retried, and looked at."""

import json
from typing import Any

import pytest

from sandgate.store import heavy_rows
from tests.unit.http.site import Site

WORKFLOWS = "/api/v1/orchestrator/workflows"
RUNS = "/api/v1/orchestrator/runs"
KEY = {"Idempotency-Key": "key-1"}


def _code(name: str, text: str = "pass", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "code_execution", "config": {"code": text}, **more}


async def _workflow(site: Site, *steps: dict[str, Any], **more: Any) -> str:
    answer = await site.post(WORKFLOWS, {"name": "w", "steps": list(steps), **more})
    assert answer.status_code == 201, answer.text
    return f"{WORKFLOWS}/{answer.json()['workflow_id']}"


async def _run(site: Site, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await site.post(f"{await _workflow(site, *steps, **more)}/start?wait=20", {})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_ended_run_is_told_as_events(site: Site) -> None:
    """In the form of the standard: an id, a name and one line of JSON each; and again from any of them on."""
    run = await _run(site, _code("a", "print('hello')"))
    answer = await site.get(f"{RUNS}/{run['run_id']}/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = answer.text.split("\n\n")
    assert blocks[0] == "retry: 1000"
    assert blocks[3] == 'id: 2:1.6.0\nevent: stdout\ndata: {"step":"a","item":null,"attempt":1,"text":"hello\\n"}'
    assert [block.split("\n")[1] for block in blocks[1:-1]] == [
        "event: run_started", "event: step_started", "event: stdout", "event: step_succeeded", "event: run_succeeded",
        "event: end",
    ]  # fmt: skip
    path = f"{RUNS}/{run['run_id']}/events"
    for resumed in ({"headers": {"Last-Event-ID": "2:1.6.0"}}, {"params": {"after": "2:1.6.0"}}):
        again = await site.get(path, **resumed)  # type: ignore[arg-type]
        assert again.text.split("\n\n")[1:] == blocks[4:]
    stronger = await site.get(path, headers={"Last-Event-ID": "4"}, params={"after": "0"})
    assert stronger.text.split("\n\n")[1:] == blocks[6:]


@pytest.mark.parametrize(
    "after", ["x", "-1", "1:", "1:0.0", "1:0.0.0;", "01", "9" * 16, "1:" + "0.0.0," * 200 + "0.0.0"]
)
async def test_an_id_that_is_none_is_refused(site: Site, after: str) -> None:
    """With the field that holds it."""
    run = await _run(site, _code("a"))
    path = f"{RUNS}/{run['run_id']}/events"
    for named, field in (
        ({"headers": {"Last-Event-ID": after}}, "Last-Event-ID"),
        ({"params": {"after": after}}, "after"),
    ):
        answer = await site.get(path, **named)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["fields"][0]["field"] == field


async def test_only_the_head_is_sent_when_only_the_head_is_wanted(site: Site) -> None:
    """A HEAD does not wait for the end of a run."""
    run = await _run(site, _code("a", "print('hello')"))
    answer = await site.send("HEAD", f"{RUNS}/{run['run_id']}/events")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_history_is_read_in_pages(site: Site) -> None:
    """Oldest first; each page says where the next one begins."""
    run = await _run(site, _code("a"), _code("b"))
    read: list[dict[str, Any]] = []
    cursor = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await site.get(f"{RUNS}/{run['run_id']}/history", params=query)).json()
        read += page["events"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["events"]) == 2
    assert read[0]["details"] == {"trigger": "api", "id": None, "at": None}
    assert [event["number"] for event in read] == list(range(6))
    assert [event["kind"] for event in read][-1] == "run_succeeded"
    wrong = await site.get(f"{RUNS}/{run['run_id']}/history", params={"cursor": "eA"})
    assert wrong.status_code == 400


async def test_runs_are_found_by_what_is_known_of_them(site: Site) -> None:
    """Each filter, and several together; what is no value of one is refused."""
    good = await _run(site, _code("a"))
    bad = await _run(site, _code("a", "raise ValueError('x')"))

    async def found(**query: Any) -> list[str]:
        answer = await site.get(RUNS, params=query)
        assert answer.status_code == 200, answer.text
        return [run["run_id"] for run in answer.json()["runs"]]

    both = [bad["run_id"], good["run_id"]]
    assert await found() == both
    assert await found(status="failed") == both[:1]
    assert await found(status=["failed", "succeeded"], name="w") == both
    assert await found(name="other") == []
    assert await found(workflow_id=good["workflow_id"], status="succeeded") == both[1:]
    assert await found(created_before="2026-01-01T00:00:00Z") == []
    assert await found(created_after="2026-01-01T00:00:00+00:00") == both
    assert await found(created_after="2027-01-01T00:00:00Z") == []
    for wrong in ({"status": "ended"}, {"created_after": "yesterday"}, {"created_before": "2026-01-01T00:00:00"}):
        assert (await site.get(RUNS, params=wrong)).status_code == 400
    for odd in ("0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "2026-01-01", ""):
        assert (await site.get(RUNS, params={"created_after": odd})).status_code == 400


async def test_a_failed_run_is_retried(site: Site) -> None:
    """The same run, from what failed or from the step that is named; what cannot be is refused."""
    run = await _run(site, _code("a"), _code("b", "raise ValueError('x')"))
    path = f"{RUNS}/{run['run_id']}"
    answer = await site.post(f"{path}/retry")
    assert (answer.status_code, answer.json()["run_id"]) == (200, run["run_id"])
    live = site.workflows._engine.find(run["run_id"])
    if live is not None:
        await live.wait_for_end(10)
    shown = (await site.get(path)).json()
    assert [step["attempts"] for step in shown["steps"]] == [1, 2]
    assert (await site.post(f"{path}/retry", {"from": "c"})).status_code == 400
    assert (await site.post(f"{path}/retry", {"form": "a"})).status_code == 400
    assert (await site.post(f"{path}/retry", {"from": "a"})).status_code == 200
    good = await _run(site, _code("a"))
    refused = await site.post(f"{RUNS}/{good['run_id']}/retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "RUN_SUCCEEDED")


async def test_an_answer_about_a_run_holds_so_much_output(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out is said, and got step by step, item by item; what is not there is not found."""
    monkeypatch.setattr(heavy_rows, "MOST_BYTES", 10_000)
    large = _code("a", f"print('{'x' * 4000}')", foreach=[1, 2, 3])
    run = await _run(site, large, _code("b", "print('small')"), _code("c"))
    workflow = f"{WORKFLOWS}/{run['workflow_id']}"
    for path in (f"{RUNS}/{run['run_id']}", f"{workflow}/status"):
        a, b, c = (await site.get(path)).json()["steps"]
        assert [item["output_omitted"] for item in a["items"]] == [False, False, True]
        assert [len(item["stdout"]) for item in a["items"]] == [4001, 4001, 0]
        assert (a["outputs"], a["items"][2]["outputs"]) == ([{}, {}, None], None)
        assert not a["output_omitted"]
        assert (b["stdout"], b["output_omitted"], c["output_omitted"]) == ("small\n", False, False)
    steps = f"{RUNS}/{run['run_id']}/steps"
    whole = (await site.get(f"{steps}/a?item=2")).json()
    assert (whole["step"], whole["item"], len(whole["stdout"]), whole["outputs"]) == ("a", 2, 4001, {})
    assert not whole["output_omitted"]
    assert (await site.get(f"{steps}/b")).json()["stdout"] == "small\n"
    for missing in ("d", "a?item=3", "b?item=0"):
        answer = await site.get(f"{steps}/{missing}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "STEP_NOT_FOUND")
    for wrong in ("a?item=x", "a?item=1000", "a?index=1"):
        assert (await site.get(f"{steps}/{wrong}")).status_code == 400


async def test_a_user_has_so_many_workflows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is refused until one is deleted; other users have their own."""
    monkeypatch.setattr(site.workflows, "_most_workflows", 2)
    made = [await _workflow(site, _code("a")) for _ in range(2)]
    definition = {"name": "w", "steps": [_code("a")]}
    refused = await site.post(WORKFLOWS, definition)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_WORKFLOWS")
    assert refused.json()["error"]["details"] == {"limit": 2}
    assert (await site.post(WORKFLOWS, definition, "stranger")).status_code == 201
    assert (await site.send("DELETE", made[0])).status_code == 200
    assert (await site.post(WORKFLOWS, definition)).status_code == 201


async def test_lists_of_large_things_end_early(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page says where to go on, and all of them together have everything once."""
    monkeypatch.setattr(heavy_rows, "MOST_BYTES", 100_000)
    made = [await _run(site, _code("a", "#" * 60_000), inputs={"x": {"default": ""}}) for _ in range(2)]
    for _ in range(3):
        start = f"{WORKFLOWS}/{made[0]['workflow_id']}/start?wait=20"
        assert (await site.post(start, {"inputs": {"x": "x" * 60_000}})).status_code == 200

    async def sizes(at: str, member: str) -> list[int]:
        found: list[str] = []
        pages: list[int] = []
        query: dict[str, str] = {}
        while True:
            page = (await site.get(at, params=query)).json()
            found += [json.dumps(row) for row in page[member]]
            pages.append(len(page[member]))
            if page["next_cursor"] is None:
                assert len(set(found)) == len(found)
                return pages
            query = {"cursor": page["next_cursor"]}

    assert await sizes(WORKFLOWS, "workflows") == [1, 1]
    assert await sizes(RUNS, "runs") == [2, 3]


async def test_a_start_that_is_sent_again_starts_once(site: Site) -> None:
    """The same key and body give the first answer, whatever has become of the run; another body is a conflict."""
    workflow = await _workflow(site, _code("a"), inputs={"x": {}})
    first = await site.post(f"{workflow}/start?wait=20", {"inputs": {"x": "1"}}, headers=KEY)
    again = await site.post(f"{workflow}/start", {"inputs": {"x": "1"}}, headers=KEY)
    assert (first.status_code, again.content, first.json()["status"]) == (200, first.content, "succeeded")
    other = await site.post(f"{workflow}/start", {"inputs": {"x": "2"}}, headers=KEY)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert len((await site.get(RUNS)).json()["runs"]) == 1
    for wait in ("61", "-1", "x", "nan", "inf"):
        assert (await site.post(f"{workflow}/start?wait={wait}", {})).status_code == 400


async def test_the_status_of_a_workflow_has_what_the_reference_says(site: Site) -> None:
    """Each field by its name, of the newest run and of one that is named."""
    workflow = await _workflow(site, _code("a", "print('x')"), _code("b", "raise ValueError('no')"), _code("c"))
    run = (await site.post(f"{workflow}/start?wait=20", {})).json()
    for query in ("", f"?run_id={run['run_id']}"):
        status = (await site.get(f"{workflow}/status{query}")).json()
        assert {name: status[name] for name in ("workflow_id", "run_id", "status")} == {
            "workflow_id": run["workflow_id"], "run_id": run["run_id"], "status": "failed",
        }  # fmt: skip
        a, b, c = status["steps"]
        wanted = {"name", "status", "attempts", "started_at", "finished_at", "outputs", "stdout", "stderr", "error"}
        assert all(wanted <= set(step) for step in (a, b, c))
        assert (a["name"], a["status"], a["attempts"], a["outputs"], a["stdout"], a["error"]) == (
            "a", "succeeded", 1, {}, "x\n", None,
        )  # fmt: skip
        assert a["started_at"].endswith("Z")
        assert a["finished_at"].endswith("Z")
        assert (b["status"], b["error"]["name"], b["error"]["value"]) == ("failed", "ValueError", "no")
        assert "ValueError: no" in b["stderr"]
        assert (c["status"], c["attempts"], c["started_at"], c["stdout"], c["stderr"]) == ("skipped", 0, None, "", "")


@pytest.mark.parametrize("path", [WORKFLOWS, f"{WORKFLOWS}/validate"])
@pytest.mark.parametrize("body", [[1], "x", None, 3])
async def test_a_definition_that_is_no_object_is_told_like_all_else(site: Site, path: str, body: Any) -> None:
    """As a problem of the whole document."""
    refused = await site.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "WORKFLOW_INVALID")
    assert [problem["pointer"] for problem in error["details"]["problems"]] == [""]
