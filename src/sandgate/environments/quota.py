"""How many live environments there may be, and how much memory they may have."""

from collections import Counter

from sandgate.config.settings import Settings
from sandgate.core.built import split_reference
from sandgate.core.environment import Environment
from sandgate.core.errors import MemoryQuotaExceeded, TooManyEnvironments, TooManyLiveTemplates
from sandgate.core.ids import UserId
from sandgate.core.limits import MIB
from sandgate.core.quota import EnvironmentsHeld, UserQuota

# Environments end when their users delete them or their lifetime is over; neither can be foretold.
_RETRY_AFTER_S = 10.0
_NOTHING = EnvironmentsHeld()


class Quota:
    """Counts the live environments of each user and of the server, their memory, and their built templates.

    The service is the only one that makes and ends environments on this server, so that its count is the truth about
    them. It is filled from the rows that are live at the start; what a user has elsewhere is told with each wish.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_environments
        self._held: Counter[UserId] = Counter()
        self._memory: Counter[UserId] = Counter()
        self._most_templates = settings.max_live_templates_per_user
        # Of each user the environments, and the sandboxes of steps, of each template that was built.
        self._templates: dict[UserId, Counter[str]] = {}
        self._total = 0

    @property
    def total(self) -> int:
        """The live environments of the server."""
        return self._total

    def of(self, user_id: UserId) -> EnvironmentsHeld:
        """What one user has here."""
        return EnvironmentsHeld(self._held[user_id], self._memory[user_id])

    def take(self, row: Environment, allowed: UserQuota, elsewhere: EnvironmentsHeld = _NOTHING) -> None:
        """Count one more, of a user who has others ``elsewhere``.

        Raises ``TooManyEnvironments``, ``MemoryQuotaExceeded``, ``TooManyLiveTemplates``, with nothing counted.
        """
        held = self.of(row.owner_id).plus(elsewhere)
        check_place(held, allowed)
        if self._total >= self._most:
            raise _refusal("The server holds", self._most, self._total, "server")
        check_memory(held, row.limits.machine_bytes, allowed)
        if _is_built(row.template):
            self.check_template(row.owner_id, row.template)
        self.count(row)

    def count(self, row: Environment) -> None:
        """Count one more that exists already, whatever the limits say."""
        self._held[row.owner_id] += 1
        self._memory[row.owner_id] += row.limits.machine_bytes
        self._total += 1
        if _is_built(row.template):
            self.count_template(row.owner_id, row.template)

    def give_back(self, row: Environment) -> None:
        """Count one less."""
        user_id = row.owner_id
        self._total -= 1
        self._held[user_id] -= 1
        self._memory[user_id] -= row.limits.machine_bytes
        if not self._held[user_id]:
            del self._held[user_id], self._memory[user_id]
        if _is_built(row.template):
            self.give_back_template(user_id, row.template)

    def count_template(self, user_id: UserId, template: str) -> None:
        """Count a sandbox of a built template, an environment or another one, whatever the limits say."""
        self._templates.setdefault(user_id, Counter())[template] += 1

    def give_back_template(self, user_id: UserId, template: str) -> None:
        """Count one less."""
        # Those of which there are none take no place.
        self._templates[user_id] -= Counter({template: 1})
        if not self._templates[user_id]:
            del self._templates[user_id]

    def check_template(self, user_id: UserId, template: str) -> None:
        """Raises ``TooManyLiveTemplates`` for one more.

        What is ready for a template takes memory of the server's, which nobody may have all of.
        """
        live = self._templates.get(user_id, Counter())
        if template not in live and len(live) >= self._most_templates:
            raise TooManyLiveTemplates(
                f"Your live environments and steps are of {len(live)} built templates, and {self._most_templates} is "
                f"the most at once; delete those of one, or take one of {', '.join(sorted(live))}",
                {"limit": self._most_templates, "used": len(live)},
                retry_after_s=_RETRY_AFTER_S,
            )


def _is_built(template: str) -> bool:
    return split_reference(template)[1] is not None


def check_place(held: EnvironmentsHeld, allowed: UserQuota) -> None:
    """Raises ``TooManyEnvironments`` for who has as many as are allowed."""
    if not allowed.has_place(held):
        raise _refusal("You have", allowed.environments or 0, held.count, "user")


def check_memory(held: EnvironmentsHeld, asked_bytes: int, allowed: UserQuota) -> None:
    """Raises ``MemoryQuotaExceeded`` for who would have more than is allowed."""
    if allowed.has_memory(held, asked_bytes):
        return
    limit, used = allowed.memory_bytes or 0, held.memory_bytes
    raise MemoryQuotaExceeded(
        f"Your live environments have {used // MIB} MiB of memory and this one asks for {asked_bytes // MIB}, files "
        f"included, but all of them together may have {limit // MIB}; delete one, or ask for less of `memory_mb` and "
        "`disk_mb`",
        {"limit_bytes": limit, "used_bytes": used, "asked_bytes": asked_bytes, "scope": "user"},
        retry_after_s=_RETRY_AFTER_S,
    )


def _refusal(who: str, limit: int, used: int, scope: str) -> TooManyEnvironments:
    return TooManyEnvironments(
        f"{who} {used} live environments, and {limit} is the most allowed; delete one, or wait until one expires",
        {"limit": limit, "used": used, "scope": scope},
        retry_after_s=_RETRY_AFTER_S,
    )
