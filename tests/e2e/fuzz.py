"""Requests made from the description of the API, valid and not, to a real server; each answer held against it.

``scripts/fuzz [--cases N] [--seed S] [--seconds T] [--operation NAME]``: no answer is a 5xx, none is missing in the
description or differs from it, none takes long, and the server is well afterwards. The same seed makes the same
requests, but for the ids of what they are about.
"""

import argparse
import itertools
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bench.sandgate_server import Server
from tests.e2e.fuzz_things import Things

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Nothing may take longer, however busy the machine is.
LONGEST_S = 20.0
SETTINGS = {
    "SANDGATE_STREAM_LIFETIME_S": "0.2",
    "SANDGATE_DEFAULT_EXECUTION_TIMEOUT_S": "2",
    "SANDGATE_WEBHOOK_RATE_PER_MINUTE": "100000",
    "SANDGATE_MAX_ENVIRONMENTS": "60",
    "SANDGATE_MAX_RUNS": "100",
    "SANDGATE_SPARE_SANDBOXES": "1",
    "SANDGATE_MOST_SPARE_SANDBOXES": "2",
    "SANDGATE_MAX_TRIGGERS_PER_USER": "100000",
}
# How many requests are about the same things, which some of them change or take away.
_FRESH_EVERY = 60
_LONGEST_WAIT_S = 1
# No answer, or one that ends in the middle.
_UNANSWERED = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)
# Clients take these out of a path, and ask for another one.
_NOWHERE = frozenset({"", ".", ".."})


@dataclass
class Report:
    """What was sent, and what was wrong with the answers; cut short when the time was over before all was sent."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    is_cut_short: bool = False


class Fuzzer:
    """Sends requests to one server until the time is over."""

    def __init__(self, server: Server, seed: int, seconds: float) -> None:
        self._address = f"http://127.0.0.1:{server.port}"
        self._seed = seed
        self._ends_at = time.monotonic() + seconds
        self._session = requests.Session()
        self._things = Things(server, self._session)
        self._random = random.Random(seed)
        self._until_fresh = 0
        self.report = Report()
        # Made when it is asked for the first time.
        document = self._session.get(f"{self._address}/openapi.json", timeout=6 * LONGEST_S).json()
        self._schema = schemathesis.openapi.from_dict(document)

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def operations(self) -> list[Any]:
        """All of the document, in an order of the seed's."""
        results: list[Any] = list(self._schema.get_all_operations())
        found = [result.ok() for result in results]
        self._random.shuffle(found)
        return found

    def unknown(self) -> set[str]:
        """What paths name and nothing is there of, so that no request would be about anything."""
        parameters = (each for operation in self.operations() for each in operation.path_parameters)
        return {str(each.name) for each in parameters} - self._things.known.keys()

    def run(self, cases: int, only: str | None = None, turn: int = 0) -> None:
        """Make up so many requests, as many of each operation, half of them meant to be wrong; send what can be sent.

        Each ``turn`` makes up others.
        """
        operations = [each for each in self.operations() if only in (None, each.definition.raw.get("operationId"))]
        each = max(1, math.ceil(cases / max(1, len(operations)) / 2))
        for operation in operations:
            if time.monotonic() >= self._ends_at:
                self.report.is_cut_short = True
                return
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                self._try(operation, mode, each, turn)

    def run_until(self, cases: int, only: str | None = None) -> None:
        """Send at least so many requests, unless the time is over or there are no others to send."""
        for turn in itertools.count():
            before = self.report.sent.total()
            self.run(cases - before, only, turn)
            if self.report.is_cut_short or not before < self.report.sent.total() < cases:
                return

    def _try(self, operation: Any, mode: GenerationMode, count: int, turn: int) -> None:
        name = operation.label

        # Nothing is shrunk: the first request that is answered wrongly is shown as it was.
        @seeded(f"{self._seed} {name} {mode}{f' {turn}' if turn else ''}")
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            if self._until_fresh <= 0:
                self._things.renew()
                self._until_fresh = _FRESH_EVERY
            self._until_fresh -= 1
            if time.monotonic() < self._ends_at and len(self.report.problems) < 20:
                self._ask(case, name)

        try:
            ask()
        except schemathesis.errors.InvalidSchema as error:
            self.report.problems.append(f"{name}: {error}")
        except Exception as error:
            # Hypothesis says so when there is nothing that an operation would take as wrong.
            if type(error).__name__ not in ("Unsatisfiable", "UnsatisfiedAssumption"):
                raise

    def _ask(self, case: Case[Any], name: str) -> None:
        self._fill_in(case)
        if not _NOWHERE.isdisjoint(map(str, (case.path_parameters or {}).values())):
            return
        credential = self._things.credential(case, self._random)
        started = time.monotonic()
        try:
            answer = case.call(
                base_url=self._address,
                session=self._session,
                headers=credential,
                timeout=LONGEST_S,
                allow_redirects=False,
            )
        except _UNANSWERED as error:
            self.report.problems.append(f"{name}: no answer to {case.as_curl_command()}: {error}")
            return
        except (ValueError, UnicodeError, requests.RequestException):
            # What no client can send.
            return
        self.report.sent[name] += 1
        self.report.statuses[answer.status_code] += 1
        self.report.slowest_s = max(self.report.slowest_s, time.monotonic() - started)
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as problem:
            self.report.problems.append(f"{name}: {problem}\n{answer.status_code} {answer.text[:500]}")
        if answer.status_code < 300 and case.method.upper() == "DELETE":
            self._until_fresh = 0
        if answer.status_code == 401 and credential:
            self._things.log_in()

    def _fill_in(self, case: Case[Any]) -> None:
        """Mostly ask about what is there, and never wait for long."""
        if case.path_parameters:
            known: Mapping[str, Any] = self._things.known
            for name in case.path_parameters:
                if name in known and self._random.random() < 0.7:
                    case.path_parameters[name] = known[name]
        wait = (case.query or {}).get("wait")
        if isinstance(wait, int | float) and wait > _LONGEST_WAIT_S:
            case.query["wait"] = _LONGEST_WAIT_S
        if isinstance(case.body, dict):
            if case.path.endswith("/wait"):
                # Without one it is longer than a request may take here.
                case.body.setdefault("timeout", _LONGEST_WAIT_S)
            self._things.fill_in(case.body, self._random)


@contextmanager
def fuzzing(seed: int, seconds: float) -> Iterator[Fuzzer]:
    """A fuzzer with a server of its own, which has to be well at the end."""
    with Server(SETTINGS) as server, closing(Fuzzer(server, seed, seconds)) as fuzzer:
        yield fuzzer
        with server.connect() as connection:
            connection.expect(200, "GET", "/readyz")
        log = server.log.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in log or "request failed" in log:
            fuzzer.report.problems.append(f"the log tells of a bug: {log[-3000:]}")


def main(arguments: list[str]) -> int:
    """Fuzz, and say what was found; the exit code is 1 when something was, or not all was sent."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=10_000, help="how many requests at least (10000)")
    parser.add_argument("--seed", type=int, default=None, help="makes the same requests again")
    parser.add_argument("--seconds", type=float, default=1500.0, help="the longest that it may take (1500)")
    parser.add_argument("--operation", help="only this one, by its operationId")
    chosen = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    sys.stdout.write(f"seed {seed}\n")
    started = time.monotonic()
    with fuzzing(seed, chosen.seconds) as fuzzer:
        fuzzer.run_until(chosen.cases, chosen.operation)
    report = fuzzer.report
    for problem in report.problems:
        sys.stdout.write(f"\n{problem}\n")
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
    if report.is_cut_short:
        sys.stdout.write("\nThe time was over before all was sent; give it more --seconds.\n")
    sys.stdout.write(
        f"\n{report.sent.total()} requests to {len(report.sent)} operations in {time.monotonic() - started:.0f} s, the "
        f"slowest {report.slowest_s:.2f} s; answers {counts}; {len(report.problems)} problems (seed {seed})\n"
    )
    return 1 if report.problems or report.is_cut_short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
