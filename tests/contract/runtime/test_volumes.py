"""What every runtime promises of volumes."""

import pytest

from sandgate.core.errors import SandboxFailed
from sandgate.core.ids import make_volume_id
from sandgate.core.limits import MIB
from sandgate.core.states import Isolation
from tests.contract.runtime.conftest import Subject


async def test_volumes_are_made_measured_and_removed(subject: Subject) -> None:
    """Twice is as good as once; of one that is not there nothing is used. Where there are none it is said why."""
    keeper = subject.runtime.volumes
    assert keeper.find_lack(Isolation.PROCESS)
    wanted, unknown = make_volume_id(), make_volume_id()
    if subject.runtime.isolation is Isolation.PROCESS:
        with pytest.raises(SandboxFailed):
            await keeper.make(wanted, 16 * MIB)
        return
    assert keeper.find_lack(Isolation.STANDARD) is None
    for _each in range(2):
        await keeper.make(wanted, 16 * MIB)
    used = await keeper.measure([wanted, unknown])
    assert (used[unknown], used[wanted] < MIB, len(used)) == (0, True, 2)
    for _each in range(2):
        await keeper.remove(wanted)
    assert await keeper.measure([wanted]) == {wanted: 0}
