"""Refusals for what is not there, or somebody else's: the two look alike on purpose."""

from sandgate.core.errors import ArtifactNotFound, RunNotFound, SecretNotFound, WorkflowNotFound


def workflow_not_found(workflow_id: str) -> WorkflowNotFound:
    """The refusal for a workflow that is not there, or somebody else's."""
    return WorkflowNotFound(f"You have no workflow {workflow_id}; GET /api/v1/orchestrator/workflows lists yours")


def run_not_found(run_id: str) -> RunNotFound:
    """The refusal for a run that is not there, or somebody else's."""
    return RunNotFound(f"You have no run {run_id}; GET /api/v1/orchestrator/runs lists yours")


def secret_not_found(name: str) -> SecretNotFound:
    """The refusal for a secret that is not there."""
    return SecretNotFound(f"You have no secret {name}; GET /api/v1/orchestrator/secrets lists yours")


def artifact_not_found(artifact_id: str) -> ArtifactNotFound:
    """The refusal for an artifact that is not there."""
    return ArtifactNotFound(f"The run has no artifact {artifact_id}; GET …/runs/{{run_id}}/artifacts lists them")
