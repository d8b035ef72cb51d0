"""A short run of the fuzzer; ``scripts/fuzz`` is the long one."""

import pytest

from tests.e2e.fuzz import LONGEST_S, fuzzing

# Two requests of each kind to each operation; on a busy machine as many as there is time for.
CASES, SECONDS = 268, 15.0


@pytest.mark.filterwarnings("ignore")
def test_no_request_breaks_the_server_or_the_description() -> None:
    """No 5xx, no answer that is not described, none that takes long."""
    with fuzzing(20261128, SECONDS) as fuzzer:
        fuzzer.run(CASES)
    assert not fuzzer.report.problems, "\n\n".join(fuzzer.report.problems)
    assert fuzzer.report.slowest_s < LONGEST_S
    assert len(fuzzer.report.sent) >= 10
