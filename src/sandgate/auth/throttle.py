"""Slows down guessing of passwords, without locking out whoever the name belongs to.

Each failed login is counted in three buckets, which drain evenly over one window:

- of the name and the address, which holds ``attempts``;
- of the name, from all addresses together, which holds half as many again;
- of the address, for all names together, which holds ten times as many: against one password tried on many names.

An address from which the name has logged in within a day is counted in the first one only: strangers elsewhere, and
strangers behind the same proxy who guess at other names, cannot keep the owner out of a place that the owner uses.

An attempt is counted *before* the password is verified and taken back when it succeeds, so that attempts side by side
cannot slip through together. An attempt that is refused is not counted: whoever waits as long as was said gets through,
and a name is never closed for longer than a window divided by ``attempts``. Addresses of IPv6 count by their /64, which
is what one customer is given.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from sandgate.auth.names import is_user_name
from sandgate.core.addresses import network_of
from sandgate.core.clock import Clock
from sandgate.core.errors import TooManyLoginAttempts

_REMEMBER_SUCCESS_S = 86_400.0
_NAME_FACTOR = 1.5
_ADDRESS_FACTOR = 10.0
#: A part of a failure that is too small to make anybody wait who has waited as long as was said.
_ROUNDING = 1e-6


@dataclass(slots=True)
class _Bucket:
    """How many failures are counted (fewer and fewer as time goes by), and when that was worked out."""

    failures: float
    at: float


class _Buckets:
    """Failure counts that drain evenly over a window; the least recently touched give way when there are too many."""

    def __init__(self, attempts: float, window_s: float, most: int) -> None:
        self._most = most
        self._attempts = attempts
        self._per_s = attempts / window_s
        self._held: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def wait_s(self, key: Hashable, now: float) -> float:
        """How long until one more failure fits; 0 when it does."""
        over = self._failures(key, now) + 1 - self._attempts
        return over / self._per_s if over > _ROUNDING else 0.0

    def add(self, key: Hashable, count: int, now: float) -> None:
        """Count a failure, or take one back (-1)."""
        failures = max(0.0, self._failures(key, now) + count)
        self._held.pop(key, None)
        if failures > 0:
            self._held[key] = _Bucket(failures, now)
        if len(self._held) > self._most:
            self._held.popitem(last=False)

    def clear(self, key: Hashable) -> None:
        """Count no failures any more."""
        self._held.pop(key, None)

    def _failures(self, key: Hashable, now: float) -> float:
        bucket = self._held.get(key)
        return 0.0 if bucket is None else max(0.0, bucket.failures - (now - bucket.at) * self._per_s)


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """An attempt that was let through and counts as failed until it is known to have succeeded."""

    name: str
    network: str
    trusted: bool


class LoginThrottle:
    """Decides whether a login may be tried now. Each of its four tables holds at most ``most`` entries."""

    def __init__(self, clock: Clock, *, attempts: int, window_s: float, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._pairs = _Buckets(attempts, window_s, most)
        self._names = _Buckets(max(attempts * _NAME_FACTOR, attempts + 1), window_s, most)
        self._networks = _Buckets(attempts * _ADDRESS_FACTOR, window_s, most)
        self._succeeded: OrderedDict[tuple[str, str], float] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many entries are held in memory."""
        return len(self._pairs) + len(self._names) + len(self._networks) + len(self._succeeded)

    def admit(self, name: str, address: str) -> LoginAttempt:
        """Let an attempt through, counted as failed. Raises ``TooManyLoginAttempts``."""
        # Names that nobody can have are one name: they may be of any length.
        attempt_name = name if is_user_name(name) else ""
        network = network_of(address)
        attempt = LoginAttempt(attempt_name, network, self._is_trusted(attempt_name, network))
        now = self._clock.monotonic()
        wait_s = max(buckets.wait_s(key, now) for buckets, key in self._counted(attempt))
        if wait_s > 0:
            raise TooManyLoginAttempts(
                f"Too many failed logins; try again in {math.ceil(wait_s)} s", retry_after_s=wait_s
            )
        for buckets, key in self._counted(attempt):
            buckets.add(key, 1, now)
        return attempt

    def succeed(self, attempt: LoginAttempt) -> None:
        """The password was right: the attempt counts no more, and earlier ones from this address are forgiven."""
        self.withdraw(attempt)
        self._pairs.clear((attempt.name, attempt.network))
        self._succeeded[attempt.name, attempt.network] = self._clock.monotonic()
        self._succeeded.move_to_end((attempt.name, attempt.network))
        if len(self._succeeded) > self._most:
            self._succeeded.popitem(last=False)

    def withdraw(self, attempt: LoginAttempt) -> None:
        """The attempt was not carried out: it counts no more."""
        now = self._clock.monotonic()
        for buckets, key in self._counted(attempt):
            buckets.add(key, -1, now)

    def _counted(self, attempt: LoginAttempt) -> Sequence[tuple[_Buckets, Hashable]]:
        """The buckets that have a part in the attempt."""
        pair = (self._pairs, (attempt.name, attempt.network))
        if attempt.trusted:
            return [pair]
        return [pair, (self._names, attempt.name), (self._networks, attempt.network)]

    def _is_trusted(self, name: str, network: str) -> bool:
        """Whether the name has logged in from there lately."""
        at = self._succeeded.get((name, network))
        return at is not None and self._clock.monotonic() - at < _REMEMBER_SUCCESS_S
