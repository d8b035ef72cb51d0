"""Nothing that can be put into a field brings a 5xx: every field of every body of the document, every odd value."""

import json
from collections import defaultdict
from typing import Any

import pytest

from tests.unit.http.site import ENVIRONMENTS, Site

ORCHESTRATOR = "/api/v1/orchestrator"

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    10**400,
    2**63,
    -(2**64),
    "",
    " ",
    "\n",
    "a" * 10_000,
    "é😀\u202e\ufeff\uffff",
    "'; DROP TABLE environments; --",
    "{{7*7}} ${x} %s %00 ../../etc/passwd",
    "<script>alert(1)</script>",
    [],
    [[]],
    {},
    {"": ""},
    {"a": {"b": {"c": 1}}},
    {"__proto__": "x", "constructor": "y"},
]
ODD_TEXTS = [b'"\\ud800"', b'"\\u0000"', b"NaN", b"1e999", b"-0", b"0.1e-400", b"\xff", b'{"a":1,"a":2}', b"[" * 5000]


async def _bodies(site: Site) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Method, path, an example and the schema of each JSON body."""
    document = (await site.get("/openapi.json", None)).json()
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if schema is not None:
                named = [part["$ref"] for part in [schema, *schema.get("anyOf", [])] if "$ref" in part]
                if named:
                    schema = document["components"]["schemas"][named[0].rpartition("/")[2]]
                found.append((method.upper(), path, schema["examples"][0], schema))
    return found


async def _try(site: Site, method: str, path: str, raw: bytes, who: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await site.send(method, path, who, content=raw, headers=headers)
    assert answer.status_code < 500, f"{method} {path} {raw[:100]!r}: {answer.text}"
    assert answer.status_code != 422


async def _triggers(site: Site) -> dict[str, str]:
    """A schedule and a webhook, so that what is odd gets as far as it can."""
    wanted = {"name": "w", "steps": [{"name": "a", "type": "approval"}], "inputs": {"event": {"type": "object"}}}
    made = {"workflow_id": (await site.post(f"{ORCHESTRATOR}/workflows", wanted)).json()["workflow_id"]}
    schedule = (await site.post(f"{ORCHESTRATOR}/schedules", {**made, "interval": 60})).json()
    webhook = (await site.post(f"{ORCHESTRATOR}/webhooks", made)).json()
    token = webhook["hook_path"].rpartition("/")[2]
    return {**made, "schedule_id": schedule["schedule_id"], "webhook_id": webhook["webhook_id"], "token": token}


@pytest.mark.parametrize("odd", [*ODD, *ODD_TEXTS], ids=lambda odd: repr(odd)[:30])
async def test_odd_values_are_refused_or_taken(site: Site, odd: Any) -> None:
    """In the place of each field, in place of the whole body, and as a field that is unknown."""
    raw = odd if isinstance(odd, bytes) else json.dumps(odd).encode()
    bodies = await _bodies(site)
    assert len(bodies) >= 8
    environment_id = await site.create_environment()
    ids = defaultdict(lambda: "none-000000000000", environment_id=environment_id)
    ids["user_id"] = site.accounts["viewer"].principal.user_id
    ids.update(await _triggers(site))
    for method, path, example, schema in bodies:
        who = None if path.endswith("/token") else "admin"
        await _try(site, method, path.format_map(ids), raw, who)
        for name in [*schema.get("properties", example), "unknown"]:
            # Put together as text, because not all odd values are what a JSON library would write.
            rest = {key: value for key, value in example.items() if key != name}
            text = (
                json.dumps(rest)[:-1].encode() + (b"," if rest else b"") + json.dumps(name).encode() + b":" + raw + b"}"
            )
            await _try(site, method, path.format_map(ids), text, who)


ODD_QUERIES = ["%0a", "%00", "%ff", "%F0%9F%98%80", "a&a=b", "[]", "-1", "9" * 5000, "%", "+", "\u202e"]


@pytest.mark.parametrize("text", ODD_QUERIES, ids=lambda text: text[:9])
async def test_odd_queries_are_refused_or_taken(site: Site, text: str) -> None:
    """For each parameter of each list."""
    for path, names in (
        (ENVIRONMENTS, ("limit", "cursor", "status", "template", "name", "unknown")),
        ("/api/v1/users", ("limit", "cursor", "unknown")),
        ("/api/v1/auth/api-keys", ("limit", "cursor")),
    ):
        for name in names:
            answer = await site.get(f"{path}?{name}={text}", "admin")
            assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "text", ["%00", "%ff", "..", "%2e%2e", "%2f", "a%0d%0aX: y", "é", "x" * 8000, "%25", ";", "env-" + "0" * 26]
)
async def test_odd_ids_are_not_found(site: Site, text: str) -> None:
    """In every path with an id."""
    document = (await site.get("/openapi.json", None)).json()
    for path, operations in document["paths"].items():
        if "{" not in path:
            continue
        names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
        for method in operations:
            answer = await site.send(
                method.upper(), path.format(**dict.fromkeys(names, text)), "admin", json={"name": "n", "code": ""}
            )
            # What speaks over a web socket only says so before it looks for anything.
            allowed = (400, 404, 405, 426) if path.endswith("/terminal") else (400, 404, 405)
            assert answer.status_code in allowed, answer.text
