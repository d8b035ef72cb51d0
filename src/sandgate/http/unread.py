"""How much of what they have asked for users leave unread."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sandgate.config.settings import Settings
from sandgate.core.errors import TooManyUnreadAnswers
from sandgate.core.ids import UserId


class UnreadAnswers:
    """Counts the bytes of large answers that are being sent, of each user and of all: they stay in memory until then.

    Whoever has nothing unread is always answered, also where others have left no room.
    """

    def __init__(self, most_per_user: int, most: int) -> None:
        self._most_per_user = most_per_user
        self._most = most
        self._held: Counter[UserId] = Counter()
        self._all = 0

    @classmethod
    def of(cls, settings: Settings) -> "UnreadAnswers":
        """From the settings."""
        return cls(settings.max_unread_answer_bytes_per_user, settings.max_unread_answer_bytes)

    def check(self, user_id: UserId, size_bytes: int = 0) -> None:
        """Whether there is room for so much more. Raises ``TooManyUnreadAnswers``."""
        if user_id not in self._held:
            return
        held = self._held[user_id]
        if held + max(1, size_bytes) > self._most_per_user:
            raise TooManyUnreadAnswers(
                f"{held} bytes of answers to you wait to be read, of {self._most_per_user} that may; read them first",
                {"limit_bytes": self._most_per_user, "scope": "user"},
            )
        if self._all + max(1, size_bytes) > self._most:
            raise TooManyUnreadAnswers(
                f"The server holds {self._all} bytes of answers that nobody has read, of {self._most} that it may; "
                "read yours first",
                {"limit_bytes": self._most, "scope": "server"},
            )

    @contextmanager
    def holding(self, user_id: UserId, size_bytes: int) -> Iterator[None]:
        """Counts an answer for as long as the block lasts."""
        self._held[user_id] += size_bytes
        self._all += size_bytes
        try:
            yield
        finally:
            self._all -= size_bytes
            self._held[user_id] -= size_bytes
            if not self._held[user_id]:
                del self._held[user_id]
