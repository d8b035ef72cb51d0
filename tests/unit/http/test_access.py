"""Who may do what, tried with every kind of caller on every operation of the document."""

import pytest

from tests.unit.http.rules import ROLES, RULES, ask, make_things
from tests.unit.http.site import Site


async def _operations(site: Site) -> set[tuple[str, str]]:
    paths = (await site.get("/openapi.json", None)).json()["paths"]
    return {(method.upper(), path) for path, operations in paths.items() for method in operations}


async def test_every_operation_has_a_rule(site: Site) -> None:
    """A new path is not served before somebody has said who may use it."""
    assert await _operations(site) == set(RULES)


@pytest.mark.parametrize(("method", "path"), RULES)
async def test_every_caller_gets_what_the_rule_says(site: Site, method: str, path: str) -> None:
    """And 404 of what is somebody else's is word for word that of what does not exist, but for the id."""
    rule = RULES[method, path]
    for who in (*ROLES, *(["stranger"] if rule.stranger else [])):
        things = await make_things(site)
        answer = await ask(site, method, path, who, rule.body, things)
        assert answer.status_code == getattr(rule, who), f"{who}: {answer.text}"
        if answer.status_code == 404:
            unknown = {name: value[:-4] + "0000" for name, value in things.items()}
            missing = await ask(site, method, path, who, rule.body, unknown)
            named, nameless = answer.text, missing.text
            for name, value in things.items():
                named, nameless = named.replace(value, name), nameless.replace(unknown[name], name)
            assert (missing.status_code, nameless) == (404, named)
        await site.renew_account("user")
