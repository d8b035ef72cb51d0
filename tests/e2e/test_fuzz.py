"""A short run of the fuzzer; ``scripts/fuzz`` is the long one."""

import os

import pytest

from tests.e2e.fuzz import LONGEST_S, fuzzing

# Two requests of each kind to each operation; on a busy machine as many as there is time for.
CASES, SECONDS = 268, 60.0


@pytest.mark.filterwarnings("ignore")
def test_no_request_breaks_the_server_or_the_description() -> None:
    """No 5xx, no answer that is not described, none that takes long."""
    with fuzzing(20261128, SECONDS) as fuzzer:
        fuzzer.run(CASES)
        if os.geteuid() == 0:
            # Nobody else has all that there may be.
            assert fuzzer.unknown() == set()
    assert not fuzzer.report.problems, "\n\n".join(fuzzer.report.problems)
    assert fuzzer.report.slowest_s < LONGEST_S
    # To make up a request takes a processor, of which there may be little; the seed says which come first.
    assert len(fuzzer.report.sent) >= (5 if fuzzer.report.is_cut_short else 120)
