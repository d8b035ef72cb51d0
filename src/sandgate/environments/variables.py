"""What an environment gives to all code in it: its own variables, and its owner's secrets."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Protocol

from sandgate.config.settings import Settings
from sandgate.core.environment import Environment
from sandgate.core.errors import EnvironmentVariablesTooLarge, InvalidRequest
from sandgate.core.execution import ExecutionRequest, Surroundings
from sandgate.core.ids import UserId
from sandgate.core.principal import Principal
from sandgate.core.variables import Variables


class OpenSecrets(Protocol):
    """Reads secrets of a user."""

    async def __call__(self, owner_id: UserId, names: Collection[str]) -> Mapping[str, str]:
        """The values of those that are there. Raises ``SecretUnreadable``, ``StoreUnavailable``."""
        ...


async def _open_none(_owner_id: UserId, _names: Collection[str]) -> Mapping[str, str]:
    return {}


class VariableGiver:
    """Gives an environment's variables to its executions."""

    def __init__(self, settings: Settings, open_secrets: OpenSecrets | None) -> None:
        self._most_bytes = settings.max_environment_env_bytes
        self._open = open_secrets or _open_none

    async def check(self, owner_id: UserId, wanted: Variables) -> None:
        """Whether an environment can be made with these.

        Raises ``EnvironmentVariablesTooLarge``, ``InvalidRequest`` for secrets that are not there and for names that
        stand for two things, ``SecretUnreadable``, ``StoreUnavailable``.
        """
        size = sum(len(text.encode("utf-8", "replace")) for pair in wanted.env.items() for text in pair)
        if size > self._most_bytes:
            raise EnvironmentVariablesTooLarge(
                f"The environment variables are {size} bytes long together; {self._most_bytes} is the most",
                {"limit_bytes": self._most_bytes},
            )
        if both := sorted(set(wanted.secrets) & set(wanted.env)):
            raise InvalidRequest.for_fields([("secrets", f"{both[0]} is in env, too; a variable has one value")])
        if wanted.secrets:
            there = await self._open(owner_id, wanted.secrets)
            missing = [name for name in wanted.secrets if name not in there]
            if missing:
                raise InvalidRequest.for_fields([("secrets", f"you have no secret {missing[0]}")])

    async def surround(self, caller: Principal, row: Environment, around: Surroundings | None) -> Surroundings | None:
        """What code of the caller's finds; what comes with the code is stronger.

        Secrets are their owner's affair, also against an admin, whose code does not get them; those that are there no
        more are not given. Raises ``SecretUnreadable``, ``StoreUnavailable``.
        """
        given = row.variables
        if not given:
            return around
        env = dict(given.env)
        if given.secrets and caller.user_id == row.owner_id:
            env |= await self._open(row.owner_id, given.secrets)
        around = around or Surroundings()
        return replace(around, env={**env, **around.env})


def give_step(row: Environment, request: ExecutionRequest) -> ExecutionRequest:
    """A workflow's step in an environment: it finds its variables, but not its secrets, which steps name themselves.

    Of those that they name nothing is shown.
    """
    if not row.variables.env or request.data is None:
        return request
    return replace(request, data=replace(request.data, env={**row.variables.env, **request.data.env}))
