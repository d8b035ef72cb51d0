"""How many sandboxes are made before they are asked for, where the settings do not say."""

from sandgate.core.limits import MIB

# What one holds of the machine's memory, kernel memory and waiting child included, rounded up. Measured: P6.
SPARE_BYTES = 2 * MIB
_LEAST, _MOST = 8, 100
_PART_OF_MEMORY = 64


def choose_spare_counts(asked: int | None, most_asked: int | None, memory_bytes: int) -> tuple[int, int]:
    """How many there are of each template in use, and the most after many were asked for at once.

    ``memory_bytes`` is what the machine has; None is what the settings leave open.
    """
    fitting = memory_bytes // _PART_OF_MEMORY // SPARE_BYTES
    least = max(_LEAST, min(_MOST, fitting)) if asked is None else asked
    if least == 0:
        return 0, 0
    return least, max(least, least + least // 4 if most_asked is None else most_asked)
