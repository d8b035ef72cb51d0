"""``sandgate audit``: read and verify the audit log, and tell it of what the command line changes."""

import getpass
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandgate.cli import state as state_folder
from sandgate.cli.exits import EXIT_REFUSED, EXIT_USAGE
from sandgate.cli.groups import command_group
from sandgate.cli.state import DatabaseOption, JsonOption, StateOption
from sandgate.cli.terminal import print_json, print_table, show_time
from sandgate.core.audit import AuditEntry, AuditOutcome, AuditRow, Credential
from sandgate.core.errors import ConfigurationError, StoreUnavailable
from sandgate.core.ids import UserId, make_audit_id

if TYPE_CHECKING:
    from sandgate.config.settings import Settings
    from sandgate.core.audit import AuditChain
    from sandgate.core.audit_check import ChainCheck
    from sandgate.store.base import AuditFilter
    from sandgate.store.sql_store import SqlStore

app = command_group("Who did what: the audit log.")

_BATCH = 1000
# How long the log is asked to take what a command has done, and how often.
_PATIENCE_S = 30.0
_RETRY_S = 0.1


@app.command("list")
def list_entries(
    user: Annotated[str | None, typer.Option(help="Done or tried by the user with this name or id.")] = None,
    action: Annotated[str | None, typer.Option(help="What was asked for, as create_user.")] = None,
    resource: Annotated[str | None, typer.Option(help="Done to the thing with this id.")] = None,
    outcome: Annotated[AuditOutcome | None, typer.Option(help="What it came to.")] = None,
    after: Annotated[datetime | None, typer.Option(help="At that time (UTC) or later.")] = None,
    before: Annotated[datetime | None, typer.Option(help="Before that time (UTC).")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=100_000)] = 100,
    state: StateOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List entries, newest first.

    With --json: {"entries": [{"number", "at", "action", "outcome", …}]}.
    """
    import asyncio

    settings = state_folder.read(state=state, database_url=database_url)

    async def work() -> list[AuditRow]:
        async with state_folder.opened_store(settings) as store:
            wanted = await _filter(store, user, action, resource, outcome, after, before)
            return await _collect(store, wanted, limit)

    rows = asyncio.run(work())
    if as_json:
        print_json({"entries": [_describe(row) for row in rows]})
        return
    print_table(
        ("number", "at", "who", "action", "what", "outcome", "from"), [_shown(row.number, row.entry) for row in rows]
    )


@app.command("verify")
def verify(
    expect: Annotated[
        str | None,
        typer.Option(
            help="The end of the log as an earlier verification printed it, NUMBER:DIGEST. Without it, a log that was "
            "put back whole, with its end, from an older copy looks right.",
            metavar="END",
        ),
    ] = None,
    state: StateOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find out whether the audit log was tampered with.

    That is: whether rows of it were removed, changed, moved or put in.
    Exit code 1 when there are any. Keep the end that is printed somewhere else, and give it to the next verification.
    """
    import asyncio

    settings = state_folder.read(state=state, database_url=database_url)
    checked = asyncio.run(_verify(settings, _parse_end(expect)))
    end = "" if checked.head is None else f"{checked.head.number}:{checked.head.digest.hex()}"
    if as_json:
        print_json({"rows": checked.checked, "problems": checked.problems, "end": end})
    else:
        for problem in checked.problems:
            typer.echo(problem)
        verdict = f"{len(checked.problems)} problems" if checked.problems else "nothing is missing or changed"
        typer.echo(f"{checked.checked} rows were looked at: {verdict}." + (f"\nEnd: {end}" if end else ""))
    if checked.problems:
        raise typer.Exit(EXIT_REFUSED)


@asynccontextmanager
async def audited(
    settings: "Settings", store: "SqlStore", action: str, **details: Any
) -> "AsyncIterator[dict[str, Any]]":
    """Tell the audit log of what is done in the block, if it succeeds; the block fills in ``resource_id``.

    Raises ``ConfigurationError`` before anything is done when the keys are not those of the log.
    """
    from sandgate.core.clock import SystemClock

    chain = await _open_chain(settings, store)
    found: dict[str, Any] = {}
    yield found
    entry = AuditEntry(
        audit_id=make_audit_id(),
        at=SystemClock().now(),
        action=action,
        outcome=AuditOutcome.DONE,
        credential=Credential.COMMAND,
        actor_name=_account(),
        resource_id=found.pop("resource_id", None),
        details=details | found,
    )
    await _append(store, entry, chain)


async def _append(store: "SqlStore", entry: AuditEntry, chain: "AuditChain") -> None:
    """Add the entry, which tells of what is done already: again while a server that writes the log has its end."""
    import asyncio

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await store.audit.append([entry], chain)
        except StoreUnavailable as fault:
            if time.monotonic() > until:
                untold = f"It is done ({entry.action}), but could not be told to the audit log. {fault.message}"
                raise StoreUnavailable(untold) from fault
            await asyncio.sleep(_RETRY_S)
        else:
            return


async def _open_chain(settings: "Settings", store: "SqlStore") -> "AuditChain":
    from sandgate.auth.derived_secrets import DerivedSecrets
    from sandgate.config.paths import keys_folder
    from sandgate.store.audit_trail import audit_chain

    head = await store.audit.find_head()
    secrets = DerivedSecrets(keys_folder(settings))
    if head is not None and not secrets.exists:
        raise ConfigurationError(
            f"The key of the audit log is not in {keys_folder(settings)}; name the server's folder with --state"
        )
    secrets.open()
    chain = audit_chain(secrets.derive)
    if head is not None and not chain.is_ours(head):
        raise ConfigurationError(
            f"The keys in {keys_folder(settings)} are not those of the audit log, or its end was changed; name the "
            "server's folder with --state, and run: sandgate audit verify"
        )
    return chain


async def _verify(settings: "Settings", expected: tuple[int, str] | None) -> "ChainCheck":
    from sandgate.auth.derived_secrets import DerivedSecrets
    from sandgate.config.paths import keys_folder
    from sandgate.store.audit_trail import audit_chain
    from sandgate.store.audit_verify import verify_log

    secrets = DerivedSecrets(keys_folder(settings))
    async with state_folder.opened_store(settings) as store:
        if not secrets.exists:
            raise ConfigurationError(f"The key of the audit log is not in {keys_folder(settings)}")
        secrets.open()
        return await verify_log(store.audit, audit_chain(secrets.derive), expected)


async def _filter(
    store: "SqlStore",
    user: str | None,
    action: str | None,
    resource: str | None,
    outcome: AuditOutcome | None,
    after: datetime | None,
    before: datetime | None,
) -> "AuditFilter":
    from datetime import UTC

    from sandgate.store.base import AuditFilter

    if user is not None:
        found = await store.users.find_by_name(user)
        user = user if found is None else found.user_id
    return AuditFilter(
        actor_id=None if user is None else UserId(user),
        action=action,
        resource_id=resource,
        outcome=outcome,
        after=after and after.replace(tzinfo=UTC),
        before=before and before.replace(tzinfo=UTC),
    )


async def _collect(store: "SqlStore", wanted: "AuditFilter", limit: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    number: int | None = None
    while len(rows) < limit:
        most = min(_BATCH, limit - len(rows))
        page = await store.audit.list(wanted, number, most)
        rows += page
        if len(page) < most:
            break
        number = rows[-1].number
    return rows


def _parse_end(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, digest = text.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        typer.echo("sandgate: --expect takes the end of the log as NUMBER:DIGEST", err=True)
        raise typer.Exit(EXIT_USAGE)
    return int(number), digest.lower()


def _account() -> str:
    """Who sits at the terminal: the account of this machine, and the one behind sudo."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = str(os.getuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {account}"[:128] if behind and behind != account else account[:128]


def _describe(row: AuditRow) -> dict[str, Any]:
    entry = row.entry
    return {
        "number": row.number,
        "audit_id": entry.audit_id,
        "at": show_time(entry.at),
        "action": entry.action,
        "outcome": str(entry.outcome),
        "credential": str(entry.credential),
        "credential_id": entry.credential_id,
        "user_id": entry.actor_id,
        "username": entry.actor_name,
        "resource_id": entry.resource_id,
        "status": entry.status,
        "code": entry.code,
        "address": entry.address,
        "request_id": entry.request_id,
        "times": entry.times,
        "details": dict(entry.details),
        "digest": row.digest.hex(),
    }


def _shown(number: int, entry: AuditEntry) -> tuple[str, ...]:
    who = entry.actor_name or entry.actor_id or str(entry.credential)
    outcome = str(entry.outcome) + (f" {entry.code}" if entry.code else "")
    if entry.times > 1:
        outcome += f" ×{entry.times}"
    return (
        str(number), show_time(entry.at) or "", who, entry.action, entry.resource_id or "", outcome, entry.address or ""
    )  # fmt: skip
