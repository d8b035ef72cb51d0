"""Which limits an environment gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.errors import LimitTooHigh
from sandgate.core.limits import MIB, AskedLimits, Ceilings, Limits
from sandgate.environments.granting import grant

CEILINGS = Ceilings(memory_bytes=1024 * MIB, cpu_millis=2000, processes=100, disk_bytes=300 * MIB)


def test_what_is_not_asked_for_is_the_templates() -> None:
    """Also those limits that cannot be asked for."""
    template = Limits(memory_bytes=64 * MIB, inodes=7, open_files=99)
    assert grant(template, AskedLimits(), CEILINGS) == template
    granted = grant(template, AskedLimits(memory_bytes=65 * MIB, cpu_millis=2000), CEILINGS)
    assert granted == Limits(memory_bytes=65 * MIB, cpu_millis=2000, inodes=7, open_files=99)


def test_what_a_template_gives_is_never_too_much() -> None:
    """A ceiling below it does not make it unusable."""
    template = Limits(processes=500)
    assert grant(template, AskedLimits(processes=500), CEILINGS).processes == 500
    with pytest.raises(LimitTooHigh) as refused:
        grant(template, AskedLimits(processes=501, disk_bytes=301 * MIB), Ceilings(1, 1, 100, 1, scope="user"))
    assert refused.value.details == {
        "limits": {"processes": {"asked": 501, "ceiling": 500}, "disk_mb": {"asked": 301, "ceiling": 256}},
        "scope": "user",
    }


positive = st.none() | st.integers(1, 2**40)


@given(st.builds(AskedLimits, positive, positive, positive, positive))
def test_nothing_above_a_ceiling_is_granted(wanted: AskedLimits) -> None:
    """Whatever is asked for: it is granted as it is, or refused."""
    template = Limits()
    over = [
        name for name, value in wanted.given().items() if value > max(getattr(template, name), getattr(CEILINGS, name))
    ]
    if over:
        with pytest.raises(LimitTooHigh) as refused:
            grant(template, wanted, CEILINGS)
        assert len(refused.value.details["limits"]) == len(over)
    else:
        granted = grant(template, wanted, CEILINGS)
        assert {name: getattr(granted, name) for name in wanted.given()} == wanted.given()
