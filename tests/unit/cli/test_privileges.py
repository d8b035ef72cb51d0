"""Whom a server that root started may become."""

import os
import subprocess
import sys

import pytest

from sandgate.cli.privileges import can_become

ASK = "from sandgate.cli.privileges import can_become; print(can_become({0}, {0}))"
SOMEBODY = 1_900_000_000


def test_everybody_may_stay_who_they_are() -> None:
    """The answer is about somebody else only for root; groups apart, which an ordinary user cannot give up."""
    assert can_become(os.geteuid(), os.getegid()) is (os.geteuid() == 0)


@pytest.mark.needs_root_namespaces
def test_root_may_become_anybody_but_not_in_a_container_of_one_user() -> None:
    """It is tried, not guessed: there the ids of others do not exist."""
    ask = [sys.executable, "-c", ASK.format(SOMEBODY)]
    outside = subprocess.run(ask, capture_output=True, text=True, check=True)
    inside = subprocess.run(["unshare", "--user", "--map-root-user", *ask], capture_output=True, text=True, check=True)
    assert (outside.stdout, inside.stdout) == ("True\n", "False\n")
    assert inside.stderr == ""
