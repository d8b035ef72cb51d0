"""What docs/sdk.md shows works, as it stands there."""

import re
from pathlib import Path

import httpx
import pytest

from bench.sandgate_server import Server
from sandgate.sdk import Client
from tests.e2e.test_cli import url

pytestmark = [pytest.mark.needs_root_namespaces]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sdk.md"


def test_the_example_can_be_followed(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a session, a stream, a port and a link, which ends with its environment."""
    (example,) = re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.setenv("SANDGATE_URL", url(server))
    monkeypatch.setenv("SANDGATE_API_KEY", server.token)
    exec(compile(example, str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "completed [{'text/plain': '6'}]"
    assert [line.split()[0] for line in lines[1:-2]].count("finished") == 1
    assert lines[-2] == "b'1 2 3'"
    assert httpx.get(lines[-1], trust_env=False, timeout=60).status_code == 404


def test_every_call_is_named() -> None:
    """And no other."""
    _example, _title, table = PAGE.read_text().partition("## All calls")
    named = set(re.findall(r"`(\w+)`", table)) - {"Mount"}
    assert named == {name for name in dir(Client) if not name.startswith("_")}
