"""Masks against llguidance, step by step.

SAME of the corpus, two vocabularies, two seeds: a random walk over allowed tokens; at every step each bit of our mask
is llguidance's, with the same white space and without its forcing of tokens. White space anywhere: one vocabulary.
"""

import json
import random
import re

import llguidance
import numpy as np
import pytest

from tests.grammar.corpus import SAME
from tests.grammar.driver import MODELS, SPACE_ANY, SPACE_NONE, Ours, Theirs

STEPS = 40


@pytest.fixture(scope="module", params=list(MODELS))
def ours(request):
    tool = Ours(request.param)
    yield tool
    tool.close()


@pytest.fixture(scope="module")
def theirs(ours):
    return Theirs(ours)


def their_grammar(schema, flexible=False):
    guidance = {"whitespace_flexible": flexible, "item_separator": ",", "key_separator": ":"}
    schema = {**schema, "x-guidance": guidance}
    return llguidance.LLMatcher.grammar_from_lark(
        '%llguidance {"no_forcing": true}\nstart: %json ' + json.dumps(schema))


def choose(rng, mask, tokens, eog):
    """A random token, short and structural ones more often, so that walks come to an end."""
    allowed = np.nonzero(mask)[0]
    ends = [i for i in allowed if i in eog]
    if ends and rng.random() < 0.3:
        return ends[0]
    marks = [i for i in allowed if tokens[i][:1] in b'"]},:' and tokens[i]]
    pool = marks if marks and rng.random() < 0.4 else [int(i) for i in rng.sample(list(allowed), min(8, len(allowed)))]
    return int(min(pool, key=lambda i: (rng.random() < 0.5, len(tokens[i]))))


# llguidance lets the names of an open object carry any \u escape, ours only those of control characters.
ESCAPE = re.compile(rb"\\u[0-9A-Fa-f]")


@pytest.mark.parametrize("flexible", [False, True], ids=["compact", "any space"])
@pytest.mark.parametrize("name", SAME)
def test_masks_equal(ours, theirs, name, flexible):
    if flexible and ours.model != "smollm2":
        pytest.skip("one vocabulary is enough for white space")
    ours.compile("j", json.dumps(SAME[name]), SPACE_ANY if flexible else SPACE_NONE)
    grammar = their_grammar(SAME[name], flexible)
    compared = 0
    for seed in range(2):
        rng = random.Random(f"{name}{seed}")
        ours.clear()
        theirs.start(grammar)
        text = b""
        for _ in range(STEPS):
            mine, other = ours.mask(), theirs.mask()
            differ = [(ours.tokens[i], bool(mine[i])) for i in np.nonzero(mine != other)[0]
                      if mine[i] or not ESCAPE.search(text[-6:] + ours.tokens[i])]
            assert not differ, f"after {text!r}: {len(differ)} differ, {differ[:20]}"
            compared += 1
            token = choose(rng, mine, ours.tokens, ours.eog)
            if token in ours.eog:
                break
            ours.accept(token)
            assert theirs.matcher.consume_token(token)
            text += ours.tokens[token]
    assert compared >= 3
