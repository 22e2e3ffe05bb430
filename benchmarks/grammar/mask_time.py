"""Time of one mask and of one compilation over the corpus of tests/grammar.

    PYTHONPATH=. build/venv/bin/python benchmarks/grammar/mask_time.py

For each vocabulary and policy of white space: every schema, seeded random walks of up to 40 tokens, the time of each
grammar_mask() alone as the program under test measures it. The first visit of each state counts: nothing is warm.
"""

import json
import random

import numpy as np

from tests.grammar.corpus import OURS, SAME
from tests.grammar.driver import MODELS, SPACE_ANY, SPACE_NONE, Ours
from tests.grammar.test_masks import choose

print("| vocabulary | tokens | space | masks | p50 µs | p90 µs | p99 µs | max µs | compile p50 µs | compile max ms |")
print("|---|---|---|---|---|---|---|---|---|---|")
for model in MODELS:
    ours = Ours(model)
    for space, label in ((SPACE_NONE, "none"), (SPACE_ANY, "any")):
        ours.nanoseconds.clear()
        compiled = []
        for name, schema in {**SAME, **OURS}.items():
            compiled.append(ours.compile("j", json.dumps(schema), space)[0])
            for seed in range(3):
                rng = random.Random(f"{name}{seed}")
                ours.clear()
                for _ in range(40):
                    token = choose(rng, ours.mask(), ours.tokens, ours.eog)
                    if token in ours.eog:
                        break
                    ours.accept(token)
        t = np.array(ours.nanoseconds) / 1000
        p = [f"{v:.1f}" for v in (*np.percentile(t, [50, 90, 99]), t.max())]
        c = np.array(compiled) / 1000
        print(f"| {model} | {len(ours.tokens)} | {label} | {len(t)} | {' | '.join(p)} | "
              f"{np.median(c):.0f} | {c.max() / 1000:.1f} |", flush=True)
    ours.close()
