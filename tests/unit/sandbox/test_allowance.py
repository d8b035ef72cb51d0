"""What the launcher may hold."""

import resource

import pytest

from sandgate.sandbox.launcher.allowance import RESERVED, Allowance


def test_the_reserve_is_never_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is not counted, and what is given back can be had again."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (RESERVED + 10, 0))
    allowance = Allowance()
    allowance.take(10)
    with pytest.raises(OSError, match="holds 10 descriptors"):
        allowance.take(1)
    allowance.give_back(3)
    allowance.take(3)
    assert allowance.held == 10
