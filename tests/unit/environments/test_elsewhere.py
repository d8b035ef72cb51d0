"""What lives on another server is named as such by whatever would have to be done there."""

from collections.abc import Awaitable, Callable

import pytest

from sandgate.core.environment import EnvironmentChange
from sandgate.core.errors import EnvironmentElsewhere
from sandgate.core.ids import EnvironmentId
from sandgate.core.states import EnvironmentStatus
from tests.contract.store.records import an_environment
from tests.unit.environments.conftest import World

WORK: dict[str, Callable[[World, EnvironmentId], Awaitable[object]]] = {
    "metrics": lambda world, name: world.service.metrics(world.user, name),
    "execute": lambda world, name: world.service.execute(world.user, name, "1", None),
    "update": lambda world, name: world.service.update(world.user, name, EnvironmentChange(name="new")),
    "delete": lambda world, name: world.service.delete(world.user, name),
    "list files": lambda world, name: world.service.files.list(world.user, name, ".", after="", limit=10),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
async def test_work_on_it_is_refused_with_the_name_of_its_server(
    world: World, work: Callable[[World, EnvironmentId], Awaitable[object]]
) -> None:
    """It is shown all the same."""
    row = an_environment(owner_id=world.user.user_id, status=EnvironmentStatus.RUNNING, server_id="another")
    await world.store.environments.insert(row)
    assert (await world.service.get(world.user, row.environment_id)).status is EnvironmentStatus.RUNNING
    with pytest.raises(EnvironmentElsewhere) as refusal:
        await work(world, row.environment_id)
    assert refusal.value.details == {"server_id": "another"}
