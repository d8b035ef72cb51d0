"""Tokens: what they say, how long they last, how they are remembered."""

import jwt
import pytest

from tests.unit.auth.forge import USER, Forge


def test_a_token_in_order_is_accepted(forge: Forge) -> None:
    """The forge's own tokens are right but for what a test changes, so the tests below prove what they say."""
    claims = forge.tokens.verify(forge.make())
    assert (claims.user_id, claims.token_id) == (USER, "tok-" + "0" * 26)


def test_an_issued_token_says_who_and_how_long(forge: Forge) -> None:
    """Every claim that is checked is there."""
    claims = forge.tokens.verify(forge.issue())
    assert claims.user_id == USER
    assert claims.expires_at - claims.not_before == 3600
    assert claims.end.timestamp() == claims.expires_at
    assert claims.issued_at == forge.clock.now().timestamp()


def test_each_token_has_an_id_of_its_own(forge: Forge) -> None:
    """Two logins can be ended one by one."""
    assert forge.tokens.verify(forge.issue()).token_id != forge.tokens.verify(forge.issue()).token_id


def test_it_is_a_token_that_others_can_read(forge: Forge) -> None:
    """The format is the standard's: another library verifies it."""
    token = forge.issue()
    key = forge.keys.active().secret
    read = jwt.decode(
        token, key, algorithms=["HS256"], audience="sandgate-api", options={"verify_exp": False, "verify_nbf": False}
    )
    assert read["sub"] == USER


def test_a_life_longer_than_any_setting_is_refused(forge: Forge) -> None:
    """Whoever finds a key cannot make a token for ever."""
    assert forge.is_refused(forge.make(claims=forge.claims(exp=forge.now + 8 * 86_400)))


def test_an_expired_token_is_refused(forge: Forge) -> None:
    """Also when it was verified, and remembered, while it was valid."""
    token = forge.issue()
    forge.clock.advance(3599)
    forge.tokens.verify(token)
    forge.clock.advance(1)
    assert forge.is_refused(token)


def test_a_token_of_the_future_is_refused(forge: Forge) -> None:
    """Clocks of two gateways may differ by half a minute, not more."""
    assert forge.tokens.verify(forge.make(claims=forge.claims(nbf=forge.now + 29, exp=forge.now + 60)))
    assert forge.is_refused(forge.make(claims=forge.claims(nbf=forge.now + 31, exp=forge.now + 60)))


def test_few_tokens_are_remembered(forge: Forge) -> None:
    """The memory of verified tokens is bounded, and a forgotten one is verified anew."""
    issued = [forge.issue() for _ in range(9)]
    assert [forge.tokens.verify(token).user_id for token in issued * 2] == [USER] * 18


def test_a_remembered_token_is_not_verified_twice(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time costs a look-up, whoever asks as often as they like."""
    token = forge.issue()
    first = forge.tokens.verify(token)
    monkeypatch.setattr(forge.tokens, "_verify_anew", None)
    assert forge.tokens.verify(token) is first


def test_a_dropped_key_ends_remembered_tokens(forge: Forge) -> None:
    """What is remembered is not believed longer than its key."""
    token = forge.issue()
    forge.tokens.verify(token)
    forge.keys.replace()
    assert forge.is_refused(token)
