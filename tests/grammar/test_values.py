"""What the masks let through against jsonschema, which knows nothing of masks.

Walks: OURS of the corpus (the others are compared with llguidance), random walks to the end over allowed tokens; what was written must be valid JSON
that jsonschema's validator, with formats, finds valid. Values: for schemas of one number, string or array,
hypothesis-jsonschema draws valid values; each must be let through, byte by byte. Bounds and formats have edges of their
own beside them.
"""

import json
import random

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis_jsonschema import from_schema

from tests.grammar.corpus import OURS
from tests.grammar.driver import Ours
from tests.grammar.test_masks import choose

WALKS = 4
STEPS = 100
VALUES = 25
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER
# One value, so that the order of properties, which masks fix and validators don't, plays no part.
PLAIN = [name for name, s in OURS.items() if s.get("type") in ("integer", "number", "string", "array") and
         s.get("format") not in ("duration", "uuid") and "nullable" not in s and
         name != "pattern with classes"]  # hypothesis draws none of the first; classes are Unicode's in Python
EDGES = {
    "percent": ([0, 100, 99], [-1, 101, 1000]),
    "negative": ([-1, -10], [0, 1]),
    "around zero": ([-17, 0, 123], [-18, 124]),
    "exclusive": ([6, 8], [5, 9, 55]),
    "fractional bounds of integers": ([-2, 7], [-3, 8]),
    "large": ([999999, 10000000000], [999998, 10000000001]),
    "unit": ([0, 1, 0.5, 1.0], [-0.5, 1.0001, 2]),
    "open unit": ([0.001, 0.999], [0, 1, 0.0, 1.0]),
    "narrow": ([1.25, 1.375, 1.3], [1.2, 1.376, 1.2499]),
    "narrow negative": ([-0.05, -0.0026], [-0.0025, 0, -0.051]),
    "date": (["2024-02-28", "1999-12-31"], ["2024-13-01", "2024-00-10", "24-01-01", "2024-01-32"]),
    "time": (["23:59:59Z", "00:00:00.125+05:30"], ["24:00:00Z", "12:60:00Z", "12:00"]),
    "date-time": (["2024-02-28T12:00:00Z"], ["2024-02-28", "2024-02-28T25:00:00Z"]),
    "duration": (["P3D", "PT5M", "P1Y2M3DT4H5M6S"], ["P", "3D", "PT"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-42661417400", "g" * 36]),
    "email": (["joe.bloggs@example.com"], ["joe"]),
    "hostname": (["www.example.com", "a"], ["-a.example", "a..b"]),
    "ipv4": (["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "1.2.3.4.5"]),
    "ipv6": (["::1", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4"], ["1::2::3", "12345::", ":::"]),
    "uri": (["https://example.org/a?b=c#d"], ["example", "//x"]),
}


@pytest.fixture(scope="module")
def ours():
    tool = Ours("smollm2")
    yield tool
    tool.close()


@pytest.fixture(scope="module")
def letters(ours):
    """The token of each byte, and one that ends."""
    return {t[0]: i for i, t in enumerate(ours.tokens) if len(t) == 1}, ours.eog[0]


def lets_through(ours, letters, text):
    """How many bytes of text our masks let through, one more for its end."""
    tokens, end = letters
    ours.clear()
    for n, byte in enumerate(text):
        if not ours.mask()[tokens[byte]]:
            return n
        ours.accept(tokens[byte])
    return len(text) + int(ours.mask()[end])


def valid(schema, value):
    return not list(jsonschema.Draft202012Validator(schema, format_checker=FORMATS).iter_errors(value))


@pytest.mark.parametrize("name", OURS)
def test_walks_end_in_valid_values(ours, name):
    schema = OURS[name]
    ours.compile("j", json.dumps(schema))
    ended = 0
    for walk in range(WALKS):
        rng = random.Random(f"{name}{walk}")
        ours.clear()
        text = b""
        for _ in range(STEPS):
            mask = ours.mask()
            assert mask.any(), f"no way on after {text!r}"
            token = choose(rng, mask, ours.tokens, ours.eog)
            if token in ours.eog:
                value = json.loads(text)
                # OpenAPI's, which the validator does not know.
                if not (schema.get("nullable") and value is None):
                    assert valid(schema, value), f"{text!r} was let through"
                ended += 1
                break
            ours.accept(token)
            text += ours.tokens[token]
    assert ended > 0 or schema.get("type") not in ("integer", "number"), "no walk ended"


@pytest.mark.parametrize("name", PLAIN)
def test_valid_values_are_let_through(ours, letters, name):
    schema = OURS[name]
    ours.compile("j", json.dumps(schema))
    passed = [0]

    @seed(1)
    @settings(max_examples=VALUES, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(from_schema(schema))
    def check(value):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not valid(schema, value) or (schema["type"] in ("number", "integer") and set(text) & set("e.")
                                        and (schema["type"] == "integer" or "e" in text)):
            return  # what hypothesis takes for valid and jsonschema doesn't; powers of ten, 1.0 for 1
        text = text.encode(errors="surrogatepass")
        try:
            text.decode()
        except UnicodeDecodeError:
            return  # half a surrogate pair is no text
        if not set(text) <= set(letters[0]) or "\x85" in str(value):
            return  # a byte that no token has; white space in Python's expressions alone
        n = lets_through(ours, letters, text)
        assert n == len(text) + 1, f"{text!r} stops after {text[:n]!r}"
        passed[0] += 1

    check()
    assert passed[0] > 0


@pytest.mark.parametrize("name", EDGES)
def test_edges(ours, letters, name):
    ours.compile("j", json.dumps(OURS[name]))
    good, bad = EDGES[name]
    for value in good:
        text = json.dumps(value).encode()
        assert valid(OURS[name], value) and lets_through(ours, letters, text) == len(text) + 1, value
    for value in bad:
        text = json.dumps(value).encode()
        assert not valid(OURS[name], value), f"jsonschema takes {value!r}"
        assert lets_through(ours, letters, text) <= len(text), value
