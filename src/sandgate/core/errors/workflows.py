"""Refusals about workflows and their runs."""

from collections.abc import Sequence

from sandgate.core.errors.base import Conflict, NotFound, RequestRefused, TooManyRequests


class InvalidDefinition(RequestRefused):
    """A workflow's definition is wrong; ``details`` is ``{"problems": [{"pointer", "problem"}], "fields": […]}``.

    ``pointer`` is a JSON pointer (Source: RFC 6901) into the definition, ``""`` for all of it; ``fields`` says the same
    in the form of ``VALIDATION_FAILED``.
    """

    code = "WORKFLOW_INVALID"

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        first = "; ".join(f"{pointer or 'the document'}: {problem}" for pointer, problem in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        details = {
            "problems": [{"pointer": pointer, "problem": problem} for pointer, problem in problems],
            "fields": [{"field": pointer, "problem": problem} for pointer, problem in problems],
        }
        super().__init__(f"The definition is not valid: {first}{more}", details)
        self.problems = tuple(problems)


class ExpressionError(RequestRefused):
    """An expression of a workflow cannot be read or has no value; ``details`` has ``position``, counted from 0."""

    code = "EXPRESSION_INVALID"

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} (at character {position + 1})", {"position": position})
        self.problem = problem
        self.position = position


class WorkflowNotFound(NotFound):
    """No workflow of the caller has this id."""

    code = "WORKFLOW_NOT_FOUND"


class RunNotFound(NotFound):
    """No run of the caller has this id, or the workflow has not been started yet."""

    code = "RUN_NOT_FOUND"


class StepNotFound(NotFound):
    """The run has no step of this name, or the step no such item, or not yet."""

    code = "STEP_NOT_FOUND"


class TooManyWorkflows(TooManyRequests):
    """The user has as many workflows as the setting allows; ``details`` has ``limit``."""

    code = "TOO_MANY_WORKFLOWS"


class WorkflowRunning(Conflict):
    """Runs of the workflow have not ended; ``details`` has ``run_ids``, some of them."""

    code = "WORKFLOW_RUNNING"


class WorkflowChanged(Conflict):
    """Somebody else has just made another version of the workflow."""

    code = "WORKFLOW_CHANGED"


class RunEnded(Conflict):
    """The run has already ended; ``details`` has ``status``."""

    code = "RUN_ENDED"


class RunLive(Conflict):
    """The run has not ended; ``details`` has ``status``."""

    code = "RUN_LIVE"


class RunSucceeded(Conflict):
    """The run succeeded, so that there is nothing to retry."""

    code = "RUN_SUCCEEDED"


class StepNotWaiting(Conflict):
    """The step does not wait for anybody's approval; ``details`` has ``status``, None when there is no such step,
    and ``items``, how many there are to decide about one by one.
    """

    code = "STEP_NOT_WAITING"


class TooManyRuns(TooManyRequests):
    """The server works on as many runs as the setting allows."""

    code = "TOO_MANY_RUNS"
