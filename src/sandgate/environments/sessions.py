"""The use cases of sessions. They are in memory and in their sandboxes: no row tells of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from sandgate.core.errors import SandboxFailed, TooManySessions
from sandgate.core.execution import Surroundings
from sandgate.core.ids import EnvironmentId, SessionId, UserId, make_session_id
from sandgate.core.principal import Principal
from sandgate.core.session import Session, SessionRequest, SessionStatus
from sandgate.core.template import choose_language
from sandgate.environments.base import Templates
from sandgate.environments.deadlines import Deadlines
from sandgate.environments.live import LiveEnvironment
from sandgate.environments.live_sessions import (
    TAG,
    LiveSession,
    make_tag,
    read_note,
    session_not_found,
    write_note,
)
from sandgate.environments.session_port import NewSession
from sandgate.environments.staying import Parts, StayingService
from sandgate.sandbox.base import RunningSession

_Key = tuple[EnvironmentId, SessionId]
_DELETED = "it was deleted"
_RESTARTED = "it was restarted"
_UNUSED = "whoever asked for it went away before it began"


class SessionService(StayingService):
    """See ``session_port.Sessions``. ``check_open`` raises while the service takes no new work."""

    def __init__(self, *parts: *Parts, templates: Templates, check_open: Callable[[], None]) -> None:
        super().__init__(*parts)
        self._templates = templates
        self._check_open = check_open
        self._idle: Deadlines[_Key] = Deadlines(self._clock, self._look_at_idle)

    async def create(self, caller: Principal, environment_id: EnvironmentId, wanted: NewSession) -> Session:
        """See ``Sessions``."""
        live = await self._lookup.get_live(caller, environment_id)
        self._check_open()
        # As a program of the environment: the interpreter's own is always there.
        choose_language(self._templates.get(live.row.template, live.row.owner_id), wanted.language.value)
        session_id = make_session_id()
        request = SessionRequest(wanted.language, wanted.cwd, wanted.env, self._settings.session_bounds())
        idle_s = self._settings.session_idle_timeout_s if wanted.idle_timeout_s is None else wanted.idle_timeout_s
        now = self._clock.now()
        session = LiveSession(session_id, environment_id, caller.user_id, request, now, now, idle_s or None)
        session.running = await self._open(caller, live, session)
        live.sessions.add(session)
        try:
            await session.running.wait_until_ready()
        except BaseException:
            session.running.end(_UNUSED)
            live.sessions.remove(session)
            raise
        self._watch(session)
        return session.describe()

    async def _open(self, caller: Principal, live: LiveEnvironment, session: LiveSession) -> RunningSession:
        """An interpreter for it. Raises ``TooManySessions``, ``EnvironmentNotRunning``, ``SecretUnreadable``."""
        around = await self._variables.surround(caller, live.row, Surroundings(env=session.request.env))
        request = replace(
            session.request,
            env=(around or Surroundings()).env,
            tag=make_tag(live.environment_id, session.session_id),
            # With what it was given itself: secrets are not written down.
            note=write_note(session),
        )
        sandbox = live.get_sandbox() or await live.wait_for_sandbox()
        self._check_room(live)
        try:
            return sandbox.open_session(request)
        except SandboxFailed as fault:
            self._lifecycle.sandbox_ended(live.environment_id, sandbox.failure or fault.message)
            raise live.refusal() from fault

    def _check_room(self, live: LiveEnvironment) -> None:
        limit = self._settings.max_sessions
        if live.sessions.live_count >= limit:
            raise TooManySessions(
                f"The environment has {limit} sessions, the most allowed; delete one", {"limit": limit}
            )
        limit = self._settings.max_sessions_per_user
        if self._count_of(live.row.owner_id) >= limit:
            raise TooManySessions(
                f"The environments of this user have {limit} sessions here, the most allowed; delete one",
                {"limit": limit},
            )

    def _count_of(self, owner_id: UserId) -> int:
        return sum(live.sessions.live_count for live in self._lifecycle.all() if live.row.owner_id == owner_id)

    async def list(self, caller: Principal, environment_id: EnvironmentId) -> Sequence[Session]:
        """See ``Sessions``."""
        live = await self._lookup.find_seen(caller, environment_id)
        return [session.describe() for session in reversed(list(live.sessions))] if live is not None else []

    async def get(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """See ``Sessions``."""
        live = await self._lookup.find_seen(caller, environment_id)
        if live is None:
            raise session_not_found(environment_id, session_id)
        return live.sessions.get(session_id).describe()

    async def delete(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """See ``Sessions``."""
        live = await self._lookup.get_awake(caller, environment_id)
        session = live.sessions.get(session_id)
        return await self._tasks.finish(self._delete(live, session), f"delete {session_id}")

    async def _delete(self, live: LiveEnvironment, session: LiveSession) -> Session:
        # At once, whatever a restart is waiting for; what that begins meanwhile is ended, too.
        session.running.end(_DELETED)
        async with session.changing:
            await self._end(session, _DELETED)
            live.sessions.remove(session)
            self._idle.discard((session.environment_id, session.session_id))
            return session.describe()

    async def _end(self, session: LiveSession, reason: str) -> None:
        session.running.end(reason)
        await session.running.wait()

    async def interrupt(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """See ``Sessions``."""
        live = await self._lookup.get_awake(caller, environment_id)
        session = live.sessions.get(session_id)
        session.running.interrupt()
        return session.describe()

    async def restart(self, caller: Principal, environment_id: EnvironmentId, session_id: SessionId) -> Session:
        """See ``Sessions``. It goes on to its end when the caller goes away."""
        live = await self._lookup.get_awake(caller, environment_id)
        self._check_open()
        session = live.sessions.get(session_id)
        return await self._tasks.finish(self._restart(caller, live, session), f"restart {session_id}")

    async def _restart(self, caller: Principal, live: LiveEnvironment, session: LiveSession) -> Session:
        async with session.changing:
            await self._end(session, _RESTARTED)
            # It may have been deleted meanwhile.
            live.sessions.get(session.session_id)
            # It has the secrets that this caller may have, and no others.
            session.user_id = caller.user_id
            running = await self._open(caller, live, session)
            if live.sessions.find(session.session_id) is not session:
                # Forgotten as one of too many that have ended.
                running.end(_DELETED)
                raise session_not_found(session.environment_id, session.session_id)
            session.running = running
        await session.running.wait_until_ready()
        self._watch(session)
        return session.describe()

    def adopt(self) -> int:
        """Take up what an earlier process has left; how many."""
        count = 0
        for tag, live, note in self._left(TAG):
            session = read_note(note, self._settings.session_bounds())
            running = None if session is None else self._runtime.resume_session(replace(session.request, tag=tag))
            if session is not None and running is not None:
                session.running = running
                live.sessions.add(session)
                self._watch(session)
                count += 1
        return count

    def _watch(self, session: LiveSession) -> None:
        session.note_use(self._clock)
        if session.idle_timeout_s is not None:
            key = session.environment_id, session.session_id
            self._idle.set(key, self._clock.monotonic() + session.idle_timeout_s)

    def _look_at_idle(self, key: _Key) -> None:
        """End it if it has had nothing to do for so long; otherwise look again."""
        live = self._lifecycle.find(key[0])
        session = None if live is None else live.sessions.find(key[1])
        if session is None or session.has_ended or session.idle_timeout_s is None:
            return
        now, limit_s = self._clock.monotonic(), session.idle_timeout_s
        is_idle = session.running.status is SessionStatus.IDLE
        if is_idle and now >= session.idle_since + limit_s:
            session.running.end(f"it was idle for {limit_s:g} s")
        else:
            self._idle.set(key, (session.idle_since if is_idle else now) + limit_s)

    def end_idle(self) -> None:
        """End what has had nothing to do for too long. A timer does so by itself."""
        self._idle.check()

    def close(self) -> None:
        """The service stops."""
        self._idle.close()
