"""Refusals for what is not there, or somebody else's: the two look alike on purpose."""

from sandgate.core.errors import ArtifactNotFound, RunNotFound, SecretNotFound, StepNotFound, WorkflowNotFound


def workflow_not_found(workflow_id: str) -> WorkflowNotFound:
    """The refusal for a workflow that is not there, or somebody else's."""
    return WorkflowNotFound(f"You have no workflow {workflow_id}; GET /api/v1/orchestrator/workflows lists yours")


def run_not_found(run_id: str) -> RunNotFound:
    """The refusal for a run that is not there, or somebody else's."""
    return RunNotFound(f"You have no run {run_id}; GET /api/v1/orchestrator/runs lists yours")


def step_not_found(run_id: str, step: str, item: int | None) -> StepNotFound:
    """The refusal for a step, or an item of one, that a run does not have."""
    wanted = f"step {step[:80]}" if item is None else f"item {item} of a step {step[:80]}"
    return StepNotFound(f"Run {run_id} has no {wanted}; GET …/runs/{{run_id}} lists them")


def secret_not_found(name: str) -> SecretNotFound:
    """The refusal for a secret that is not there."""
    return SecretNotFound(f"You have no secret {name}; GET /api/v1/orchestrator/secrets lists yours")


def artifact_not_found(artifact_id: str) -> ArtifactNotFound:
    """The refusal for an artifact that is not there."""
    return ArtifactNotFound(f"The run has no artifact {artifact_id}; GET …/runs/{{run_id}}/artifacts lists them")
