"""Troubles that last for a while, one after the other on a server of their own: R5.

In each the answers are clear and in time, what can be answered is, nothing that was acknowledged is lost, and when it
is over the server goes on by itself: :meth:`Work.check` looks.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from bench.sandgate_server import ENVIRONMENTS
from tests.crash.server_process import GATEWAY, LAUNCHER, SUPERVISOR, BackgroundExecution, until
from tests.crash.troubled_server import PATIENCE_S, Work
from tests.crash.workload import SCHEDULES, WORKFLOWS, step

_PAUSE_S = 0.1
_HOUR_S = 3600.0


def _until_released(mark: str) -> str:
    """Code that leaves a file by which its sandbox is found, and ends when that is taken away."""
    return f"import os, time\nmark = {mark}\nopen(mark, 'w').close()\nwhile os.path.exists(mark): time.sleep(0.01)"


Trouble = Callable[[Work, float], None]


def _last(seconds: float, look: Callable[[], object]) -> None:
    """Look again and again until the time is over."""
    ends_at = time.monotonic() + seconds
    while True:
        look()
        if time.monotonic() >= ends_at:
            return
        time.sleep(_PAUSE_S)  # waits: the trouble is to last


def _use_up(work: Work) -> None:
    """Write until nothing fits into the log of the database any more, which keeps the space that it once had."""
    for size in (500_000, 20_000, 0):
        refused = 0
        for _each in range(400):
            refused = refused + 1 if work.execute(f"print('x' * {size})").status == 503 else 0
            if refused == 3:
                break
        assert refused == 3, "there is still room on a full disk"


def full_disk(work: Work, seconds: float) -> None:
    """No byte fits any more: writing is refused, reading goes on."""
    with work.server.full_disk():
        _use_up(work)
        _last(seconds, lambda: work.assert_refused("the disk is full"))
        assert work.prompt(work.look).status == 200
        work.assert_probe_names("database")


def full_disk_and_killed(work: Work, seconds: float) -> None:
    """The gateway dies while the disk is full, and cannot even say why; it serves again once there is room."""
    with work.server.full_disk():
        _use_up(work)
        work.assert_refused("the disk is full")
        for _death in range(2):
            gateway = work.gateway()
            work.server.kill_one(GATEWAY)
            until(lambda gateway=gateway: work.gateway() not in ([], gateway), "another gateway is tried")  # type: ignore[misc]
        time.sleep(seconds)  # waits: the trouble is to last


def locked_database(work: Work, seconds: float) -> None:
    """Another process holds the lock of SQLite: writing is refused after a while, reading goes on."""

    def lock() -> sqlite3.Connection:
        other = sqlite3.connect(work.server.database, isolation_level=None, check_same_thread=False)
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("BEGIN IMMEDIATE")
        return other

    with closing(work.server.inside(lock)) as other:
        _last(seconds, lambda: work.assert_refused("another process holds its write lock"))
        assert work.prompt(work.look).status == 200
        other.execute("ROLLBACK")


def database_away(work: Work, seconds: float) -> None:
    """The files of SQLite are taken away, and put back as they were."""
    files = sorted(work.server.disk.glob("sandgate.db*"))
    for file in files:
        file.rename(file.with_name(f"away-{file.name}"))
    try:
        _last(seconds, lambda: work.assert_refused("its file is gone"))
        assert work.look().status == 503
        work.assert_probe_names("database")
        assert not (work.server.disk / work.server.database.name).exists()
    finally:
        for file in files:
            away = file.with_name(f"away-{file.name}")
            if away.exists():
                away.rename(file)


def frozen_database(work: Work, seconds: float) -> None:
    """All of PostgreSQL stands still: nobody waits longer than the setting says."""
    assert work.postgres is not None
    with work.postgres.frozen():
        _last(seconds, lambda: work.assert_refused("did not answer within", "was busy for", "does not answer"))
        work.assert_probe_names("database")


def killed_database(work: Work, seconds: float) -> None:
    """PostgreSQL is killed, stays away, and comes back."""
    assert work.postgres is not None
    work.postgres.crash()
    work.postgres.until_dead()
    try:
        _last(seconds, lambda: work.assert_refused("The database cannot be used", "was lost", "is stopping", "crashed"))
    finally:
        work.postgres.start_again()


def jumping_clock(work: Work, seconds: float) -> None:
    """The wall clock goes an hour forward, two back, and is right again: no tick of a schedule runs twice.

    What begins to wait while the clock is wrong ends by that clock, so that nothing is to be under way.
    """
    for run_id in work.runs:
        work.client.until_over(run_id)
    steps = [{"name": "nap", "type": "sleep", "config": {"seconds": 0}}]
    made = work.client.ask("POST", WORKFLOWS, {"name": "tick", "steps": steps})
    wanted = {"workflow_id": made.json()["workflow_id"], "interval": 1, "catch_up": "last"}
    schedule = work.client.ask("POST", SCHEDULES, wanted).json()["schedule_id"]
    try:
        for jump in (_HOUR_S, -_HOUR_S, 0.0):
            work.server.set_clock(jump)
            _last(seconds / 3, lambda: _assert_serves(work))
            if jump == _HOUR_S:
                until(lambda: _has_ticked(work, schedule), "the schedule ticks")
    finally:
        work.server.set_clock(0.0)
        assert work.client.ask("DELETE", f"{SCHEDULES}/{schedule}").status in (200, 204)


def _assert_serves(work: Work) -> None:
    _assert_runs(work)
    assert work.ask("GET", "/readyz").status == 200


def _has_ticked(work: Work, schedule: str) -> bool:
    return work.client.ask("GET", f"{SCHEDULES}/{schedule}").json()["last_run_id"] is not None


def stopped_launcher(work: Work, seconds: float) -> None:
    """What runs already needs no launcher; whoever wants something new is told that it does not answer."""
    steps = [step("a", _until_released("os.environ['SANDGATE_RUN_ID']"), timeout=seconds + 60)]
    made = work.client.ask("POST", WORKFLOWS, {"name": "long", "steps": steps})
    run_id = work.client.start(made.json()["workflow_id"])
    until(lambda: work.server.holders_of(run_id), "the step's code runs")
    with work.server.stopped(LAUNCHER):
        _last(seconds, lambda: _assert_runs(work))
        # It ends while nobody is there to end its sandbox.
        work.server.release(run_id)
        made = work.prompt(lambda: work.ask("POST", ENVIRONMENTS, {"name": "new", "template": "python"}))
        assert made.status == 201, made
        path = f"{ENVIRONMENTS}/{made.json()['environment_id']}"
        with ThreadPoolExecutor(1) as beside:
            probing = beside.submit(work.assert_probe_names, "launcher")
            answer = work.prompt(lambda: work.ask("POST", f"{path}/execute", {"code": "1"}))
            probing.result()
        assert answer.status in (409, 503), answer
        assert "launcher did not answer" in answer.json()["error"]["message"], answer
    until(lambda: work.ask("GET", path).json()["status"] == "failed", "the new one is failed")
    # Whoever stood still has not been waited for in vain: the step was held all the time.
    run = work.client.until_over(run_id)
    assert (run["status"], run["steps"][0]["attempts"]) == ("succeeded", 1), run
    # What the launcher makes late, nobody waits for.
    work.server.until_few_sandboxes(2)
    another = work.client.create()
    assert work.client.execute(another)["stdout"] == "done\n"
    work.client.ask("DELETE", f"{ENVIRONMENTS}/{another}")


def _assert_runs(work: Work) -> None:
    answer = work.prompt(work.execute)
    assert (answer.status, answer.json().get("stdout")) == (200, "here\n"), answer


def stopped_supervisor(work: Work, seconds: float) -> None:
    """The server goes on; a gateway that dies meanwhile is started when the supervisor goes on."""
    with work.server.stopped(SUPERVISOR):
        _last(seconds, lambda: _assert_serves(work))
        work.server.kill_one(GATEWAY)
    until(lambda: len(work.gateway()) == 1, "there is a gateway")


def stopped_gateway(work: Work, seconds: float) -> None:
    """Nobody is answered meanwhile. Of what ran one execution has ended in time, and another's time is over."""
    limit_s = 4.0
    mark = f"{work.environment_id}-waits"
    codes = (_until_released(repr(mark)), "while True: pass")
    running = [
        BackgroundExecution(work.server, work.environment_id, code, limit_s, patience_s=seconds + 60) for code in codes
    ]
    until(lambda: _count_running(work) == len(codes) and work.server.holders_of(mark), "the code runs")
    with work.server.stopped(GATEWAY):
        work.server.release(mark)
        time.sleep(max(seconds, limit_s))  # waits: the trouble is to last
    answers = [execution.join() for execution in running]
    assert [answer and answer["status"] for answer in answers] == ["completed", "timed_out"], answers


def _count_running(work: Work) -> int:
    rows = work.ask("GET", f"{ENVIRONMENTS}/{work.environment_id}/executions").json()["executions"]
    return sum(row["status"] == "running" for row in rows)


ON_SQLITE: Mapping[str, Trouble] = {
    "full disk": full_disk,
    "full disk, and killed": full_disk_and_killed,
    "locked database": locked_database,
    "database away": database_away,
    "jumping clock": jumping_clock,
    "stopped launcher": stopped_launcher,
    "stopped supervisor": stopped_supervisor,
    "stopped gateway": stopped_gateway,
}
ON_POSTGRESQL: Mapping[str, Trouble] = {"frozen database": frozen_database, "killed database": killed_database}
#: A trouble that lasts less may be over before anybody has noticed.
LEAST_S = PATIENCE_S + 0.5
