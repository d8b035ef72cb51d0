"""How many texts the stores have for what they do all day: connections keep those that they had last."""

from collections.abc import Sequence
from typing import Any

from sandgate.core.states import LIVE_ENVIRONMENT_STATUSES, EnvironmentStatus
from sandgate.store.sql_store import SqlStore
from tests.contract.store.records import NOW, an_environment
from tests.contract.store.statements import statements_sent
from tests.contract.store.test_audit import CHAIN, an_entry
from tests.contract.store.test_retention import LATER

_LENGTHS = (5, 6, 7, 8)


async def test_batches_of_audit_entries_have_one_text(store: SqlStore) -> None:
    """Whatever their length, up to the next power of two."""
    with statements_sent() as sent:
        for count in _LENGTHS:
            await store.audit.append([an_entry() for _each in range(count)], CHAIN)
    _check_one_text(sent, "SELECT audit_log.audit_id")


async def test_batches_of_rows_whose_time_is_over_have_one_text(store: SqlStore) -> None:
    """One for each table that has some."""
    with statements_sent() as sent:
        for count in _LENGTHS:
            await _end_environments(store, count)
            assert await store.retention.prune_environments(LATER, 10) == count
    _check_one_text(sent, "DELETE FROM environments ")
    _check_one_text(sent, "DELETE FROM environment_volumes ")


def _check_one_text(sent: Sequence[tuple[str, Any]], begin: str) -> None:
    texts = [text for text, _parameters in sent if text.startswith(begin)]
    assert len(texts) == len(_LENGTHS)
    assert len(set(texts)) == 1


async def _end_environments(store: SqlStore, count: int) -> None:
    for environment in [an_environment() for _each in range(count)]:
        await store.environments.insert(environment)
        await store.environments.transition(
            environment.environment_id,
            EnvironmentStatus.TERMINATED,
            expected=LIVE_ENVIRONMENT_STATUSES,
            at=NOW,
            deleted=True,
        )
