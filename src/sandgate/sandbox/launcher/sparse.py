"""Files with holes: where there is something in them."""

import errno
import os
from collections.abc import Iterator


def find_parts(content: int, size: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each part of an open file that is no hole, in bytes, up to ``size``. Raises ``OSError``."""
    start = 0
    while start < size:
        try:
            start = os.lseek(content, start, os.SEEK_DATA)
        except OSError as error:
            # Nothing comes any more.
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(size, os.lseek(content, start, os.SEEK_HOLE))
        yield start, end
        start = end
