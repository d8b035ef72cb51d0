"""Refusals that are alike share an entry, so that whoever is refused all the time does not fill the audit log."""

from dataclasses import replace

from sandgate.core.audit import AuditEntry, AuditOutcome, Credential
from sandgate.core.clock import ManualClock
from sandgate.core.ids import UserId, make_audit_id
from sandgate.store.audit_repeats import MOST_ALIKE, Repeats


def _refusal(clock: ManualClock, **changes: object) -> AuditEntry:
    entry = AuditEntry(
        make_audit_id(),
        clock.now(),
        "issue_token",
        AuditOutcome.REFUSED,
        Credential.PASSWORD,
        code="INVALID_CREDENTIALS",
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def test_a_network_is_one_stranger() -> None:
    """Whoever has a /64 has more addresses than there may be rows."""
    clock = ManualClock()
    repeats = Repeats(clock)
    taken = [repeats.take(_refusal(clock, address=f"2001:db8::{number:x}")) for number in range(500)]
    assert sum(taken) == MOST_ALIKE
    assert [entry.times for entry in repeats.drain(everything=True)] == [500 - MOST_ALIKE]


def test_strangers_from_everywhere_have_no_more_rows_than_some() -> None:
    """And take the place of no user, whose refusals go on being told as that user's."""
    clock = ManualClock()
    repeats = Repeats(clock)
    places = [f"10.{number >> 8}.{number & 255}.1" for number in range(20_000)]
    taken = sum(repeats.take(_refusal(clock, address=place)) for place in places)
    assert taken < 2_000
    user = UserId("user-1")
    for _ in range(MOST_ALIKE + 5):
        repeats.take(_refusal(clock, actor_id=user, address=places[0]))
    rest, of_user = repeats.drain(everything=True)
    assert (rest.times, rest.address) == (20_000 - taken, None)
    assert (of_user.times, of_user.actor_id, of_user.address) == (5, user, places[0])
    assert repeats.take(_refusal(clock, address=places[-1]))
    assert repeats.drain(everything=True) == []


def test_what_is_not_common_to_all_is_left_out() -> None:
    """One name among a hundred that were tried has not been tried a hundred times."""
    clock = ManualClock()
    repeats = Repeats(clock)
    for number in range(100):
        repeats.take(_refusal(clock, actor_name=f"name-{number}", address="192.0.2.1"))
    [entry] = repeats.drain(everything=True)
    assert (entry.actor_name, entry.address) == (None, "192.0.2.1")


def test_of_what_was_done_only_the_common_part_is_told() -> None:
    """Many executions in one environment have that in common, and no number of their own."""
    clock = ManualClock()
    repeats = Repeats(clock, most_alike=2)
    done = {"outcome": AuditOutcome.DONE, "action": "execute", "code": None, "actor_id": UserId("user-1")}
    for number in range(5):
        details = {"execution_id": f"exec-{number}", "fields": ["code"]}
        request = f"req-{number}"
        taken = repeats.take(_refusal(clock, resource_id="env-1", request_id=request, details=details, **done))
        assert taken is (number < 2)
    [entry] = repeats.drain(everything=True)
    assert (entry.times, entry.resource_id, entry.request_id) == (3, "env-1", None)
    assert entry.details == {"fields": ["code"]}


def test_the_rest_of_what_was_done_is_told_thing_by_thing() -> None:
    """As far as there are not too many of them; the sum is that of all."""
    clock = ManualClock()
    repeats = Repeats(clock, most_alike=3, by_thing=True)
    done = {"outcome": AuditOutcome.DONE, "action": "put_file", "code": None, "actor_id": UserId("user-1")}
    for number in range(3003):
        repeats.take(_refusal(clock, resource_id=f"env-{number % 1500}", address="192.0.2.1", **done))
    entries = repeats.drain(everything=True)
    assert len(entries) == 1001
    assert sum(entry.times for entry in entries) == 3000
    named = {entry.resource_id: entry.times for entry in entries if entry.resource_id}
    assert len(named) == 1000
    assert set(named.values()) <= {2, 3}
    assert {entry.address for entry in entries} == {"192.0.2.1"}


def test_of_all_users_together_only_so_many_things_are_told_by_name() -> None:
    """What is done to more is summed up by user; when windows are over there is room again."""
    clock = ManualClock()
    repeats = Repeats(clock, most_alike=0, by_thing=True)
    for _window in range(2):
        for user in range(12):
            done = {"action": "put_file", "code": None, "actor_id": UserId(f"user-{user}")}
            for number in range(900):
                assert not repeats.take(_refusal(clock, resource_id=f"env-{user}-{number}", **done))
        entries = repeats.drain(everything=True)
        assert sum(entry.times for entry in entries) == 12 * 900
        assert sum(entry.resource_id is not None for entry in entries) == 10_000
        # Of the last ones, who found no more room.
        rest = [(entry.actor_id, entry.times) for entry in entries if entry.resource_id is None]
        assert rest == [("user-11", 800)]
