"""The page of the settings is made from the table, and is current."""

from pathlib import Path

import pytest

from sandgate.config import docs
from sandgate.config.docs import render, rows
from sandgate.config.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    """What is committed is what the table says."""
    assert PAGE.read_text(encoding="utf-8") == render(), "run scripts/check --write-docs"


def test_every_setting_has_a_row_with_its_help() -> None:
    """Name, variable, type and a sentence."""
    listed = list(rows())
    assert [row.name for row in listed] == list(Settings.model_fields)
    for row in listed:
        assert row.variable == f"SANDGATE_{row.name.upper()}"
        assert row.help_text.endswith(".")
        assert row.type_name not in ("", "any")


# What one user may have on all servers that share a database together.
TOGETHER = {
    "max_kept_output_bytes_per_user", "max_environments_per_user", "max_memory_bytes_per_user",
    "max_executions_per_day_per_user", "max_volumes_per_user", "max_volume_bytes_per_user", "max_snapshots_per_user",
    "max_snapshot_bytes_per_user", "max_workflows_per_user", "max_kept_run_bytes_per_user", "max_triggers_per_user",
    "max_secrets_per_user", "max_kept_artifact_bytes_per_user", "max_templates_per_user",
    "max_template_builds_per_user",
}  # fmt: skip


def test_what_each_server_counts_for_itself_is_listed() -> None:
    """All that bounds a user is, or is counted on all servers together."""
    listed = {row.name for row in rows() if row.is_of_server}
    assert {row.name for row in rows() if row.name.endswith("_per_user")} - listed == TOGETHER
    assert {"requests_per_s", "login_attempts", "webhook_rate_per_minute", "max_environments", "max_runs"} <= listed
    _, _, section = render().partition("## Several servers\n")
    assert [line[3:-1] for line in section.splitlines() if line.startswith("- `")] == [
        row.name for row in rows() if row.is_of_server
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("port", "| `port` | `SANDGATE_PORT` | integer |  | `8080` | ≥ 0, ≤ 65535 | Port"),
        ("log_format", "| `log_format` | `SANDGATE_LOG_FORMAT` | `console` or `json` |  | `console` |  | How"),
        ("admin_password", "| `admin_password` | `SANDGATE_ADMIN_PASSWORD` | secret |  |  |  | Password"),
        ("head_timeout_s", "| `head_timeout_s` | `SANDGATE_HEAD_TIMEOUT_S` | number | s | `10.0` | > 0 | How"),
        ("allow_weak_isolation", "| boolean |  | `false` |  |"),
    ],
)
def test_rows_say_type_unit_default_and_range(name: str, line: str) -> None:
    """One of each kind."""
    (row,) = [text for text in render().splitlines() if text.startswith(f"| `{name}` ")]
    assert line in row


def test_the_page_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes it, it is the same."""
    page = render()
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert render() == page


def test_retired_settings_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to use instead."""
    monkeypatch.setattr(docs, "RETIRED", {"old_port": "use | `SANDGATE_PORT`"})
    assert render().endswith("| `SANDGATE_OLD_PORT` | use \\| `SANDGATE_PORT` |\n")
