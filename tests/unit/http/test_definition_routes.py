"""Definitions over HTTP: tried out, refused with all that is wrong, and the schema that they have to fit."""

from typing import Any

import jsonschema_rs
import pytest

from sandgate.workflows import graphs
from sandgate.workflows.schema import definition_schema
from tests.unit.http.site import Site

ORCHESTRATOR = "/api/v1/orchestrator"
WORKFLOWS = f"{ORCHESTRATOR}/workflows"


def _code(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "code_execution", "config": {"code": "pass"}, **more}


RIGHT = {
    "name": "w",
    "steps": [
        _code("a"),
        _code("b", needs=["a"]),
        _code("c", needs=["a"], foreach=[1, 2]),
        _code("d", needs=["b", "c"]),
    ],
    "finally": [_code("tidy")],
}
# What only the parser sees, what both see, and what only the schema sees, since nobody knows what a `cook` needs.
WRONG = {"name": "w", "steps": [_code("a", needs=["z"]), {"name": "1", "type": "cook", "config": "soup"}]}
PROBLEMS = [
    {
        "pointer": "/steps/1/name",
        "problem": "has to be 1 to 63 letters, digits, _ and -, and start with a letter",
    },
    {
        "pointer": "/steps/1/type",
        "problem": "has to be one of `code_execution`, `http`, `sleep`, `approval`, `workflow`",
    },
    {"pointer": "/steps/0/needs/0", "problem": "There is no step `z`; known: `a`"},
    {"pointer": "/steps/1/config", "problem": "has to be an object, not a text"},
]


async def test_a_dry_run_answers_the_plan_and_makes_nothing(site: Site) -> None:
    """The steps in their order, and what runs side by side."""
    answer = await site.post(f"{WORKFLOWS}/validate", RIGHT)
    assert answer.status_code == 200, answer.text
    plan = answer.json()["plan"]
    assert [step["name"] for step in plan["steps"]] == ["a", "b", "c", "d"]
    assert plan["levels"] == [["a"], ["b", "c"], ["d"]]
    assert [step["name"] for step in plan["finally"]] == ["tidy"]
    assert (await site.get(WORKFLOWS)).json()["workflows"] == []


@pytest.mark.parametrize("how", ["validate", "create", "replace"])
async def test_all_that_is_wrong_is_in_one_answer(site: Site, how: str) -> None:
    """Whoever of parser and schema has seen it, each once, with its pointer and with what would be right."""
    made = (await site.post(WORKFLOWS, RIGHT)).json()["workflow_id"]
    method, path = {
        "validate": ("POST", f"{WORKFLOWS}/validate"),
        "create": ("POST", WORKFLOWS),
        "replace": ("PUT", f"{WORKFLOWS}/{made}"),
    }[how]
    answer = await site.send(method, path, json=WRONG)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "WORKFLOW_INVALID")
    assert error["details"]["problems"] == PROBLEMS
    (row,) = (await site.get(WORKFLOWS)).json()["workflows"]
    assert (row["workflow_id"], row["version"]) == (made, 1)


async def test_the_schema_is_served(site: Site) -> None:
    """It is the one that is used, and is a schema of the draft that it names."""
    served = (await site.get(f"{ORCHESTRATOR}/schema")).json()
    assert served == definition_schema()
    validator = jsonschema_rs.Draft202012Validator(served)
    assert (validator.is_valid(RIGHT), validator.is_valid(WRONG)) == (True, False)


async def test_who_has_too_much_checked_is_told_to_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the definition came."""
    made = (await site.post(WORKFLOWS, RIGHT)).json()["workflow_id"]
    monkeypatch.setattr(graphs, "_MOST_CHECKED_BYTES", 10)
    for method, path in (("POST", f"{WORKFLOWS}/validate"), ("POST", WORKFLOWS), ("PUT", f"{WORKFLOWS}/{made}")):
        answer = await site.send(method, path, json=RIGHT)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (429, "TOO_MANY_REQUESTS_AT_ONCE")
        assert (answer.headers["Retry-After"], error["details"]) == ("5", {"limit_bytes": 10})
