"""What the tests of logits share: a run of ours, and how far two sets of logits are apart."""

import math
import subprocess

import numpy as np


class IsaMissing(Exception):
    """This machine has not the instruction set."""


def compute(build_dir, model, ids, directory, isa="auto", threads=2, chunk=256, ranks=1,
            kv_type="f16"):
    """Logits (n, vocab) and hidden states (n, n_embd) of a GGUF file; their files are in directory."""
    logits, hidden = directory / "logits", directory / "hidden"
    tool = "logits_tool_emulated" if isa == "cuda" else "logits_tool"
    done = subprocess.run(
        [build_dir / "tests/tools" / tool, model, isa, str(threads), str(chunk), logits,
         hidden, str(ranks), kv_type],
        input=" ".join(map(str, ids)),
        text=True,
        capture_output=True,
    )
    if "is not available" in done.stderr:
        raise IsaMissing(isa)
    assert done.returncode == 0, done.stderr
    n, vocab, n_embd = map(int, done.stdout.split())
    assert n == len(ids)
    return (
        np.memmap(logits, np.float32, "r", shape=(n, vocab)),
        np.memmap(hidden, np.float32, "r", shape=(n, n_embd)),
    )


def tokenize(build_dir, model, text):
    """The ids of a text (bytes)."""
    done = subprocess.run(
        [build_dir / "tests/tools/logits_tool", model, "tokenize"],
        input=text,
        check=True,
        capture_output=True,
    )
    return [int(word) for word in done.stdout.split()]


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


class Score:
    """Mean KL(reference || ours) and both perplexities, summed over chunks of positions."""

    def __init__(self):
        self.kl, self.nll_ours, self.nll_reference, self.n = 0.0, 0.0, 0.0, 0

    def add(self, reference, ours, next_ids):
        p, q = log_softmax(reference), log_softmax(ours)
        at = np.arange(len(next_ids))
        self.kl += (np.exp(p) * (p - q)).sum()
        self.nll_reference -= p[at, next_ids].sum()
        self.nll_ours -= q[at, next_ids].sum()
        self.n += len(next_ids)

    def mean_kl(self):
        return self.kl / self.n

    def perplexities(self):
        return math.exp(self.nll_reference / self.n), math.exp(self.nll_ours / self.n)
