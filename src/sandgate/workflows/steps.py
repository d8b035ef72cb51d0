"""Steps of a definition: each on its own, and each with the ones before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sandgate.core.workflow import Json, RetryPolicy, StepDefinition, StepType
from sandgate.workflows import names
from sandgate.workflows.configs import guess_type, read_config
from sandgate.workflows.expressions import kind
from sandgate.workflows.fields import Fields
from sandgate.workflows.parts import read_retry, read_variables
from sandgate.workflows.problems import below
from sandgate.workflows.reading import Reading, StepScope
from sandgate.workflows.suggestions import suggest_one

STEP_KEYS = ("name", "type", "config", "needs", "if", "foreach", "strategy", "timeout", "retry", "env")

_CONFIG_KEYS = (
    "code",
    "language",
    "template",
    "environment_id",
    "inputs",
    "url",
    "method",
    "headers",
    "body",
    "seconds",
    "until",
)
_ELSEWHERE = {key: f"`{key}` stands in `config`" for key in _CONFIG_KEYS} | {
    "with": "what a step is given stands in `config`",
    "max_parallel": "write strategy: {max_parallel: …}",
    "depends_on": "did you mean `needs`?",
}


@dataclass(frozen=True, slots=True)
class PlacedStep:
    """A step, where it stands, and whether it says itself what it needs."""

    pointer: str
    step: StepDefinition
    says_needs: bool


def read_steps(owner: Fields, key: str, reading: Reading) -> tuple[PlacedStep, ...]:
    """The steps of one list; those without a name that can be used are problems and left out."""
    read: list[PlacedStep] = []
    for index, raw in enumerate(owner.items(key, names.MAX_STEPS)):
        pointer = below(owner.at(key), index)
        if not isinstance(raw, dict):
            reading.problems.add(pointer, f"A step has to be an object, not {kind(raw)}")
            continue
        before = read[-1].step.name if read else None
        step = _read_step(Fields(raw, pointer, reading.problems, STEP_KEYS, _ELSEWHERE), before, reading)
        if step is not None:
            read.append(PlacedStep(pointer, step, "needs" in raw))
    return tuple(read)


def _read_step(fields: Fields, before: str | None, reading: Reading) -> StepDefinition | None:
    fields.require("name", "type")
    name = fields.name("name", names.STEP_NAME, names.STEP_NAME_RULE)
    known = fields.choice("type", tuple(StepType))
    scope = StepScope(name, "foreach" in fields)
    needs = _read_needs(fields) if "needs" in fields else (before,) if before else ()
    condition = _read_condition(fields, reading, scope)
    foreach = _read_foreach(fields, reading, scope)
    # What is wrong in a step whose type is misspelt, or of which only its `config` tells what was meant, is said too.
    guess = known or suggest_one(fields.raw("type"), tuple(StepType)) or guess_type(fields.raw("config"))
    if guess is None:
        _read_common(fields, reading, scope)
        return StepDefinition(name, StepType.SLEEP, needs, {}) if name else None
    step_type = StepType(guess)
    step = StepDefinition(
        name=name or "",
        type=step_type,
        needs=needs,
        config=read_config(fields, step_type, reading, scope),
        condition=condition,
        foreach=foreach,
        max_parallel=_read_parallelism(fields, reading),
        timeout_s=_read_timeout(fields, step_type, reading),
        retry=_read_retry(fields, step_type, reading),
        env=_read_env(fields, step_type, reading, scope),
    )
    return step if name else None


def _read_common(fields: Fields, reading: Reading, scope: StepScope) -> None:
    """What is wrong whatever the type of the step is."""
    _read_parallelism(fields, reading)
    _read_retry(fields, StepType.CODE_EXECUTION, reading)
    _read_env(fields, StepType.CODE_EXECUTION, reading, scope)


def _read_needs(fields: Fields) -> tuple[str, ...]:
    needs: dict[str, None] = {}
    for index, name in enumerate(fields.items("needs", names.MAX_STEPS)):
        if isinstance(name, str) and name not in needs:
            needs[name] = None
        else:
            problem = "is named twice" if isinstance(name, str) else f"has to be the name of a step, not {kind(name)}"
            fields.problems.add(below(fields.at("needs"), index), problem)
    return tuple(needs)


def _read_condition(fields: Fields, reading: Reading, scope: StepScope) -> str | None:
    value = fields.raw("if")
    if "if" not in fields:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return reading.uses.add_expression(fields.at("if"), value, scope.condition())
    fields.refuse("if", f"has to be an expression or a boolean, not {kind(value)}")
    return None


def _read_foreach(fields: Fields, reading: Reading, scope: StepScope) -> Json:
    """The text of an expression without braces, or a list whose texts may hold expressions."""
    value = fields.raw("foreach")
    if "foreach" not in fields:
        return None
    if isinstance(value, str):
        return reading.uses.add_expression(fields.at("foreach"), value, scope.plain(per_item=False))
    if isinstance(value, list):
        items: Sequence[Json] = fields.items("foreach", names.MAX_ITEMS)
        reading.uses.add_value(fields.at("foreach"), list(items), scope.plain(per_item=False))
        return list(items)
    fields.refuse("foreach", f"has to be a list, or an expression whose value is one, not {kind(value)}")
    return None


def _read_parallelism(fields: Fields, reading: Reading) -> int | None:
    if "strategy" not in fields:
        return None
    if "foreach" not in fields:
        fields.refuse("strategy", "has a meaning only beside `foreach`")
    strategy = Fields(fields.raw("strategy"), fields.at("strategy"), reading.problems, ("max_parallel",))
    return strategy.whole("max_parallel", 1, names.MAX_PARALLEL)


def _read_timeout(fields: Fields, step_type: StepType, reading: Reading) -> float | None:
    works = step_type in names.WORKING_TYPES
    longest = names.LONGEST_WORK_S if works else names.LONGEST_WAIT_S
    timeout = fields.number("timeout", names.SHORTEST_TIMEOUT_S, longest)
    return reading.defaults.timeout_s if works and "timeout" not in fields else timeout


def _read_retry(fields: Fields, step_type: StepType, reading: Reading) -> RetryPolicy:
    if "retry" in fields and step_type not in names.RETRIED_TYPES:
        fields.refuse("retry", f"A step of type `{step_type}` is not tried again; leave `retry` out")
    base = reading.defaults.retry if step_type in names.WORKING_TYPES else None
    return read_retry(fields, reading, base) or RetryPolicy()


def _read_env(fields: Fields, step_type: StepType, reading: Reading, scope: StepScope) -> dict[str, Json]:
    if step_type is not StepType.CODE_EXECUTION:
        if "env" in fields:
            fields.refuse("env", f"A step of type `{step_type}` has no environment variables; leave `env` out")
        return {}
    return {**reading.defaults.env, **read_variables(fields, reading, scope.secret())}
