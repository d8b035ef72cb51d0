"""What an environment is made from."""

from dataclasses import dataclass

from sandgate.core.limits import Limits
from sandgate.core.states import Isolation


@dataclass(frozen=True, slots=True)
class Template:
    """An immutable recipe.

    ``interpreter`` is the absolute path of the interpreter on the host, ``prefix`` the folder that it needs
    (its own ``sys.base_prefix``). A template whose interpreter was not found is kept with ``unavailable_reason``
    that says what to do. ``isolations`` are the classes that its environments can have, first the one of those that
    ask for none; none: the server's.
    """

    name: str
    language: str
    language_version: str
    interpreter: str | None
    prefix: str | None
    limits: Limits
    preload: tuple[str, ...] = ()
    unavailable_reason: str | None = None
    isolations: tuple[Isolation, ...] = ()

    @property
    def isolation(self) -> Isolation | None:
        """The class of environments that ask for none; None: the server's."""
        return self.isolations[0] if self.isolations else None

    @property
    def available(self) -> bool:
        """Whether environments can be made from it on this machine."""
        return self.unavailable_reason is None
