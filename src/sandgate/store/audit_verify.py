"""Verifies the audit log of a database, also beside servers that add to it."""

from sandgate.core.audit import AuditChain
from sandgate.core.audit_check import ChainCheck
from sandgate.store.base import AuditStore

_BATCH = 1000


async def verify_log(store: AuditStore, chain: AuditChain, expected: tuple[int, str] | None = None) -> ChainCheck:
    """Look at every row; ``expected`` is an earlier end of the log. Raises ``StoreUnavailable``."""
    check = await _verify_once(store, chain, expected)
    head = await store.find_head()
    if check.problems and head is not None and check.head is not None and check.began_at != head.first_number:
        # Rows whose time was over went from the beginning meanwhile.
        check = await _verify_once(store, chain, expected)
    return check


async def _verify_once(store: AuditStore, chain: AuditChain, expected: tuple[int, str] | None) -> ChainCheck:
    check = ChainCheck(chain, await store.find_head(), expected)
    number = 0
    while True:
        rows = await store.read(number, _BATCH)
        # Asked for after the rows: whatever was added before they were read is in it.
        head = await store.find_head()
        check.add(rows)
        if not rows and head == check.head:
            break
        check.head = head
        number = rows[-1].number if rows else number
    check.finish()
    return check
