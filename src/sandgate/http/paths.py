"""Identifiers in paths, from text to types. What cannot be an identifier is not found, without asking anybody."""

import re
from typing import Annotated

from sandgate.core.artifact import ArtifactId
from sandgate.core.errors import ApiKeyNotFound, ExecutionNotFound, ProcessNotFound, SessionNotFound, UserNotFound
from sandgate.core.ids import (
    ApiKeyId,
    EnvironmentId,
    ExecutionId,
    ProcessId,
    RunId,
    ScheduleId,
    SessionId,
    SnapshotId,
    UserId,
    VolumeId,
    WebhookId,
    WorkflowId,
)
from sandgate.environments.access import environment_not_found
from sandgate.environments.snapshots import snapshot_not_found
from sandgate.environments.volumes import volume_not_found
from sandgate.http.bodies import refuse_field
from sandgate.http.marks import ParsedBy, Path
from sandgate.workflows.refusals import artifact_not_found, run_not_found, secret_not_found, workflow_not_found
from sandgate.workflows.schedules import schedule_not_found
from sandgate.workflows.webhooks import hook_not_found, webhook_not_found

_SECRET_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_TAIL = re.compile(r"[0-9a-z]{12,64}")
_HOOK_TOKEN = re.compile(r"whk_[0-9A-Za-z_-]{43}")


def _has_form(prefix: str, text: str) -> bool:
    return text.startswith(prefix) and _TAIL.fullmatch(text, len(prefix)) is not None


def parse_environment_id(text: str) -> EnvironmentId:
    """Raises ``EnvironmentNotFound``."""
    if not _has_form("env-", text):
        raise environment_not_found(EnvironmentId(_shown(text)))
    return EnvironmentId(text)


def parse_execution_id(text: str) -> ExecutionId:
    """Raises ``ExecutionNotFound``."""
    if not _has_form("exec-", text):
        raise ExecutionNotFound(f"There is no execution {_shown(text)}")
    return ExecutionId(text)


def parse_session_id(text: str) -> SessionId:
    """Raises ``SessionNotFound``."""
    if not _has_form("session-", text):
        raise SessionNotFound(f"There is no session {_shown(text)}")
    return SessionId(text)


def parse_process_id(text: str) -> ProcessId:
    """Raises ``ProcessNotFound``."""
    if not _has_form("proc-", text):
        raise ProcessNotFound(f"There is no process {_shown(text)}")
    return ProcessId(text)


def parse_snapshot_id(text: str) -> SnapshotId:
    """Raises ``SnapshotNotFound``."""
    if not _has_form("snap-", text):
        raise snapshot_not_found(SnapshotId(_shown(text)))
    return SnapshotId(text)


def parse_volume_id(text: str) -> VolumeId:
    """Raises ``VolumeNotFound``."""
    if not _has_form("vol-", text):
        raise volume_not_found(_shown(text))
    return VolumeId(text)


def parse_user_id(text: str) -> UserId:
    """Raises ``UserNotFound``."""
    if not _has_form("user-", text):
        raise UserNotFound(f"There is no user {_shown(text)}")
    return UserId(text)


def parse_api_key_id(text: str) -> ApiKeyId:
    """Raises ``ApiKeyNotFound``."""
    if not _has_form("key-", text):
        raise ApiKeyNotFound(f"You have no API key {_shown(text)}")
    return ApiKeyId(text)


def parse_workflow_id(text: str) -> WorkflowId:
    """Raises ``WorkflowNotFound``."""
    if not _has_form("workflow-", text):
        raise workflow_not_found(_shown(text))
    return WorkflowId(text)


def parse_run_id(text: str) -> RunId:
    """Raises ``RunNotFound``."""
    if not _has_form("run-", text):
        raise run_not_found(_shown(text))
    return RunId(text)


def parse_secret_name(text: str) -> str:
    """Raises ``SecretNotFound``."""
    if not _SECRET_NAME.fullmatch(text):
        raise secret_not_found(_shown(text))
    return text


def parse_new_secret_name(text: str) -> str:
    """Raises ``InvalidRequest``."""
    if not _SECRET_NAME.fullmatch(text):
        refuse_field("secret_name", "has to be 1 to 64 of A to Z, 0 to 9 and _, and not to start with a digit")
    return text


def parse_artifact_id(text: str) -> ArtifactId:
    """Raises ``ArtifactNotFound``."""
    if not _has_form("artifact-", text):
        raise artifact_not_found(_shown(text))
    return ArtifactId(text)


def parse_schedule_id(text: str) -> ScheduleId:
    """Raises ``ScheduleNotFound``."""
    if not _has_form("schedule-", text):
        raise schedule_not_found(_shown(text))
    return ScheduleId(text)


def parse_webhook_id(text: str) -> WebhookId:
    """Raises ``WebhookNotFound``."""
    if not _has_form("webhook-", text):
        raise webhook_not_found(_shown(text))
    return WebhookId(text)


def parse_hook_token(text: str) -> str:
    """Raises ``HookNotFound``."""
    if not _HOOK_TOKEN.fullmatch(text):
        raise hook_not_found()
    return text


def _shown(text: str) -> str:
    return text[:80]


EnvironmentPath = Annotated[
    EnvironmentId, Path(examples=["env-06evrhxq8g000wmabyzsqnd3wf"]), ParsedBy(parse_environment_id)
]
ExecutionPath = Annotated[ExecutionId, Path(examples=["exec-06evrhxr2g000r2s7n0cymq3kd"]), ParsedBy(parse_execution_id)]
SessionPath = Annotated[SessionId, Path(examples=["session-06evrhy3k000t5v8c0p9x2m4qj"]), ParsedBy(parse_session_id)]
ProcessPath = Annotated[ProcessId, Path(examples=["proc-06evrhxr2g000r2s7n0cymq3kd"]), ParsedBy(parse_process_id)]
SnapshotPath = Annotated[SnapshotId, Path(examples=["snap-06evrhxq8g000wmabyzsqnd3wf"]), ParsedBy(parse_snapshot_id)]
VolumePath = Annotated[VolumeId, Path(examples=["vol-06evrhy7m0004k2x9c5p8w3n1d"]), ParsedBy(parse_volume_id)]
UserPath = Annotated[UserId, Path(examples=["user-06evrhwp4g000e8v0zrc4v1m6h"]), ParsedBy(parse_user_id)]
ApiKeyPath = Annotated[ApiKeyId, Path(examples=["key-06evrhwzr0000c9kq9nb4dj8yt"]), ParsedBy(parse_api_key_id)]
WorkflowPath = Annotated[
    WorkflowId, Path(examples=["workflow-06evrhxq8g000wmabyzsqnd3wf"]), ParsedBy(parse_workflow_id)
]
RunPath = Annotated[RunId, Path(examples=["run-06evrhxr2g000r2s7n0cymq3kd"]), ParsedBy(parse_run_id)]
SecretPath = Annotated[str, Path(examples=["API_TOKEN"]), ParsedBy(parse_secret_name)]
NewSecretPath = Annotated[
    str, Path(examples=["API_TOKEN"], pattern="^[A-Z_][A-Z0-9_]{0,63}$"), ParsedBy(parse_new_secret_name)
]
ArtifactPath = Annotated[
    ArtifactId, Path(examples=["artifact-06evrhxr2g000r2s7n0cymq3kd"]), ParsedBy(parse_artifact_id)
]
SchedulePath = Annotated[
    ScheduleId, Path(examples=["schedule-06evrhxq8g000wmabyzsqnd3wf"]), ParsedBy(parse_schedule_id)
]
WebhookPath = Annotated[WebhookId, Path(examples=["webhook-06evrhxq8g000wmabyzsqnd3wf"]), ParsedBy(parse_webhook_id)]
HookToken = Annotated[str, Path(examples=["whk_…"]), ParsedBy(parse_hook_token)]
StepPath = Annotated[str, Path(examples=["approve"])]
TemplatePath = Annotated[str, Path(examples=["python-3.9"])]
