"""Small rooms: files and functions that can be read at one sitting."""

from statistics import median

import pytest

from tests.repository.tree import functions, length, sources

FILE_LINES = 400
FUNCTION_LINES = 60
MEDIAN_LINES = 10

every_folder = pytest.mark.parametrize("top", ["src", "tests", "bench", "scripts"])


@every_folder
def test_no_file_is_longer_than_it_may_be(top: str) -> None:
    """A file holds one subject, so it never grows past the limit."""
    long = {source.path: source.text.count("\n") for source in sources(top)}
    long = {path: lines for path, lines in long.items() if lines > FILE_LINES}
    assert not long, f"Split these by subject, at most {FILE_LINES} lines each: {long}"


@every_folder
def test_no_function_is_longer_than_it_may_be(top: str) -> None:
    """A function fits on one screen."""
    long = {source.at(node): length(node) for source in sources(top) for node in functions(source)}
    long = {place: lines for place, lines in long.items() if lines > FUNCTION_LINES}
    assert not long, f"Give the steps of these functions names of their own, at most {FUNCTION_LINES} lines: {long}"


@pytest.mark.parametrize("top", ["src"])
def test_half_of_the_functions_are_short(top: str) -> None:
    """The usual function is a few lines."""
    usual = median(length(node) for source in sources(top) for node in functions(source))
    assert usual < MEDIAN_LINES, f"Half of the functions in {top} have {usual} lines or more; write shorter ones"
