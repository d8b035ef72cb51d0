"""A hundred environments made, used and deleted leave nothing; ``scripts/chaos wear`` makes as many as one likes."""

import pytest

from tests.crash.wear import wear

pytestmark = pytest.mark.needs_root_namespaces


def test_environments_leave_nothing_behind() -> None:
    """No descriptor, thread, process, mount, control group or file; of memory so few would tell nothing."""
    worn = wear(120, lambda _text: None, looks=6)
    assert worn.made >= 120
    kept = {name: values for name, values in worn.seen.items() if not name.startswith(("memory", "database", "rows"))}
    assert len(kept) > 6
    # What each of them leaves is there at every later look; what one look meets on its way is not.
    grown = {name: min(values[-3:]) - max(values[1:3]) for name, values in kept.items()}
    assert {name: more for name, more in grown.items() if more > 0} == {}
