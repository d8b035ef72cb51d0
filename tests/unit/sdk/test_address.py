"""Addresses of servers."""

import pytest

from sandgate.sdk.address import is_loopback, is_readable_on_the_way, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        (" https://Sandgate.Example/a/b// ", "https://sandgate.example/a/b"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_address_has_one_form(text: str, address: str) -> None:
    """So that two can be compared."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("address", "stays", "readable"),
    [
        ("http://127.0.0.1:1", True, False),
        ("http://[::1]", True, False),
        ("http://localhost", True, False),
        ("http://localhost.evil.example", False, True),
        ("http://10.0.0.1", False, True),
        ("https://10.0.0.1", False, False),
    ],
)
def test_what_others_can_read_is_known(address: str, stays: bool, readable: bool) -> None:
    """Without encryption, anything that leaves the machine."""
    assert (is_loopback(address), is_readable_on_the_way(address)) == (stays, readable)
