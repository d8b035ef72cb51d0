"""A little of what ``scripts/fuzz-wire`` tries for longer."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings

from tests.security import wire_fuzz
from tests.security.siege import Siege

few = settings(max_examples=120, deadline=None)


@few
@given(wire_fuzz.actions)
def test_any_talk(said: Sequence[tuple[str, bytes, Sequence[str]]]) -> None:
    """A slot is lost once at most, every execution ends, and no descriptor stays."""
    wire_fuzz.check_talk(said)


@few
@given(wire_fuzz.spoiled(wire_fuzz.requests))
def test_any_request(data: bytes) -> None:
    """The launcher refuses it, or its names are names."""
    wire_fuzz.check_request(data)


@few
@given(wire_fuzz.answers)
def test_any_answer(data: bytes) -> None:
    """What a child says is read within its bounds."""
    wire_fuzz.check_answer(data)


@pytest.mark.needs_root_namespaces
@pytest.mark.not_on_gvisor("nothing of it comes as far as a sandbox of any class")
async def test_any_order_of_verbs(siege: Siege) -> None:
    """A launcher that runs takes them as they come."""
    await wire_fuzz.any_order(siege.bench, seed=7, count=150)
