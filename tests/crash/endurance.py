"""Whether the service holds out: ``scripts/chaos [kills|wear|input|hostile|trouble] [options]``.

``kills`` parts of servers at random instants under load (R1), ``wear`` of many environments made and deleted (R2), bad
``input`` made up from the description of the API (R3), ``hostile`` code beside a server that is asked all the time
(R4), ``trouble`` with disk, database, clock and processes (R5). Bounded in count and time; on loopback only.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing

from tests.abilities import ALL_ON_GVISOR
from tests.crash import chaos, hostile
from tests.crash.trouble import LEAST_S, ON_POSTGRESQL, ON_SQLITE
from tests.crash.troubled_server import TroubledServer, Work
from tests.crash.wear import wear
from tests.e2e import fuzz
from tests.leaks import DOUBTFUL, Leaks, left_behind, take_stock
from tests.postgres import PostgresServer


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _count(stock: Mapping[str, Leaks]) -> str:
    """How much of what could be left there is."""
    return ", ".join(f"{len(names)} {kind}" for kind, names in stock.items() if kind != DOUBTFUL)


def _find_left(before: Mapping[str, Leaks]) -> Mapping[str, list[str]]:
    """What is more than before, once the kernel has had the time to clean up."""
    gives_up_at = time.monotonic() + 20
    while left := left_behind(before, take_stock()):
        if time.monotonic() > gives_up_at:
            return left
        time.sleep(0.05)  # waits: the kernel tells nobody
    return {}


def kills(chosen: argparse.Namespace) -> int:
    """Kill parts of servers, and look whether what has to hold does."""
    say(f"seed {chosen.seed}")
    started = time.monotonic()
    played = chaos.play(chosen.kills, chosen.seed, servers=chosen.servers, on_postgresql=chosen.postgresql)
    say(f"{sum(played.kills.values())} kills in {time.monotonic() - started:.0f} s: {dict(played.kills)}")
    say("Nothing acknowledged was lost, no result is there twice, every run has ended.")
    return 0


def wear_out(chosen: argparse.Namespace) -> int:
    """Make and delete many environments, and look what is more afterwards."""
    worn = wear(chosen.environments, say, looks=chosen.looks, seed=chosen.seed)
    say(worn.table())
    growing = [name for name, growth in worn.verdicts().items() if growth.grows]
    say(f"This grows: {', '.join(growing)}" if growing else f"Nothing has grown with {worn.made:,} environments.")
    return 1 if growing else 0


def bad_input(chosen: argparse.Namespace) -> int:
    """See ``scripts/fuzz``."""
    return fuzz.main(["--cases", str(chosen.cases), "--seed", str(chosen.seed)])


def hostile_code(chosen: argparse.Namespace) -> int:
    """Run all attacks beside a server."""
    probe, summary = hostile.besiege([ALL_ON_GVISOR, *(["-k", chosen.only] if chosen.only else [])])
    say(f"{summary}; beside them {probe.answers:,} answers of a server, the slowest after {probe.slowest_s:.2f} s")
    return 0


def trouble(chosen: argparse.Namespace) -> int:
    """Let each trouble last for a while."""
    seconds = max(LEAST_S, chosen.seconds)
    with TroubledServer() as server:
        for name, make in ON_SQLITE.items():
            if chosen.only in name:
                _endure(name, make, Work.begin(server), seconds)
    if chosen.postgresql:
        with ExitStack() as stack:
            postgres = PostgresServer(durable=True)
            stack.callback(postgres.remove)
            postgres.start()
            settings = {"SANDGATE_DATABASE_URL": postgres.create_database("trouble")}
            server = stack.enter_context(TroubledServer(settings))
            for name, make in ON_POSTGRESQL.items():
                if chosen.only in name:
                    _endure(name, make, Work.begin(server, postgres), seconds)
    say("Each was answered clearly and in time, nothing acknowledged was lost, and no hand was needed.")
    return 0


def _endure(name: str, make: Callable[[Work, float], None], begun: Work, seconds: float) -> None:
    with closing(begun) as work:
        make(work, seconds)
        over = time.monotonic()
        work.check()
        recovered_s = time.monotonic() - over
        say(f"{name:24} {seconds:4.0f} s, slowest answer {work.slowest_s:5.2f} s, all well {recovered_s:5.2f} s after")


_FIGURES: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "kills": kills,
    "wear": wear_out,
    "input": bad_input,
    "hostile": hostile_code,
    "trouble": trouble,
}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figure", nargs="?", choices=sorted(_FIGURES), default="kills", help="what to do (kills)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the choices; the time when left out")
    parser.add_argument("--kills", type=int, default=200, help="kills: how many (200)")
    parser.add_argument("--servers", type=int, default=1, help="kills: how many share the database (1)")
    parser.add_argument("--postgresql", action="store_true", help="kills, trouble: on a PostgreSQL of its own, too")
    parser.add_argument(
        "--environments", type=int, default=2_000, help="wear: how many (2000); 100000 are those of a day"
    )
    parser.add_argument("--looks", type=int, default=24, help="wear: how often to look what the server holds (24)")
    parser.add_argument("--cases", type=int, default=10_000, help="input: how many requests (10000)")
    parser.add_argument("--only", default="", help="hostile, trouble: those whose names have this in them")
    parser.add_argument("--seconds", type=float, default=60.0, help="trouble: how long each lasts (60)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Do it, and say what was found; fails with all that does not hold."""
    chosen = _parse(arguments)
    before = take_stock()
    say(f"Before: {_count(before)}.")
    code = _FIGURES[chosen.figure](chosen)
    left = _find_left(before)
    say(f"After: {_count(take_stock())}. {left or 'Nothing'} is left behind on the machine.")
    return 1 if left else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
