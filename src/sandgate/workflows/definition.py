"""Reads a workflow's definition: untrusted JSON in, a checked definition out, or all that is wrong with it."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sandgate.core.workflow import Json, StepDefinition, WorkflowDefinition
from sandgate.workflows import names
from sandgate.workflows.extent import check_extent
from sandgate.workflows.fields import Fields
from sandgate.workflows.inputs import read_inputs
from sandgate.workflows.parts import read_retry, read_template, read_variables
from sandgate.workflows.problems import Problems, TooManyProblems, below
from sandgate.workflows.reading import ANYWHERE, Defaults, FindProblem, Reading
from sandgate.workflows.steps import PlacedStep, read_steps
from sandgate.workflows.uses import Scope, Uses
from sandgate.workflows.validate import ReferenceCheck, StepLists, check_lists, check_workspace

if TYPE_CHECKING:
    from sandgate.workflows.form import Form

DEFINITION_KEYS = (
    "name",
    "description",
    "inputs",
    "env",
    "defaults",
    "concurrency",
    "timeout",
    "workspace",
    "steps",
    "on_error",
    "finally",
    "outputs",
)
DEFAULTS_KEYS = ("template", "timeout", "retry", "env")
CONCURRENCY_KEYS = ("group", "limit")

_BEFORE_STEPS = Scope(ANYWHERE)
_AFTER_STEPS = Scope(ANYWHERE | {"steps"})
_VARIABLES = Scope(ANYWHERE | {"secrets"})


def parse_definition(
    raw: Json, *, templates: FindProblem | None = None, form: "Form | None" = None
) -> WorkflowDefinition:
    """The definition, complete: what a step leaves out is filled in from what the guide says.

    ``templates`` says what is wrong with the name of one; None leaves them unchecked. ``form`` is the schema that the
    definition has to fit, too; None for one that was accepted before. Raises ``InvalidDefinition`` with all
    problems, at most ``MAX_PROBLEMS`` of them.
    """
    problems = Problems()
    definition = None
    with suppress(TooManyProblems):
        check_extent(raw, problems)
        problems.check()
        definition = _read(raw, problems, templates)
        if form is not None:
            form.add_problems(raw, problems)
    problems.check()
    assert definition is not None  # noqa: S101 - only too many problems leave none, and they have been raised
    return definition


def _read(raw: Json, problems: Problems, templates: FindProblem | None) -> WorkflowDefinition:
    fields = Fields(raw, "", problems, DEFINITION_KEYS)
    reading = Reading(problems, Uses(problems), templates)
    fields.require("name", "steps")
    inputs = read_inputs(fields, problems)
    env = read_variables(fields, reading, _VARIABLES)
    reading = replace(reading, defaults=_read_defaults(fields, reading, env))
    group, limit = _read_concurrency(fields, reading)
    shares_workspace = fields.choice("workspace", ("run", "step")) == "run"
    lists = _read_lists(fields, reading)
    outputs = _read_outputs(fields, reading)
    if shares_workspace:
        check_workspace(lists, problems)
    ReferenceCheck(lists, inputs, env, problems).check(reading.uses)
    return WorkflowDefinition(
        name=fields.name("name", names.WORKFLOW_NAME, names.WORKFLOW_NAME_RULE) or "",
        description=fields.text("description", names.MAX_DESCRIPTION) or "",
        inputs=inputs,
        env=env,
        timeout_s=fields.number("timeout", names.SHORTEST_TIMEOUT_S, names.LONGEST_WAIT_S),
        concurrency_group=group,
        concurrency_limit=limit,
        shares_workspace=shares_workspace,
        steps=_plain(lists.steps),
        on_error=_plain(lists.on_error),
        final=_plain(lists.final),
        outputs=outputs,
    )


def _read_defaults(owner: Fields, reading: Reading, env: Mapping[str, Json]) -> Defaults:
    if "defaults" not in owner:
        return Defaults(env=env)
    fields = Fields(owner.raw("defaults"), owner.at("defaults"), reading.problems, DEFAULTS_KEYS)
    return Defaults(
        template=read_template(fields, reading),
        timeout_s=fields.number("timeout", names.SHORTEST_TIMEOUT_S, names.LONGEST_WORK_S),
        retry=read_retry(fields, reading, None),
        env={**env, **read_variables(fields, reading, _VARIABLES)},
    )


def _read_concurrency(owner: Fields, reading: Reading) -> tuple[str | None, int | None]:
    if "concurrency" not in owner:
        return None, None
    fields = Fields(owner.raw("concurrency"), owner.at("concurrency"), reading.problems, CONCURRENCY_KEYS)
    fields.require("group")
    group = fields.text("group", names.MAX_GROUP, least=1)
    if group is not None:
        reading.uses.add_text(fields.at("group"), group, _BEFORE_STEPS)
    limit = fields.whole("limit", 1, names.MAX_CONCURRENCY)
    return group, limit if "limit" in fields else 1


def _read_outputs(owner: Fields, reading: Reading) -> Mapping[str, Json]:
    outputs = owner.mapping("outputs", names.MAX_OUTPUTS)
    for name, value in outputs.items():
        pointer = below(owner.at("outputs"), name)
        if not re.fullmatch(names.INPUT_NAME, name):
            reading.problems.add(pointer, "A name has 1 to 63 letters, digits, _ and -, and starts with a letter or _")
        reading.uses.add_value(pointer, value, _AFTER_STEPS)
    return outputs


def _read_lists(fields: Fields, reading: Reading) -> StepLists:
    lists = StepLists(*(read_steps(fields, key, reading) for key in ("steps", "on_error", "finally")))
    if fields.raw("steps") == []:
        fields.refuse("steps", "A workflow has at least one step")
    if sum(map(len, lists.in_order())) > names.MAX_STEPS:
        reading.problems.add("", f"A workflow has at most {names.MAX_STEPS} steps in its three lists together")
    if sum(len(placed.step.needs) for group in lists.in_order() for placed in group) > names.MAX_NEEDS:
        # What comes after this takes as long as there are pairs.
        reading.problems.add(
            "", f"The steps of a workflow need at most {names.MAX_NEEDS:,} others, all counted together"
        )
        reading.problems.check()
    check_lists(lists, reading.problems)
    return lists


def _plain(placed: Sequence[PlacedStep]) -> tuple[StepDefinition, ...]:
    return tuple(one.step for one in placed)
