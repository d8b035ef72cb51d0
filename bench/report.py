"""The results as a table on the terminal, as JSON, as a chart, and in the documents."""

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

import sandgate
from bench.figures import Figure

START, END = "<!-- figures:start -->", "<!-- figures:end -->"
# What the README shows; P11 has a row for each list, and the others say more about a figure that is there.
HEADLINES = frozenset({*(f"P{number}" for number in range(1, 14)), "P2 p99", "P2 runc"} - {"P11"})
COLUMNS = ("figure", "what", "measured", "spread", "target", "reference", "ratio", "met")
WIDTH, ROW, LEFT, BAR = 860, 26, 380, 300


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 1024**3),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sandgate": sandgate.__version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the text of its row."""
    low, high = figure.spread
    reference = figure.reference
    compared = "" if reference is None else reference.name
    if reference is not None and reference.value is not None:
        compared = f"{reference.name}: {number(reference.value)} {figure.unit}"
    elif reference is not None:
        compared = f"{reference.name}: skipped, {reference.reason}"
    return (
        figure.figure,
        figure.what,
        f"{number(figure.measured)} {figure.unit}",
        "" if low == high else f"{number(low)} to {number(high)}",
        figure.target.text(figure.unit),
        compared,
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        {True: "yes", False: "no", None: "?"}[figure.met],
    )


def print_table(figures: Sequence[Figure]) -> None:
    """The table on the terminal."""
    table = Table(title="sandgate, measured over HTTP on loopback, isolation on, records durable")
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for figure in figures:
        table.add_row(*cells(figure), style={True: None, False: "red", None: "yellow"}[figure.met])
    Console(width=None if os.isatty(1) else 200).print(table)


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """The results with the machine that they were measured on."""
    results = {"machine": describe_machine(), "figures": [figure.as_json() for figure in figures]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def markdown(results: dict[str, Any], only: frozenset[str] | None = None) -> str:
    """The table of a results file as it stands in the documents: all figures, or ``only`` those of these names."""
    rows = [_markdown_row(row) for row in results["figures"] if only is None or row["figure"] in only]
    machine = results["machine"]
    on = f"{machine['cores']} cores ({machine['processor']}), Linux {machine['kernel']}, {machine['measured_at'][:10]}"
    head = "| | what | measured | target | compared with | ratio |\n| --- | --- | --- | --- | --- | --- |\n"
    return f"{head}{''.join(rows)}\nMeasured by `scripts/bench` on {on}; the client runs on the same cores.\n"


def _markdown_row(row: dict[str, Any]) -> str:
    reference = row["reference"] or {}
    compared = f"{reference['name']}: {number(reference['value'])} {row['unit']}" if reference.get("value") else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    missed = " (missed)" if row["met"] is False else ""
    measured = f"{number(row['measured'])} {row['unit']}{missed}"
    texts = (row["figure"], row["what"], measured, row["target_text"], compared, ratio)
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |\n"


def fill(page: Path, results: Path, only: frozenset[str] | None = None) -> None:
    """Put the table of a results file between the marks of a page; ``only`` some figures, or all.

    Raises ``ValueError`` when the marks are not there.
    """
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"{page} lacks the marks {START} and {END}")
    table = markdown(json.loads(results.read_text(encoding="utf-8")), only)
    between = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    page.write_text(between.sub(lambda _: f"{START}\n{table}{END}", text), encoding="utf-8")


def chart(figures: Sequence[Figure]) -> str:
    """An SVG with one pair of bars for each figure that has a reference: the figure, and what it is compared with."""
    compared = [figure for figure in figures if figure.ratio is not None]
    height = ROW * 2 * len(compared) + ROW
    bars = "".join(_bars(figure, ROW // 2 + index * ROW * 2) for index, figure in enumerate(compared))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#ffffff"/>{bars}</svg>\n'
    )


def _bars(figure: Figure, top: int) -> str:
    assert figure.reference is not None
    assert figure.reference.value is not None
    longest = max(figure.measured, figure.reference.value)
    ours = _bar(figure.what, figure.measured, figure.unit, longest, top, "#2463a5")
    return ours + _bar(figure.reference.name, figure.reference.value, figure.unit, longest, top + 18, "#b0b7bf")


def _bar(label: str, value: float, unit: str, longest: float, top: int, color: str) -> str:
    width = max(1, round(BAR * value / longest))
    return (
        f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{escape(label)}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{width}" height="15" fill="{color}"/>'
        f'<text x="{LEFT + width + 6}" y="{top + 12}">{number(value)} {escape(unit)}</text>'
    )
