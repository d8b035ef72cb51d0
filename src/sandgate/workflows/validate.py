"""Checks a definition as a whole: names, needs, cycles, and that every expression looks only at what is there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sandgate.core.workflow import InputDefinition, InputType, Json, StepType
from sandgate.workflows import names
from sandgate.workflows.expressions import OPENING, ExpressionError, Path, Reference, Template, find_references
from sandgate.workflows.graph import Needs, find_ancestors, find_cycle
from sandgate.workflows.problems import Problems, below
from sandgate.workflows.steps import PlacedStep
from sandgate.workflows.suggestions import hint, shown, suggest
from sandgate.workflows.uses import Use, Uses

_CONTAINERS = frozenset({InputType.OBJECT, InputType.ARRAY})
_ABSENT = {
    "item": "`item` has a value only inside a step with `foreach`",
    "index": "`index` has a value only inside a step with `foreach`",
    "secrets": "Secrets may be used only in `env`, in `config.inputs` of code, and in url, headers and body of http",
    "steps": "Steps have no value yet here; `inputs` and `run` do",
    "env": "`env` has no value yet here; `inputs` and `run` do",
}


@dataclass(frozen=True, slots=True)
class StepLists:
    """The three lists of steps, in the order in which they run."""

    steps: Sequence[PlacedStep]
    on_error: Sequence[PlacedStep]
    final: Sequence[PlacedStep]

    def in_order(self) -> tuple[Sequence[PlacedStep], ...]:
        """All three."""
        return (self.steps, self.on_error, self.final)


def check_lists(lists: StepLists, problems: Problems) -> None:
    """Note names that are given twice, needs that lead nowhere, and cycles."""
    seen: dict[str, str] = {}
    for placed in (placed for group in lists.in_order() for placed in group):
        name = placed.step.name
        if name in seen:
            problems.add(below(placed.pointer, "name"), f"The step at {seen[name]} has this name already")
        seen.setdefault(name, placed.pointer)
    for group in lists.in_order():
        own = {placed.step.name for placed in group}
        for placed in group:
            _check_needs(placed, own, seen, problems)
        _check_cycle(group, problems)


def _check_needs(placed: PlacedStep, own: set[str], everywhere: Mapping[str, str], problems: Problems) -> None:
    if not placed.says_needs:
        return
    for index, name in enumerate(placed.step.needs):
        if name in own:
            continue
        pointer = below(placed.pointer, "needs", index)
        if name in everywhere:
            problem = f"The step {shown(name)} is in another list; `on_error` and `finally` wait for `steps` anyway"
            problems.add(pointer, problem)
        else:
            problems.add(pointer, f"There is no step {shown(name)}{hint(name, own)}")


def _check_cycle(group: Sequence[PlacedStep], problems: Problems) -> None:
    cycle = find_cycle(_needs(group))
    if cycle:
        placed = next(placed for placed in group if placed.step.name == cycle[0])
        pointer = below(placed.pointer, "needs") if placed.says_needs else placed.pointer
        problems.add(pointer, f"These steps wait for each other in a circle: {' → '.join(cycle)}")


def _needs(group: Iterable[PlacedStep]) -> Needs:
    needs: dict[str, Sequence[str]] = {}
    for placed in group:
        needs.setdefault(placed.step.name, placed.step.needs)
    return needs


class ReferenceCheck:
    """Says of every path in an expression whether it leads to something."""

    def __init__(
        self, lists: StepLists, inputs: Mapping[str, InputDefinition], env: Mapping[str, Json], problems: Problems
    ) -> None:
        self._inputs = inputs
        self._env = env
        self._secret_env = frozenset(name for name, value in env.items() if _uses_secrets(value))
        self._problems = problems
        self._visible = _visible_steps(lists)
        self._steps = [placed.step.name for group in lists.in_order() for placed in group]

    def check(self, uses: Uses) -> None:
        """Note every path of every expression that leads nowhere."""
        for use in uses:
            for reference in find_references(use.expression):
                problem = self._find_problem(use, reference)
                if problem:
                    self._problems.add(use.pointer, f"{problem} (at character {reference.position + 1})")

    def _find_problem(self, use: Use, reference: Reference) -> str | None:
        root = str(reference.path[0])
        if root not in use.scope.roots:
            return _ABSENT[root]
        match root:
            case "inputs":
                return self._find_input_problem(reference.path)
            case "steps":
                return self._find_step_problem(use, reference.path)
            case "env":
                return self._find_env_problem(use, reference.path)
            case "run":
                return _find_run_problem(reference.path)
            case "secrets":
                return _find_secret_problem(reference.path)
        return None

    def _find_input_problem(self, path: Path) -> str | None:
        if len(path) == 1:
            return None
        name = str(path[1])
        if name not in self._inputs:
            return f"There is no input {shown(name)}; {suggest(name, self._inputs) or 'define it in `inputs`'}"
        if len(path) > 2 and self._inputs[name].type not in _CONTAINERS:
            return f"The input {shown(name)} is of type {self._inputs[name].type} and has no members"
        return None

    def _find_step_problem(self, use: Use, path: Path) -> str | None:
        if len(path) == 1 or not isinstance(path[1], str):
            return "Name the step, as in steps.NAME.outputs"
        name = path[1]
        if name not in self._steps:
            return f"There is no step {shown(name)}{hint(name, self._steps)}"
        visible = self._visible.get(use.scope.step or "")
        if visible is not None and name not in visible:
            return f"This step does not wait for {shown(name)}; name it in `needs`"
        if len(path) > 2 and path[2] not in names.STEP_FIELDS:
            return f"A step has no {shown(str(path[2]))}{hint(str(path[2]), names.STEP_FIELDS)}"
        return None

    def _find_env_problem(self, use: Use, path: Path) -> str | None:
        if len(path) == 1:
            return "Name one variable, as in env.NAME"
        if len(path) != 2 or path[1] not in self._env:
            name = str(path[1])
            return f"There is no variable {shown(name)} in the definition's `env`{hint(name, self._env)}"
        if path[1] in self._secret_env and "secrets" not in use.scope.roots:
            return _ABSENT["secrets"] + f", and env.{path[1]} holds one"
        return None


def _find_run_problem(path: Path) -> str | None:
    if len(path) == 2 and path[1] in names.RUN_FIELDS:
        return None
    if len(path) == 1:
        return f"Name what of the run, as in run.{names.RUN_FIELDS[0]}"
    name = str(path[1])
    return f"The run has no {shown(name)}{hint(name, names.RUN_FIELDS)}"


def _find_secret_problem(path: Path) -> str | None:
    return None if len(path) == 2 and isinstance(path[1], str) else "Name one secret, as in secrets.NAME"


def _visible_steps(lists: StepLists) -> dict[str, frozenset[str]]:
    """What each step may look at: all that it waits for. Empty for lists with a cycle, where nobody can tell."""
    visible: dict[str, frozenset[str]] = {}
    before: frozenset[str] = frozenset()
    for group in lists.in_order():
        needs = _needs(group)
        if not find_cycle(needs):
            visible.update({name: found | before for name, found in find_ancestors(needs).items()})
        before |= needs.keys()
    return visible


def _uses_secrets(value: Json) -> bool:
    if not isinstance(value, str) or OPENING not in value:
        return False
    try:
        expressions = [embedded.expression for embedded in Template.parse(value).expressions]
    except ExpressionError:
        return False
    return any(found.path[0] == "secrets" for expression in expressions for found in find_references(expression))


def check_workspace(lists: StepLists, problems: Problems) -> None:
    """Note steps of a shared workspace that ask for different templates: it is made from one."""
    first: str | None = None
    for placed in (placed for group in lists.in_order() for placed in group):
        template = placed.step.config.get("template")
        if placed.step.type is not StepType.CODE_EXECUTION or not isinstance(template, str):
            continue
        first = first or template
        if template != first:
            problem = f"The run shares one workspace, which is made from {shown(first)}; all steps need this template"
            problems.add(placed.pointer, problem)
