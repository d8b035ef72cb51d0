"""How a container's file system is laid out."""

import pytest

from sandgate_agent.contained import ContainedPlan


def test_files_of_a_container_are_never_without_a_bound() -> None:
    """A size of 0 would be none to the kernel."""
    with pytest.raises(ValueError, match="no files of its own"):
        ContainedPlan({"lowers": [], "links": {}}).environment(None, 100)
