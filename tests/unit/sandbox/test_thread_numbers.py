"""Where the C library keeps the number of a thread, which a fork of the agent's own has to set."""

import ctypes
import platform
import threading

import pytest

from sandgate_agent import system


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="it is not known where it is there")
def test_the_number_is_found() -> None:
    """With which the library sends signals to its own thread: that of whoever asks."""
    found: list[tuple[int, int]] = []

    def look() -> None:
        address = system.find_thread_number()
        found.append((ctypes.c_int.from_address(address).value if address else 0, threading.get_native_id()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    look()
    assert [number for number, _native in found] == [native for _number, native in found]


def test_a_library_that_keeps_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set there then."""
    for offset in (0, 16):
        for offsets in ("_TID_OFFSETS", "_TID_OFFSETS_OF_MUSL"):
            monkeypatch.setattr(system, offsets, {platform.machine(): offset})
        assert system.find_thread_number() == 0
    monkeypatch.setattr(system, "_MACHINE", "of another kind")
    assert system.find_thread_number() == 0
