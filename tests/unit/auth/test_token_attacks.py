"""Every attack on tokens that RFC 8725 and the years since have brought."""

import hashlib
import json
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandgate.core.ids import make_user_id
from tests.unit.auth.forge import Forge, b64


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
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_made_up_token_is_accepted(forge: Forge, token: str) -> None:
    """Whatever the text is, the answer is ``NotAuthenticated`` and nothing else."""
    assert forge.is_refused(token)
