"""Time of one mask and of one compilation over the corpus of tests/grammar, beside llguidance.

    PYTHONPATH=. build/venv/bin/python benchmarks/grammar/mask_time.py

For each vocabulary: every schema of SAME (both compile it), seeded random walks of up to 40 tokens; at each token the time
of our mask alone, as the program under test measures it, and of llguidance's, around its call from Python into numpy's
memory (that call alone costs about a microsecond). The walks are the same. `first`: nothing is warm, the first visit of
each state counts; `again`: the same walks once more, as a second sequence of the grammar has it.
"""

import json
import random
import time

import llguidance
import llguidance.numpy
import numpy as np

from tests.grammar.corpus import SAME
from tests.grammar.driver import MODELS, SPACE_NONE, Ours, Theirs
from tests.grammar.test_masks import choose, their_grammar

WALKS, STEPS = 2, 40
KEYS = [(who, when) for who in ("ours", "llguidance") for when in ("first", "again")]


def now():
    return time.perf_counter_ns()


def walk(ours, theirs, name, seed, grammar, times, when):
    raw = np.zeros((1, (len(ours.tokens) + 31) // 32), np.int32)
    rng = random.Random(f"{name}{seed}")
    ours.clear()
    theirs.matcher.reset()
    for _ in range(STEPS):
        mask = ours.mask()
        times["ours", when].append(ours.nanoseconds[-1])
        start = now()
        llguidance.numpy.fill_next_token_bitmask(theirs.matcher, raw)
        times["llguidance", when].append(now() - start)
        token = choose(rng, mask, ours.tokens, ours.eog)
        if token in ours.eog:
            break
        ours.accept(token)
        if not theirs.matcher.consume_token(token):
            break


print("| vocabulary | tokens | | masks | p50 µs | p90 µs | p99 µs | max µs | compile p50 ms | compile max ms |")
print("|---|---|---|---|---|---|---|---|---|---|")
for model in MODELS:
    ours = Ours(model)
    theirs = Theirs(ours)
    times, compiled = {k: [] for k in KEYS}, {"ours": [], "llguidance": []}
    for name, schema in SAME.items():
        grammar = their_grammar(schema)
        start = now()
        theirs.start(grammar)
        compiled["llguidance"].append(now() - start)
        compiled["ours"].append(ours.compile("j", json.dumps(schema), SPACE_NONE)[0])
        for when in ("first", "again"):
            for seed in range(WALKS):
                walk(ours, theirs, name, seed, grammar, times, when)
    for who, when in KEYS:
        t, c = np.array(times[who, when]) / 1e3, np.array(compiled[who]) / 1e6
        p = [f"{v:.1f}" for v in (*np.percentile(t, [50, 90, 99]), t.max())]
        print(f"| {model} | {len(ours.tokens)} | {who}, {when} | {len(t)} | {' | '.join(p)} | {np.median(c):.2f} | "
              f"{c.max():.1f} |", flush=True)
    ours.close()
