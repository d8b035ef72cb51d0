"""The spares of every template in use, and what is stopped of a template that is in use no more."""

import operator
from collections.abc import Callable, Collection

from sandgate.core.errors import MechanismFault
from sandgate.core.limits import Limits
from sandgate.core.states import Isolation
from sandgate.sandbox.launcher.config import LauncherConfig
from sandgate.sandbox.launcher.life import Life
from sandgate.sandbox.launcher.log import log
from sandgate.sandbox.launcher.reactor import Reactor
from sandgate.sandbox.launcher.sandbox import can_become, can_become_on_disk
from sandgate.sandbox.launcher.spares import Demand, Spares
from sandgate.sandbox.launcher.workshop import Workshop

Make = Callable[[Isolation, str, Limits, str | None], Life]

# Templates that users have had built may be many, and their processes large.
_LEAST_OF_BUILT, _MOST_OF_BUILT = 2, 16
_LOOKS_A_PERIOD = 4


class Stock:
    """``make`` starts a sandbox; ``lives`` are all of them, spares among them. ``is_busy``: somebody waits for one."""

    def __init__(
        self,
        config: LauncherConfig,
        reactor: Reactor,
        workshop: Workshop,
        lives: Collection[Life],
        make: Make,
        is_busy: Callable[[], bool],
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._workshop = workshop
        self._lives = lives
        self._make = make
        self._is_busy = is_busy
        self._spares: dict[tuple[Isolation, str], Spares] = {}
        if config.zygote_idle_s:
            self._look_again()

    def take(self, isolation: Isolation, template: str, limits: Limits) -> Life | None:
        """A spare with these limits, if there is one."""
        spares = self._find(isolation, template)
        return None if spares is None else spares.take(limits)

    def on_ready(self, spare: Life) -> None:
        """A spare is built."""
        spares = self._spares.get((spare.isolation, spare.template))
        if spares is None:
            spare.kill("it is a spare of a template that is not used any more")
        else:
            spares.on_ready(spare)

    def on_gone(self, spare: Life) -> None:
        """A spare has ended."""
        spares = self._spares.get((spare.isolation, spare.template))
        if spares is not None:
            spares.on_gone(spare)

    def stop(self) -> None:
        """Make no more."""
        for spares in self._spares.values():
            spares.stop()

    def make_room(self, template: str) -> None:
        """Where a zygote more would be too many, stop one of which nobody has made use for the longest."""
        if self._workshop.has_room(template):
            return
        for name in self._workshop.find_idle(0.0, {*self._used(), template}):
            if self._workshop.is_counted_with(name, template) and not self._workshop.has_room(template):
                self._retire(name)

    def _find(self, isolation: Isolation, template: str) -> Spares | None:
        """Those of a template; None where there are none."""
        key = isolation, template
        if key not in self._spares and (limits := self._workshop.find_spare_limits(template)) is not None:
            gvisor = isolation is Isolation.GVISOR
            self._spares[key] = Spares(
                self._demand(template, gvisor),
                self._reactor,
                limits,
                lambda: self._make_spare(isolation, template, limits),
                self._is_busy,
                self._find_fit(gvisor=gvisor),
            )
        return self._spares.get(key)

    def _demand(self, template: str, gvisor: bool) -> Demand:
        config = self._config
        least, most = (config.gvisor_spares, 0) if gvisor else (config.spares, config.most_spares)
        if self._workshop.is_built(template):
            return Demand(min(least, _LEAST_OF_BUILT), min(most, _MOST_OF_BUILT))
        return Demand(least, most)

    def _find_fit(self, *, gvisor: bool) -> Callable[[Limits, Limits], bool]:
        """Whether a sandbox of the class that was made with some limits can be given others."""
        if gvisor or not self._config.standard:
            return operator.eq
        return can_become if self._config.disks_folder is None else can_become_on_disk

    def _make_spare(self, isolation: Isolation, template: str, limits: Limits) -> Life | None:
        try:
            return self._make(isolation, template, limits, None)
        except (OSError, MechanismFault) as error:
            log(f"no spare sandbox of {template} can be made: {error}")
            return None

    def _used(self) -> set[str]:
        return {life.template for life in self._lives if life.environment_id is not None}

    def _look_again(self) -> None:
        self._reactor.call_later(self._config.zygote_idle_s / _LOOKS_A_PERIOD, self._look)

    def _look(self) -> None:
        for name in self._workshop.find_idle(self._config.zygote_idle_s, self._used()):
            self._retire(name)
        self._look_again()

    def _retire(self, name: str) -> None:
        """Stop what is ready for environments of a template; the next one brings it back."""
        log(f"template {name} has not been used for a while: its zygote is stopped")
        for key in [key for key in self._spares if key[1] == name]:
            self._spares.pop(key).retire()
        self._workshop.stop_zygote(name)
