"""Which step waits for which: cycles, everything before a step, and what may run side by side."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

Needs = Mapping[str, Sequence[str]]
"""Names of steps and the names that each waits for; names that are no key are of no account."""


def find_cycle(needs: Needs) -> list[str]:
    """Steps that wait for each other, each for the next one, the first repeated at the end; empty when none do."""
    try:
        TopologicalSorter(_known(needs)).prepare()
    except CycleError as error:
        # The sorter names predecessors first; here each name is followed by what it waits for.
        return list(error.args[1])[::-1]
    return []


def find_levels(needs: Needs) -> list[list[str]]:
    """The steps in rounds: each round waits only for rounds before it, and stands in the order of ``needs``."""
    place = {name: index for index, name in enumerate(needs)}
    sorter = TopologicalSorter(_known(needs))
    sorter.prepare()
    levels: list[list[str]] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        sorter.done(*ready)
        levels.append(ready)
    return levels


def find_ancestors(needs: Needs) -> dict[str, frozenset[str]]:
    """Everything that each step waits for, directly or through others. There must be no cycle."""
    names = list(needs)
    bits = {name: 1 << index for index, name in enumerate(names)}
    masks: dict[str, int] = {}
    for name in TopologicalSorter(_known(needs)).static_order():
        masks[name] = 0
        for needed in _known_only(needs[name], needs):
            masks[name] |= masks[needed] | bits[needed]
    return {name: frozenset(_named(masks[name], names)) for name in names}


def _known(needs: Needs) -> dict[str, list[str]]:
    return {name: list(_known_only(wanted, needs)) for name, wanted in needs.items()}


def _known_only(wanted: Iterable[str], needs: Needs) -> Iterable[str]:
    return (name for name in wanted if name in needs)


def _named(mask: int, names: Sequence[str]) -> Iterable[str]:
    while mask:
        lowest = mask & -mask
        yield names[lowest.bit_length() - 1]
        mask ^= lowest
