"""Names of hosts in one form, and which addresses are special."""

from ipaddress import ip_address

import pytest

from sandgate.core.destinations import SpecialAddresses, parse_host

_FORMS = {
    "Example.ORG.": "example.org",
    "bücher.example": "xn--bcher-kva.example",
    "straße.example": "xn--strae-oqa.example",
    "192.0.2.1": "192.0.2.1",
    "[2001:DB8::1]": "2001:db8::1",
    "::ffff:192.0.2.1": "192.0.2.1",
    "_srv.example": "_srv.example",
    "127。0。0。1": "127.0.0.1",
}
_REFUSED = (
    "", ".", "..", "a..b", "-a.example", "a-.example", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "1.2.3.4.5", "a b", "a\0b", "a/b", "a@b", "a:b:c", "[::1", "fe80::1%eth0", "[192.0.2.1]", "a" * 64 + ".example",
    "a." * 127 + "aa", "\ud800.example", "*.example",
)  # fmt: skip


@pytest.mark.parametrize(("text", "form"), _FORMS.items())
def test_one_form(text: str, form: str) -> None:
    """Whatever the case, the dots, the script and the notation."""
    assert parse_host(text) == form


@pytest.mark.parametrize("text", _REFUSED)
def test_no_host(text: str) -> None:
    """What readers of addresses could take for something else is no host."""
    with pytest.raises(ValueError):
        parse_host(text)


def test_judged_as_what_it_holds() -> None:
    """Of a host's addresses the public ones, and of one that the setting names all."""
    special = SpecialAddresses("inside.example, 10.1.0.0/16", "SETTING")
    found = [ip_address(text) for text in ("::ffff:8.8.8.8", "10.1.0.1", "10.2.0.1", "::ffff:127.0.0.1")]
    assert [str(address) for address in special.judge("a.example", found)] == ["8.8.8.8", "10.1.0.1"]
    assert len(special.judge("INSIDE.example.", found)) == len(found)
