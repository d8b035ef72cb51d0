"""What the process inside says in many records, of which none is long."""

import os
import tempfile
from typing import Any

from sandgate.core.files import MOST_RECORD_BYTES, parse_found
from sandgate_agent.file_worker import Worker


def _records(found: list[Any]) -> list[bytes]:
    with tempfile.TemporaryFile() as file:
        Worker(-1, file.fileno()).send_all(found)
        text = os.pread(file.fileno(), 1 << 24, 0)
    records = []
    while text:
        length = int.from_bytes(text[:4], "big")
        records.append(text[4 : 4 + length])
        text = text[4 + length :]
    return records


def test_many_things_are_told_in_records_that_are_none_of_them_long() -> None:
    """In order, up to an empty one."""
    things = [{"path": "\udcff" * 250, "number": number} for number in range(300)]
    *records, end = _records(things)
    assert end == b""
    assert [each for record in records for each in parse_found(record)] == things
    assert len(records) > 10
    assert max(map(len, records)) < MOST_RECORD_BYTES / 3


def test_the_longest_thing_fits_a_record() -> None:
    """A link with the longest path to the longest path, in names that take the most to be written."""
    entry = {"path": "\udcff" * 4095, "target": "\udcff" * 4095, "kind": "link", "modified_ns": 2**63, "inode": 2**63}
    record, _end = _records([entry])
    assert len(record) < MOST_RECORD_BYTES
    assert _records([]) == [b""]
