"""``python -m bench``: measure all figures, or those that are named, and report them."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import (
    files,
    p01_hello,
    p02_gvisor,
    p02_interactive,
    p03_burst,
    p04_throughput,
    p05_churn,
    p06_density,
    p07_preload,
    p08_sequence,
    p09_work,
    p10_fan_out,
    p11_lists,
    p11_runs,
    p12_start,
    p13_stream,
    pausing,
    sessions,
    snapshots,
)
from bench.client import UnexpectedAnswer
from bench.context import Bench, say
from bench.figures import Figure
from bench.report import HEADLINES, chart, fill, print_table, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
MEASUREMENTS: Mapping[str, Callable[[Bench], list[Figure]]] = {
    "p1": p01_hello.measure,
    "p2": p02_interactive.measure,
    "p2gvisor": p02_gvisor.measure,
    "p3": p03_burst.measure,
    "p4": p04_throughput.measure,
    "p5": p05_churn.measure,
    "p6": p06_density.measure,
    "p7": p07_preload.measure,
    "p8": p08_sequence.measure,
    "p9": p09_work.measure,
    "p10": p10_fan_out.measure,
    "p11": p11_lists.measure,
    "p11-runs": p11_runs.measure,
    "p12": p12_start.measure,
    "p13": p13_stream.measure,
    "files": files.measure,
    "sessions": sessions.measure,
    "pausing": pausing.measure,
    "snapshots": snapshots.measure,
}


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """What to measure and where to write it."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure sandgate on this machine.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"which of {', '.join(MEASUREMENTS)}; default all")
    parser.add_argument("--quick", action="store_true", help="few samples, to see that everything works")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", help="where to write the results")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md and docs/")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name.lower() not in MEASUREMENTS]
    if unknown:
        parser.error(f"no figure is called {', '.join(unknown)}")
    return chosen


def measure(names: list[str], bench: Bench) -> tuple[list[Figure], list[str]]:
    """The figures that could be measured, and what went wrong with the others."""
    figures: list[Figure] = []
    failures: list[str] = []
    for name in names or MEASUREMENTS:
        say(f"{name} …")
        try:
            figures.extend(MEASUREMENTS[name.lower()](bench))
        except (UnexpectedAnswer, OSError) as error:
            failures.append(f"{name}: {error}")
            say(f"  {error}")
    return figures, failures


def main() -> int:
    """Measure and report; the exit status is 1 when a figure could not be measured, never because it is slow."""
    chosen = parse_arguments(sys.argv[1:])
    figures, failures = measure(chosen.names, Bench(quick=chosen.quick))
    if figures:
        print_table(figures)
        write_json(figures, chosen.json)
        chosen.json.with_suffix(".svg").write_text(chart(figures), encoding="utf-8")
    if figures and chosen.readme:
        fill(ROOT / "README.md", chosen.json, HEADLINES)
        fill(ROOT / "docs" / "benchmarks.md", chosen.json)
    for failure in failures:
        say(f"Not measured: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
