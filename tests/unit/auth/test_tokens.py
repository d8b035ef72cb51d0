"""Tokens, and every attack on them that RFC 8725 and the years since have brought."""

import base64
import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandgate.auth.keys import SigningKey
from sandgate.auth.tokens import Tokens
from sandgate.core.clock import ManualClock
from sandgate.core.errors import NotAuthenticated
from sandgate.core.ids import UserId, make_id, make_user_id

USER = make_user_id()


def b64(data: bytes) -> str:
    """Base 64 as tokens are written in."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class MemoryKeys:
    """Satisfies ``Keys``."""

    def __init__(self) -> None:
        self.replace()

    def replace(self) -> None:
        """Drop the key for a new one."""
        made_at = datetime(2026, 1, 1, tzinfo=UTC)
        self._key = SigningKey(make_id("key"), 1, made_at, secrets.token_bytes(32))

    def active(self) -> SigningKey:
        """The only key."""
        return self._key

    def find(self, kid: str) -> SigningKey | None:
        """The only key, by its name."""
        return self._key if kid == self._key.kid else None


class Forge:
    """Makes tokens as an attacker would, and some that only the holder of the key can make."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.keys = MemoryKeys()
        self.tokens = Tokens(self.keys, self.clock, lifetime_s=3600, remembered=4)
        self.now = int(self.clock.now().timestamp())

    def issue(self, user_id: UserId = USER) -> str:
        """A token that is in order."""
        return self.tokens.issue(user_id, self.clock.now()).access_token

    def header(self, **changes: Any) -> dict[str, Any]:
        """A header that is in order, but for the changes."""
        return {"alg": "HS256", "typ": "at+jwt", "kid": self.keys.active().kid, **changes}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims that are in order, but for the changes."""
        return {
            "iss": "sandgate",
            "aud": "sandgate-api",
            "sub": USER,
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + 60,
            "jti": "tok-" + "0" * 26,
            **changes,
        }

    def sign(self, header: bytes, payload: bytes, secret: bytes | None = None) -> str:
        """A token of these very bytes, signed with the server's own key unless another is given."""
        signing_input = f"{b64(header)}.{b64(payload)}"
        key = self.keys.active().secret if secret is None else secret
        return f"{signing_input}.{b64(hmac.digest(key, signing_input.encode(), hashlib.sha256))}"

    def make(self, header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
        """A token of these fields, signed with the server's own key."""
        return self.sign(json.dumps(header or self.header()).encode(), json.dumps(claims or self.claims()).encode())

    def is_refused(self, token: str) -> bool:
        """Whether the token is refused, twice in the same way."""
        for _ in range(2):
            with pytest.raises(NotAuthenticated):
                self.tokens.verify(token)
        return True


@pytest.fixture
def forge() -> Forge:
    """A forge with the keys of the server."""
    return Forge()


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


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], ["HS256"], {"HS256": 1}])
@pytest.mark.parametrize("signature", ["", "AA", "sign"])
def test_no_algorithm_is_taken_from_the_header(forge: Forge, algorithm: Any, signature: str) -> None:
    """``alg`` none in any spelling and of any type is refused, with and without a signature."""
    signed = forge.make(forge.header(alg=algorithm))
    stripped = signed.rpartition(".")[0]
    token = signed if signature == "sign" else f"{stripped}.{signature}"
    assert forge.is_refused(token)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256", "HS256 "])
def test_only_one_algorithm_is_known(forge: Forge, algorithm: str) -> None:
    """Another algorithm is refused even with the signature that HS256 would give."""
    assert forge.is_refused(forge.make(forge.header(alg=algorithm)))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_hash_with_the_right_key_is_refused(forge: Forge, algorithm: str) -> None:
    """A token that is rightly signed by a sister algorithm is none of ours."""
    key = forge.keys.active()
    secret = key.secret.ljust(64, b"\0")  # HMAC pads with zeros, so that the longer key is the same key.
    token = jwt.encode(forge.claims(), secret, algorithm, headers={"kid": key.kid, "typ": "at+jwt"})
    assert forge.is_refused(token)


@pytest.mark.parametrize(
    "secret", [b"", b"\0" * 32, b"secret", b"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"]
)
def test_weak_and_public_keys_sign_nothing(forge: Forge, secret: bytes) -> None:
    """Empty keys, guessed keys and a public key taken for a secret (the confusion of HS with RS) are of no use."""
    header, claims = json.dumps(forge.header()).encode(), json.dumps(forge.claims()).encode()
    assert forge.is_refused(forge.sign(header, claims, secret))


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "../../../../dev/null",
        "/dev/null",
        "key-00000000000000000000000000",
        "' OR '1'='1",
        "x' UNION SELECT 'secret",
        "key\0",
        "|cat /etc/passwd",
        "http://127.0.0.1/key",
        "\ud800",
        "k" * 300,
        None,
        0,
        True,
        [],
        {"kid": "x"},
    ],
)
@pytest.mark.parametrize("secret", [b"", b"secret"])
def test_the_key_name_looks_up_a_known_key_and_nothing_else(forge: Forge, kid: Any, secret: bytes) -> None:
    """Paths, SQL, NUL, URLs and other types in ``kid`` find no key, and so do tokens signed with what lies there."""
    header = json.dumps(forge.header(kid=kid)).encode()
    assert forge.is_refused(forge.sign(header, json.dumps(forge.claims()).encode(), secret))


def test_a_missing_key_name_is_refused(forge: Forge) -> None:
    """There is no default key."""
    header = forge.header()
    del header["kid"]
    assert forge.is_refused(forge.make(header))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+JWT", "application/at+jwt", "", None, 1, "logout+jwt"])
def test_another_type_of_token_is_refused(forge: Forge, kind: Any) -> None:
    """A token made for another purpose cannot be presented here."""
    assert forge.is_refused(forge.make(forge.header(typ=kind)))


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": []},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"jku": "http://127.0.0.1/keys"},
        {"x5u": "http://127.0.0.1/cert"},
        {"jwk": {"kty": "oct", "k": "AA"}},
        {"x5c": ["AA"]},
        {"zip": "DEF"},
        {"enc": "A128GCM"},
        {"p2c": 2_000_000_000},
        {"cty": "JWT"},
    ],
)
def test_no_further_header_is_obeyed(forge: Forge, extra: dict[str, Any]) -> None:
    """Critical extensions, keys of the attacker's own, compression: a header that ours do not have is refused."""
    assert forge.is_refused(forge.make(forge.header(**extra)))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"])
def test_every_claim_is_required(forge: Forge, name: str) -> None:
    """A token that lacks one is refused."""
    claims = forge.claims()
    del claims[name]
    assert forge.is_refused(forge.make(claims=claims))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"])
@pytest.mark.parametrize("value", [None, True, False, "", "x", [], {}, [1], -1, 2**63, 10**400, 1e300, "1790000000"])
def test_every_claim_is_checked(forge: Forge, name: str, value: Any) -> None:
    """A claim of another type or value is refused, and nothing breaks on its way."""
    assert forge.is_refused(forge.make(claims=forge.claims(**{name: value})))


@pytest.mark.parametrize("name", ["nbf", "exp"])
def test_fractions_of_a_second_are_refused(forge: Forge, name: str) -> None:
    """We write whole seconds there, so that anything else is not from us."""
    assert forge.is_refused(forge.make(claims=forge.claims(**{name: forge.now + 30.5})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iss", "sandgate "),
        ("iss", "Sandgate"),
        ("iss", ["sandgate"]),
        ("aud", ["sandgate-api"]),
        ("aud", ["sandgate-api", "other"]),
        ("aud", "sandgate"),
        ("sub", "user-1 OR 1=1"),
        ("sub", "user-000000000000\n"),
        ("sub", "env-000000000000"),
        ("jti", "tok-" + "a" * 10_0),
        ("jti", "tok-0000000000000\0"),
    ],
)
def test_values_are_compared_exactly(forge: Forge, name: str, value: Any) -> None:
    """Issuer, audience, subject and id have one form."""
    assert forge.is_refused(forge.make(claims=forge.claims(**{name: value})))


def test_further_claims_are_refused(forge: Forge) -> None:
    """A role in a token would be obeyed by nobody; that it is there says that the token is not from us."""
    assert forge.is_refused(forge.make(claims=forge.claims(role="admin")))


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


def test_every_changed_character_is_noticed(forge: Forge) -> None:
    """Header, payload and signature: whatever single character is replaced, dropped or doubled."""
    token = forge.issue()
    for place in range(0, len(token), 3):
        other = "A" if token[place] != "A" else "B"
        for changed in (other, "", token[place] * 2):
            assert forge.is_refused(token[:place] + changed + token[place + 1 :])


def test_the_last_character_has_one_spelling(forge: Forge) -> None:
    """Bits of the last character that carry nothing must be zero, or one token would have four spellings."""
    token = forge.issue()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = [letter for letter in letters if letter == token[-1] or not forge.is_refused(token[:-1] + letter)]
    assert accepted == [token[-1]]


def test_parts_of_two_tokens_do_not_mix(forge: Forge) -> None:
    """The signature belongs to header and payload together."""
    first, second = forge.issue().split("."), forge.issue(make_user_id()).split(".")
    assert forge.is_refused(".".join([first[0], second[1], first[2]]))
    assert forge.is_refused(".".join([first[0], first[1], second[2]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token + " ",
        lambda token: token.replace(".", ". ", 1),
        lambda token: token + "=",
        lambda token: token + ".",
        lambda token: "." + token,
        lambda token: token + "." + token,
        lambda token: token + "\0",
        lambda token: token + "\u00a0",
        lambda token: token.replace(".", "\uff0e"),
        lambda token: token.replace(".", "\u2024"),
        lambda token: token + "\ud800",
        lambda token: token.replace("-", "+").replace("_", "/") + "+",
        lambda token: token.swapcase(),
        lambda token: token.partition(".")[2],
        lambda token: token.rpartition(".")[0],
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: "Bearer " + token,
        lambda token: json.dumps({"token": token}),
    ],
)
def test_only_the_compact_form_is_read(forge: Forge, change: Any) -> None:
    """White space, padding, other alphabets, other dots, more and fewer parts."""
    assert forge.is_refused(change(forge.issue()))


def test_a_doubled_claim_is_refused(forge: Forge) -> None:
    """Two readers could take a different one each."""
    claims = json.dumps(forge.claims())
    doubled = claims[:-1] + ', "sub": "user-' + "0" * 26 + '"}'
    escaped = claims[:-1] + ', "s\\u0075b": "user-' + "0" * 26 + '"}'
    header = json.dumps(forge.header()).encode()
    assert forge.is_refused(forge.sign(header, doubled.encode()))
    assert forge.is_refused(forge.sign(header, escaped.encode()))


def test_a_doubled_header_is_refused(forge: Forge) -> None:
    """The same holds of the algorithm and the key's name."""
    header = json.dumps(forge.header())
    claims = json.dumps(forge.claims()).encode()
    assert forge.is_refused(forge.sign((header[:-1] + ', "alg": "HS256"}').encode(), claims))
    assert forge.is_refused(forge.sign(('{"alg": "none", ' + header[1:]).encode(), claims))


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b'"x"', b"1", b"{", b"\xff\xfe", b"[" * 5000, b'{"exp": NaN}', b'{"exp": 1e999}', b"{}"],
)
def test_no_payload_breaks_the_reader(forge: Forge, payload: bytes) -> None:
    """Not even one that is rightly signed."""
    assert forge.is_refused(forge.sign(json.dumps(forge.header()).encode(), payload))


@pytest.mark.parametrize(
    "header", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 5000, b'{"a":' * 1000, b"\xef\xbb\xbf{}"]
)
def test_no_header_breaks_the_reader(forge: Forge, header: bytes) -> None:
    """It is read before the signature is checked, and so it is bounded."""
    assert forge.is_refused(forge.sign(header, json.dumps(forge.claims()).encode()))


@pytest.mark.parametrize("size", [8 * 1024 + 1, 1024 * 1024])
def test_a_huge_token_is_refused_unread(forge: Forge, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is hashed, decoded or parsed of it."""
    monkeypatch.setattr(hashlib, "sha256", None)
    assert forge.is_refused("A" * size)
    assert forge.is_refused(forge.issue.__name__ + "." * size)


def test_numbers_in_other_forms_are_refused(forge: Forge) -> None:
    """An ``exp`` in infinity, hexadecimal or as text lasts no longer."""
    header = json.dumps(forge.header()).encode()
    for text in ("Infinity", "-Infinity", "NaN", "1e999", '"9999999999"', "[9999999999]", "true"):
        claims = json.dumps(forge.claims()).replace(f'"exp": {forge.now + 60}', f'"exp": {text}')
        assert text in claims
        assert forge.is_refused(forge.sign(header, claims.encode()))


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


TEXT = st.text(max_size=200)
SEGMENT = st.binary(max_size=120).map(b64)
FIELDS = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "iss", "sub"]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.just("HS256"), st.just("at+jwt")),
).map(lambda fields: b64(json.dumps(fields).encode()))
TOKEN = st.one_of(
    TEXT,
    st.from_regex(r"[A-Za-z0-9_-]{1,80}(\.[A-Za-z0-9_-]{1,80}){1,3}"),
    st.tuples(SEGMENT | FIELDS, SEGMENT | FIELDS, SEGMENT).map(".".join),
)


@given(TOKEN)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_made_up_token_is_accepted(forge: Forge, token: str) -> None:
    """Whatever the text is, the answer is ``NotAuthenticated`` and nothing else."""
    assert forge.is_refused(token)
