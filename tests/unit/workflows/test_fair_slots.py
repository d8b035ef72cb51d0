"""Places are shared out among users: nobody waits behind all that another one wants."""

import asyncio
import contextlib
import random

import pytest

from sandgate.config.settings import Settings
from sandgate.core.fair_slots import FairSlots
from sandgate.core.run import StepStatus
from tests.unit.workflows.conftest import MakeOrchestra
from tests.unit.workflows.orchestra import LIMIT_S, LOOP, code, make_principal


class Crowd:
    """Tasks that want a place each, and keep it until they are let go."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self._doors: list[tuple[str, asyncio.Event]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def want(self, owner: str, count: int = 1) -> list["asyncio.Task[None]"]:
        """So many more of an owner come."""
        made = [asyncio.ensure_future(self._stay(owner)) for _one in range(count)]
        self.tasks += made
        return made

    async def leave(self, owner: str | None = None) -> None:
        """The longest served goes, of this owner if one is named."""
        index = next(at for at, (name, _) in enumerate(self._doors) if owner in (None, name))
        self._doors.pop(index)[1].set()
        await settle()

    async def close(self) -> None:
        """All go, and nothing is left taken or waiting."""
        for task in self.tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self.tasks, return_exceptions=True)
        assert self.slots.taken == 0
        assert (self.slots._waiting, self.slots._turns, self.slots._taken_by) == ({}, {}, {})

    async def _stay(self, owner: str) -> None:
        async with self.slots.place(owner):
            self.served.append(owner)
            door = asyncio.Event()
            self._doors.append((owner, door))
            await door.wait()


async def settle() -> None:
    """Let every task go as far as it can."""
    for _turn in range(5):
        await asyncio.sleep(0)


async def test_what_one_may_not_take_is_there_for_others() -> None:
    """A hundred of one user take his share; somebody else is served at once, and one of his when one of his leaves."""
    crowd = Crowd(FairSlots(4, 2))
    crowd.want("a", 100)
    await settle()
    assert crowd.served == ["a", "a"]
    crowd.want("b")
    await settle()
    assert crowd.served == ["a", "a", "b"]
    await crowd.leave("b")
    assert crowd.served == ["a", "a", "b"]
    await crowd.leave("a")
    assert crowd.served == ["a", "a", "b", "a"]
    await crowd.close()


async def test_a_full_house_goes_round() -> None:
    """Who comes last with one waits for one place, not for the hundred that came before."""
    crowd = Crowd(FairSlots(2, 2))
    crowd.want("a", 100)
    await settle()
    crowd.want("b", 3)
    crowd.want("c", 1)
    await settle()
    for _one in range(6):
        await crowd.leave()
    assert crowd.served == ["a", "a", "b", "c", "a", "b", "a", "b"]
    await crowd.close()


async def test_who_goes_away_waits_no_more() -> None:
    """Cancelled while it waits, or in the moment that it is told: the place goes to the next."""
    crowd = Crowd(FairSlots(1, 2))
    crowd.want("a")
    waiting, told, next_ = crowd.want("a"), crowd.want("a"), crowd.want("b")
    await settle()
    waiting[0].cancel()
    await settle()
    crowd._doors.pop(0)[1].set()
    # The first of them goes, and gives its place to the one that is cancelled before it can take it.
    await asyncio.sleep(0)
    assert not crowd.slots._waiting.get("a")
    told[0].cancel()
    await settle()
    assert crowd.served == ["a", "b"]
    assert not next_[0].done()
    await crowd.close()


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_and_none_made_up(seed: int) -> None:
    """Whatever comes and goes: bounds hold, and nobody waits who could be served."""
    chance = random.Random(seed)
    most, of_one = chance.randint(1, 5), chance.randint(1, 3)
    crowd = Crowd(FairSlots(most, of_one))
    owners = ["a", "b", "c", "d"]
    for _step in range(60):
        live = [task for task in crowd.tasks if not task.done()]
        match chance.randint(0, 3):
            case 0 | 1:
                crowd.want(chance.choice(owners), chance.randint(1, 3))
            case 2 if live:
                chance.choice(live).cancel()
            case _ if crowd._doors:
                _, door = crowd._doors.pop(chance.randrange(len(crowd._doors)))
                door.set()
        if chance.random() < 0.7:
            await settle()
            counts = {owner: crowd.slots.taken_by(owner) for owner in owners}
            assert crowd.slots.taken == sum(counts.values()) <= most
            assert max(counts.values()) <= of_one
            could = [owner for owner in crowd.slots._waiting if counts[owner] < of_one]
            assert not (could and crowd.slots.taken < most)
    await crowd.close()


async def test_a_hundred_steps_of_one_user_do_not_hold_up_another(make_orchestra: MakeOrchestra) -> None:
    """The second user's step runs and ends while the first has all that is his, and a hundred steps that wait."""
    one = make_orchestra(settings=Settings(max_steps=4, max_steps_per_user=3))
    await one.start()
    run_id = await one.begin(*(code(f"long-{number}", LOOP, needs=[]) for number in range(103)))
    await one.until_running(3)
    other = make_principal(name="other")
    made = await one.service.create(other, {"name": "short", "steps": [code("short", "outputs['x'] = 1")]})
    run = await one.service.start(other, made.workflow_id, {}, LIMIT_S)
    assert run.status == "succeeded"
    assert all(row.status is StepStatus.RUNNING for row in (await one.steps(run_id)).values())
    await one.until_running(3)
    await one.stop()
