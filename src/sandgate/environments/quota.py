"""How many live environments there may be, and how much memory they may have."""

from collections import Counter

from sandgate.config.settings import Settings
from sandgate.core.errors import MemoryQuotaExceeded, TooManyEnvironments
from sandgate.core.ids import UserId
from sandgate.core.limits import MIB
from sandgate.core.quota import UserQuota

# Environments end when their users delete them or their lifetime is over; neither can be foretold.
_RETRY_AFTER_S = 10.0


class Quota:
    """Counts the live environments of each user and of the server, and their memory, in memory.

    The service is the only one that makes and ends environments, so that its count is the truth. It is filled
    from the rows that are live at the start.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_environments
        self._held: Counter[UserId] = Counter()
        self._memory: Counter[UserId] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """The live environments of the server."""
        return self._total

    def held_by(self, user_id: UserId) -> int:
        """The live environments of one user."""
        return self._held[user_id]

    def memory_of(self, user_id: UserId) -> int:
        """The memory that the live environments of one user may use together, in bytes."""
        return self._memory[user_id]

    def take(self, user_id: UserId, memory_bytes: int, allowed: UserQuota) -> None:
        """Count one more. Raises ``TooManyEnvironments``, ``MemoryQuotaExceeded``, with nothing counted."""
        held, memory = self._held[user_id], self._memory[user_id]
        if allowed.environments is not None and held >= allowed.environments:
            raise self._refusal("You have", allowed.environments, held, "user")
        if self._total >= self._most:
            raise self._refusal("The server holds", self._most, self._total, "server")
        if allowed.memory_bytes is not None and memory + memory_bytes > allowed.memory_bytes:
            limit = allowed.memory_bytes
            raise MemoryQuotaExceeded(
                f"Your live environments have {memory // MIB} MiB of memory and this one asks for "
                f"{memory_bytes // MIB}, but all of them together may have {limit // MIB}; delete one, or ask for less",
                {"limit_bytes": limit, "used_bytes": memory, "asked_bytes": memory_bytes, "scope": "user"},
                retry_after_s=_RETRY_AFTER_S,
            )
        self.count(user_id, memory_bytes)

    def count(self, user_id: UserId, memory_bytes: int) -> None:
        """Count one more that exists already, whatever the limits say."""
        self._held[user_id] += 1
        self._memory[user_id] += memory_bytes
        self._total += 1

    def give_back(self, user_id: UserId, memory_bytes: int) -> None:
        """Count one less."""
        self._total -= 1
        self._held[user_id] -= 1
        self._memory[user_id] -= memory_bytes
        if not self._held[user_id]:
            del self._held[user_id], self._memory[user_id]

    @staticmethod
    def _refusal(who: str, limit: int, used: int, scope: str) -> TooManyEnvironments:
        return TooManyEnvironments(
            f"{who} {used} live environments, and {limit} is the most allowed; delete one, or wait until one expires",
            {"limit": limit, "used": used, "scope": scope},
            retry_after_s=_RETRY_AFTER_S,
        )
