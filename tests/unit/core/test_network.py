"""Rules of what may be reached."""

import pytest

from sandgate.core.network import NetworkRules

_RULES = NetworkRules.parse(
    ["Example.org", "*.pypi.example:443", "192.0.2.1:8080", "[2001:db8::1]:80", "example.org"],
)


def test_rules_are_told_in_one_form() -> None:
    """Each once."""
    assert _RULES.texts() == ["example.org", "*.pypi.example:443", "192.0.2.1:8080", "[2001:db8::1]:80"]
    assert NetworkRules.from_json(_RULES.to_json()) == _RULES


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.org", 80), ("example.org", 443), ("a.pypi.example", 443), ("a.b.pypi.example", 443),
        ("192.0.2.1", 8080), ("2001:db8::1", 80),
    ],
)  # fmt: skip
def test_held(host: str, port: int) -> None:
    """At the port that is named, and otherwise at the usual ones."""
    assert _RULES.hold(host, port)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.org", 8080), ("a.example.org", 443), ("pypi.example", 443), ("xpypi.example", 443),
        ("a.pypi.example", 80), ("192.0.2.1", 80), ("192.0.2.2", 8080), ("example.org.evil.example", 443),
    ],
)  # fmt: skip
def test_not_held(host: str, port: int) -> None:
    """A star stands for what is below a name, not for the name, and not for the end of another one."""
    assert not _RULES.hold(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "*", "*.", "**.example", "a.*.example", "*.192.0.2.1", "http://example.org", "example.org/path",
        "example.org:0", "example.org:65536", "example.org:", "user@example.org", "::1", "127.1", "x" * 400,
    ],
)  # fmt: skip
def test_no_rule(text: str) -> None:
    """It is refused with a word about which one it is."""
    with pytest.raises(ValueError, match=r"is|has"):
        NetworkRules.parse(["example.org", text])
