"""What all parts of the parser share while they read one definition."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandgate.core.workflow import Json, RetryPolicy
from sandgate.workflows.problems import Problems
from sandgate.workflows.uses import Scope, Uses

FindProblem = Callable[[str], str | None]
"""What is wrong with a word; None: nothing."""

ANYWHERE = frozenset({"inputs", "run"})
"""What has a value before any step has run."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for steps that do not say it themselves; ``env`` is the definition's and the defaults' together."""

    template: str | None = None
    timeout_s: float | None = None
    retry: RetryPolicy | None = None
    env: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """One definition that is being read. ``templates`` says what is wrong with a name; None leaves them unchecked."""

    problems: Problems
    uses: Uses
    templates: FindProblem | None = None
    defaults: Defaults = Defaults()


@dataclass(frozen=True, slots=True)
class StepScope:
    """What the expressions of one step may look at."""

    step: str | None
    in_foreach: bool

    def condition(self) -> Scope:
        """Of ``if``, which is asked once, before ``foreach``."""
        return Scope(ANYWHERE | {"steps", "env"}, self.step, status=True)

    def plain(self, *, per_item: bool = True) -> Scope:
        """Of what is kept in the clear."""
        items = {"item", "index"} if self.in_foreach and per_item else set[str]()
        return Scope(ANYWHERE | {"steps", "env"} | items, self.step)

    def secret(self) -> Scope:
        """Of what is kept nowhere."""
        return Scope(self.plain().roots | {"secrets"}, self.step)
