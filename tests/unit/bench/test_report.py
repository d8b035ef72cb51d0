"""Figures are judged and shown as they were measured."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.figures import Figure, Reference, Samples, Target, figure_of
from bench.report import HEADLINES, chart, fill, write_json

HELLO = figure_of(
    "P1",
    "execute <hello>",
    "ms",
    Samples.of([1.0, 2.0, 3.0]),
    Target(at_most=4, ratio_at_most=0.3),
    Reference("bare", 10.0),
)


@pytest.mark.parametrize(
    ("target", "value", "ratio", "met"),
    [
        (Target(at_most=4), 4.0, None, True),
        (Target(at_most=4), 4.1, None, False),
        (Target(at_least=500), 499.0, None, False),
        (Target(at_most=4, ratio_at_most=0.3), 2.0, 0.3, True),
        (Target(at_most=4, ratio_at_most=0.3), 2.0, 0.31, False),
        (Target(at_least=500, ratio_at_least=0.4), 600.0, 0.39, False),
        (Target(at_most=4, ratio_at_most=0.3), 2.0, None, None),
        (Target(at_most=4, ratio_at_most=0.3), 5.0, None, False),
        (Target(at_least=100, ratio_at_least=0.3, either=True), 90.0, 0.31, True),
        (Target(at_least=100, ratio_at_least=0.3, either=True), 110.0, 0.1, True),
        (Target(at_least=100, ratio_at_least=0.3, either=True), 90.0, 0.1, False),
        (Target(at_least=100, ratio_at_least=0.3, either=True), 110.0, None, True),
        (Target(at_least=100, ratio_at_least=0.3, either=True), 90.0, None, None),
    ],
)
def test_a_target_is_met_when_every_bound_holds(
    target: Target, value: float, ratio: float | None, met: bool | None
) -> None:
    """Bounds are inclusive; without the reference only a missed absolute bound can be told."""
    assert target.is_met(value, ratio) is met


def test_a_figure_is_its_median_beside_its_reference() -> None:
    """Measured value, quartiles and ratio follow from the samples."""
    assert (HELLO.measured, HELLO.spread, HELLO.ratio, HELLO.met) == (2.0, (1.5, 2.5), 0.2, True)
    assert HELLO.target.text("ms") == "≤ 4 ms, ≤ 0.3 ×"


def test_a_missing_reference_gives_no_ratio() -> None:
    """A reference that this machine lacks is kept with its reason."""
    figure = Figure("P2", "create", "ms", 1.0, (1.0, 1.0), Target(), Reference("runc", None, "not installed"))
    assert figure.ratio is None
    assert figure.as_json()["reference"]["reason"] == "not installed"


def test_the_results_fill_the_readme(tmp_path: Path) -> None:
    """What stands between the marks is replaced, the rest is kept, and doing it twice changes nothing."""
    readme, results = tmp_path / "README.md", tmp_path / "latest.json"
    readme.write_text("before\n<!-- figures:start -->\nold\n<!-- figures:end -->\nafter\n", encoding="utf-8")
    write_json([HELLO], results)
    fill(readme, results)
    text = readme.read_text(encoding="utf-8")
    fill(readme, results)
    assert readme.read_text(encoding="utf-8") == text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| P1 | execute <hello> | 2 ms | ≤ 4 ms, ≤ 0.3 × | bare: 10 ms | 0.20 |" in text
    assert json.loads(results.read_text(encoding="utf-8"))["machine"]["cores"]


def test_a_bar_in_a_text_is_no_end_of_a_cell(tmp_path: Path) -> None:
    """A reference may be a pipe."""
    page, results = tmp_path / "README.md", tmp_path / "latest.json"
    page.write_text("<!-- figures:start -->\n<!-- figures:end -->\n", encoding="utf-8")
    piped = figure_of("P13", "stream", "MB/s", Samples.of([1.0]), Target(), Reference("a | cat", 2.0))
    write_json([piped], results)
    fill(page, results)
    assert "| a \\| cat: 2 MB/s | 0.50 |" in page.read_text(encoding="utf-8")


def test_the_readme_shows_the_main_figures_and_no_others(tmp_path: Path) -> None:
    """Whether or not they met their target; the page of all figures has the others."""
    readme, results = tmp_path / "README.md", tmp_path / "latest.json"
    readme.write_text("<!-- figures:start -->\n<!-- figures:end -->\n", encoding="utf-8")
    missed = figure_of("P4", "slow", "/s", Samples.of([1.0]), Target(at_least=500))
    write_json([HELLO, missed, figure_of("P4 more", "detail", "/s", Samples.of([1.0]), Target())], results)
    fill(readme, results, HEADLINES)
    text = readme.read_text(encoding="utf-8")
    assert "| P4 | slow | 1 /s (missed)" in text
    assert "| P1 |" in text
    assert "detail" not in text


def test_a_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written to a place that was not meant for it."""
    readme, results = tmp_path / "README.md", tmp_path / "latest.json"
    readme.write_text("no marks\n", encoding="utf-8")
    write_json([HELLO], results)
    with pytest.raises(ValueError, match="lacks the marks"):
        fill(readme, results)


def test_the_chart_is_well_formed() -> None:
    """The drawing is XML with a pair of bars for each figure that is compared."""
    picture = ET.fromstring(chart([HELLO]))
    assert len(picture.findall("{*}rect")) == 3
    assert "execute <hello>" in [text.text for text in picture.findall("{*}text")]
