"""The plan of a definition over random graphs, and the inputs that a run is given."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.errors import InvalidDefinition, InvalidRequest
from sandgate.core.workflow import WorkflowDefinition
from sandgate.workflows.definition import parse_definition
from sandgate.workflows.inputs import check_inputs
from sandgate.workflows.plan import make_plan
from tests.unit.workflows.definitions import step, workflow


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Steps, each with needs among those before it, in any order."""
    names = [f"s{index}" for index in range(draw(st.integers(1, 12)))]
    needs = {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        for index, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs())
def test_every_graph_without_a_circle_is_planned_in_its_order(needs: dict[str, list[str]]) -> None:
    """A step's level is one more than the highest of what it needs, and the plan names each step once."""
    definition = parse_definition(workflow(*[step(name, needs=wanted) for name, wanted in needs.items()]))
    plan = make_plan(definition)
    levels = {planned.name: planned.level for planned in plan.steps}
    assert levels.keys() == needs.keys()
    assert all(levels[name] == max((levels[one] + 1 for one in wanted), default=0) for name, wanted in needs.items())
    assert [name for level in plan.levels for name in level] == [planned.name for planned in plan.steps]


@given(graphs(), st.data())
def test_a_circle_is_always_found(needs: dict[str, list[str]], data: st.DataObject) -> None:
    """One edge back makes a definition that is refused."""
    first = data.draw(st.sampled_from(sorted(needs)))
    reached = {first}
    while more := {name for name, wanted in needs.items() if reached & set(wanted)} - reached:
        reached |= more
    last = data.draw(st.sampled_from(sorted(reached)))
    circular = needs | {first: [*needs[first], last]}
    with pytest.raises(InvalidDefinition, match="in a circle"):
        parse_definition(workflow(*[step(name, needs=wanted) for name, wanted in circular.items()]))


def test_a_plan_tells_what_runs_side_by_side() -> None:
    """Levels, lists, and what is marked on a step."""
    raw = workflow(
        step("a"),
        step("b", needs=["a"], foreach=[1, 2], strategy={"max_parallel": 2}),
        step("c", needs=["a"], **{"if": "always()"}),
        on_error=[step("e")],
    )
    plan = make_plan(parse_definition(raw)).as_json()
    assert plan["levels"] == [["a"], ["b", "c"]]
    assert [(one["name"], one["foreach"], one["conditional"]) for one in plan["steps"]] == [
        ("a", False, False),
        ("b", True, False),
        ("c", False, True),
    ]
    assert ([one["name"] for one in plan["on_error"]], plan["finally"]) == (["e"], [])
    assert orjson.loads(orjson.dumps(plan)) == plan


INPUTS = {
    "day": {"type": "string", "required": True},
    "n": {"type": "integer", "default": 3},
    "ratio": {"type": "number"},
    "flag": {"type": "boolean", "default": False},
    "rows": {"type": "array", "default": []},
    "more": {"type": "object"},
}


def _definition() -> WorkflowDefinition:
    return parse_definition(workflow(inputs=INPUTS))


def test_inputs_are_completed() -> None:
    """Defaults are filled in; what is optional and not given is null; 4.0 is a whole number."""
    assert check_inputs(_definition(), {"day": "mon", "n": 4.0, "more": None}) == {
        "day": "mon",
        "n": 4,
        "ratio": None,
        "flag": False,
        "rows": [],
        "more": None,
    }
    assert check_inputs(parse_definition(workflow()), None) == {}


def test_all_wrong_inputs_are_named_at_once() -> None:
    """Missing, unknown and of a wrong type."""
    given = {"n": True, "ratio": "1", "flag": 0, "rows": {}, "more": [], "dya": 1}
    with pytest.raises(InvalidRequest) as caught:
        check_inputs(_definition(), given)
    told = {entry["field"]: entry["problem"] for entry in caught.value.details["fields"]}
    assert told.keys() == {f"inputs.{name}" for name in ("day", "n", "ratio", "flag", "rows", "more", "dya")}
    assert told["inputs.n"] == "has to be a whole number, not a boolean"
    assert "did you mean `day`?" in told["inputs.dya"]
    with pytest.raises(InvalidRequest, match="has to be an object"):
        check_inputs(_definition(), [])
