"""How many live environments there may be."""

from collections import Counter

from sandgate.config.settings import Settings
from sandgate.core.errors import TooManyEnvironments
from sandgate.core.ids import UserId

# Environments end when their users delete them or their lifetime is over; neither can be foretold.
_RETRY_AFTER_S = 10.0


class Quota:
    """Counts the live environments of each user and of the server, in memory.

    The service is the only one that makes and ends environments, so that its count is the truth. It is filled
    from the rows that are live at the start.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_environments
        self._most_per_user = settings.max_environments_per_user
        self._held: Counter[UserId] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """The live environments of the server."""
        return self._total

    def held_by(self, user_id: UserId) -> int:
        """The live environments of one user."""
        return self._held[user_id]

    def take(self, user_id: UserId) -> None:
        """Count one more. Raises ``TooManyEnvironments``, with nothing counted."""
        if self._held[user_id] >= self._most_per_user:
            raise self._refusal("You have", self._most_per_user, "user")
        if self._total >= self._most:
            raise self._refusal("The server holds", self._most, "server")
        self.count(user_id)

    def count(self, user_id: UserId) -> None:
        """Count one more that exists already, whatever the limits say."""
        self._held[user_id] += 1
        self._total += 1

    def give_back(self, user_id: UserId) -> None:
        """Count one less."""
        self._total -= 1
        self._held[user_id] -= 1
        if not self._held[user_id]:
            del self._held[user_id]

    @staticmethod
    def _refusal(who: str, limit: int, scope: str) -> TooManyEnvironments:
        return TooManyEnvironments(
            f"{who} {limit} live environments, which is the most allowed; delete one, or wait until one expires",
            {"limit": limit, "scope": scope},
            retry_after_s=_RETRY_AFTER_S,
        )
