"""What the grammar tests share: the program under test, llguidance over the same vocabulary."""

import os
import struct
import subprocess
from pathlib import Path

import llguidance
import llguidance.numpy
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(os.environ.get("ARGOSY_FIXTURES", ROOT / "build/fixtures"))
TOOL = ROOT / "build" / os.environ.get("ARGOSY_BUILD", "release") / "tests/tools/grammar_tool"
MODELS = {
    "smollm2": ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf",
    "qwen2": FIXTURES / "llama.cpp/models/ggml-vocab-qwen2.gguf",
}
SPACE_NONE, SPACE_ONE, SPACE_ANY = "0", "1", "2"


class Refused(Exception):
    """The tool answered with an error."""


class Ours:
    """grammar_tool over one model's vocabulary."""

    def __init__(self, model):
        self.model = model
        self.process = subprocess.Popen([TOOL, MODELS[model]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        data, at, self.tokens, self.eog = self._ask(b"v", checked=False), 0, [], []
        while at < len(data):
            (head,) = struct.unpack_from("<I", data, at)
            n = head & 0x7FFFFFFF
            if head >> 31:
                self.eog.append(len(self.tokens))
            self.tokens.append(data[at + 4 : at + 4 + n])
            at += 4 + n
        self.nanoseconds = []

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, op, payload=b"", checked=True):
        self.process.stdin.write(op + struct.pack("<I", len(payload)) + payload)
        self.process.stdin.flush()
        (n,) = struct.unpack("<I", self.process.stdout.read(4))
        answer = self.process.stdout.read(n)
        if checked and answer[:1] != b"k":
            raise Refused(answer[1:].decode())
        return answer[1:] if checked else answer

    def compile(self, kind, text, space=SPACE_NONE):
        """kind: j, o, r or g. Returns nanoseconds, bytes of the grammar, bytes of a state."""
        return struct.unpack("<QQQ", self._ask(kind.encode(), space.encode() + text.encode()))

    def mask(self):
        answer = self._ask(b"m")
        self.nanoseconds.append(struct.unpack_from("<Q", answer)[0])
        bits = np.frombuffer(answer, np.uint8, offset=8)
        return np.unpackbits(bits, bitorder="little")[: len(self.tokens)].astype(bool)

    def accept(self, token):
        self._ask(b"a", struct.pack("<I", token))

    def clear(self):
        self._ask(b"c")

    def forced(self):
        return self._ask(b"f")


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, ours):
        self.eos_token_id = ours.eog[0]
        self.bos_token_id = None
        self.special_token_ids = [i for i, t in enumerate(ours.tokens) if not t]
        self.tokens = [t or b"<special>" for t in ours.tokens]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


class Theirs:
    """llguidance over the vocabulary of `ours`."""

    def __init__(self, ours):
        self.ours = ours
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(ours))
        self.tokenizer = llguidance.LLTokenizer(wrapper, eos_token=ours.eog)
        self.eog = np.array(ours.eog)

    def start(self, grammar):
        self.matcher = llguidance.LLMatcher(self.tokenizer, grammar, log_level=0)
        if self.matcher.is_error():
            raise Refused(self.matcher.get_error())

    def mask(self):
        raw = np.zeros((1, (len(self.ours.tokens) + 31) // 32), np.int32)
        llguidance.numpy.fill_next_token_bitmask(self.matcher, raw)
        bits = np.unpackbits(raw.view(np.uint8)[0], bitorder="little")[: len(self.ours.tokens)].astype(bool)
        if self.matcher.is_stopped():
            # Stopped where the end is the only way on.
            bits[:] = False
            bits[self.eog] = not self.matcher.is_error()
        return bits
