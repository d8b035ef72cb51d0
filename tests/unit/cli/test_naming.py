"""What a name stands for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from sandgate.cli.environments.names import find_environment_id, find_snapshot_id
from sandgate.cli.naming import NameNotClear
from sandgate.cli.workflows.names import find_workflow_id
from sandgate.core.errors import EnvironmentNotFound, SnapshotNotFound, WorkflowNotFound


class Listing:
    """A client that lists things of several owners, as an admin sees them; counts what it was asked for."""

    def __init__(self, *owners: str) -> None:
        self.owners = owners
        self.asked = 0

    def get_me(self) -> Any:
        """Who asks."""
        return SimpleNamespace(user_id="user-1")

    def list_environments(self, *, name: str) -> Iterator[Any]:
        """One for each owner."""
        return self._list("environment_id", f"env-{name}")

    def list_workflows(self, *, name: str) -> Iterator[Any]:
        """One for each owner."""
        return self._list("workflow_id", f"workflow-{name}")

    def list_snapshots(self, *, name: str) -> Iterator[Any]:
        """One for each owner."""
        return self._list("snapshot_id", f"snap-{name}")

    def _list(self, key: str, start: str) -> Iterator[Any]:
        for number, owner in enumerate(self.owners):
            self.asked += 1
            yield SimpleNamespace(**{key: f"{start}-{number}", "owner_id": owner})


@dataclass(frozen=True)
class Noun:
    """What may be named."""

    find: Callable[[Any, str], str]
    prefix: str
    not_found: type[Exception]


@pytest.fixture(
    params=[
        Noun(find_environment_id, "env", EnvironmentNotFound),
        Noun(find_snapshot_id, "snap", SnapshotNotFound),
        Noun(find_workflow_id, "workflow", WorkflowNotFound),
    ],
    ids=["environment", "snapshot", "workflow"],
)
def noun(request: pytest.FixtureRequest) -> Noun:
    """Each of them."""
    found: Noun = request.param
    return found


def test_a_name_means_ones_own(noun: Noun) -> None:
    """Also for an admin, who sees those of others of the same name."""
    assert noun.find(Listing("user-2", "user-1", "user-3"), "box") == f"{noun.prefix}-box-1"


def test_what_only_others_have_is_not_found(noun: Noun) -> None:
    """Nothing is done to it by accident."""
    with pytest.raises(noun.not_found):
        noun.find(Listing("user-2"), "box")


def test_a_name_of_several_is_refused_with_their_ids(noun: Noun) -> None:
    """Some of them, and no more are asked for."""
    listing = Listing(*["user-1"] * 50)
    with pytest.raises(NameNotClear, match=rf"{noun.prefix}-box-0, .*{noun.prefix}-box-4 and more"):
        noun.find(listing, "box")
    assert listing.asked == 6
