"""What holds off the deletion of a template, over HTTP."""

import asyncio
from dataclasses import replace

import pytest

from sandgate.core.states import TemplateStatus
from sandgate.environments.builds import service
from tests.unit.http.site import ENVIRONMENTS, Site

TEMPLATES = "/api/v1/sandbox/templates"


async def test_a_template_of_snapshots_is_deleted_by_force(site: Site) -> None:
    """Nothing could begin with them any more; snapshots of others' templates of that name are no matter."""
    await site.add_template("user", name="mine")
    await site.add_template("stranger", name="mine")
    environment_id = await site.create_environment(template="mine")
    made = (await site.post(f"{ENVIRONMENTS}/{environment_id}/snapshots")).json()
    await site.send("DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert (await site.send("DELETE", f"{TEMPLATES}/mine", "stranger")).status_code == 200
    refused = await site.send("DELETE", f"{TEMPLATES}/mine")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "TEMPLATE_IN_USE")
    details = {"environments": 0, "runs": 0, "snapshots": 1, "templates": ["mine@1"]}
    assert refused.json()["error"]["details"] == details
    assert (await site.send("DELETE", f"{TEMPLATES}/mine?force=1x")).status_code == 400
    assert (await site.send("DELETE", f"{TEMPLATES}/mine?force=true")).json()["versions"] == [1]
    begun = await site.post(ENVIRONMENTS, {"name": "n", "snapshot_id": made["snapshot_id"]})
    assert (begun.status_code, begun.json()["error"]["code"]) == (400, "UNKNOWN_TEMPLATE")


async def test_a_template_that_a_live_run_needs_is_kept(site: Site) -> None:
    """Whatever the run is at; others' templates of that name are no matter, nor is a version that it does not have."""
    for who in ("user", "stranger"):
        await site.add_template(who, name="mine")
    step = {"name": "later", "type": "code_execution", "needs": ["ask"], "config": {"code": "", "template": "mine"}}
    steps = [{"name": "ask", "type": "approval"}, step]
    made = (await site.post("/api/v1/orchestrator/workflows", {"name": "w", "steps": steps})).json()
    run = (await site.post(f"/api/v1/orchestrator/workflows/{made['workflow_id']}/start")).json()
    assert run["templates"] == {"mine": "mine@1"}
    await site.add_template("user", name="mine")
    for name in ("mine", "mine@1"):
        refused = (await site.send("DELETE", f"{TEMPLATES}/{name}?force=true")).json()["error"]
        details = {"environments": 0, "runs": 1, "snapshots": 0, "templates": ["mine@1"]}
        assert (refused["code"], refused["details"]) == ("TEMPLATE_IN_USE", details)
    assert (await site.send("DELETE", f"{TEMPLATES}/mine@2")).status_code == 200
    assert (await site.send("DELETE", f"{TEMPLATES}/mine", "stranger")).status_code == 200
    ended = await site.post(f"/api/v1/orchestrator/runs/{run['run_id']}/cancel")
    assert ended.json()["status"] == "cancelled"
    assert (await site.send("DELETE", f"{TEMPLATES}/mine")).json()["versions"] == [1]


async def test_a_template_that_a_step_runs_in_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it was not ready when the run began; what ends with the run is waited for."""
    row = await site.add_template("user", name="mine")
    known = site.templates.all_templates
    known.put(replace(row, status=TemplateStatus.BUILDING))
    config = {"code": "while True: pass", "template": "mine"}
    steps = [
        {"name": "ask", "type": "approval"},
        {"name": "later", "type": "code_execution", "needs": ["ask"], "config": config},
    ]
    made = (await site.post("/api/v1/orchestrator/workflows", {"name": "w", "steps": steps})).json()
    run = (await site.post(f"/api/v1/orchestrator/workflows/{made['workflow_id']}/start")).json()
    assert run["templates"] == {}
    known.put(replace(row, status=TemplateStatus.READY))
    await site.post(f"/api/v1/orchestrator/runs/{run['run_id']}/steps/ask/approve", {})
    async with asyncio.timeout(30):
        while not site.runtime.sandboxes:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    with monkeypatch.context() as impatient:
        impatient.setattr(service, "_PATIENCE_S", 0.0)
        refused = (await site.send("DELETE", f"{TEMPLATES}/mine")).json()["error"]
    details = {"environments": 0, "runs": 1, "snapshots": 0, "templates": ["mine@1"]}
    assert (refused["code"], refused["details"]) == ("TEMPLATE_IN_USE", details)
    await site.post(f"/api/v1/orchestrator/runs/{run['run_id']}/cancel")
    assert (await site.send("DELETE", f"{TEMPLATES}/mine")).json()["versions"] == [1]
    assert not site.runtime.sandboxes


async def test_a_template_of_a_live_run_that_is_worked_on_elsewhere_is_kept(site: Site) -> None:
    """Whoever works on the run, its row says what it needs."""
    await site.add_template("user", name="mine")
    step = {"name": "later", "type": "code_execution", "needs": ["ask"], "config": {"code": "", "template": "mine"}}
    steps = [{"name": "ask", "type": "approval"}, step]
    made = (await site.post("/api/v1/orchestrator/workflows", {"name": "w", "steps": steps})).json()
    run = (await site.post(f"/api/v1/orchestrator/workflows/{made['workflow_id']}/start")).json()
    engine = site.workflows._engine
    async with asyncio.timeout(30):
        while engine.find(run["run_id"]):
            # As another process would have it; not while something is being written.
            engine.let_go(run["run_id"])
            await asyncio.sleep(0)
    refused = (await site.send("DELETE", f"{TEMPLATES}/mine?force=true")).json()["error"]
    details = {"environments": 0, "runs": 1, "snapshots": 0, "templates": ["mine@1"]}
    assert (refused["code"], refused["details"]) == ("TEMPLATE_IN_USE", details)
