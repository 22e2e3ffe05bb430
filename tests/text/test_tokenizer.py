"""The tokenizer against Hugging Face's `tokenizers`, text for text and id for id.

The oracle is built here from the vocabulary and merges of the same GGUF file (read by the `gguf` package) and
from the pre-tokenisers as the models' own tokenizer.json files define them, so nothing of ours is in it. A
second, independent one are the .inp/.out pairs that llama.cpp keeps beside its vocabulary files.
"""
import os
import pathlib
import random
import struct
import subprocess
import unicodedata

import pytest
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = pathlib.Path(os.environ.get("ARGOSY_FIXTURES", ROOT / "build/fixtures"))
TOOL = ROOT / "build" / os.environ.get("BUILD", "release") / "tests/tools/tokenize_tool"
N_STRINGS = 10_000

CONTROL, USER_DEFINED = 3, 4


def vocab_file(name):
    return FIXTURES / f"llama.cpp/models/ggml-vocab-{name}.gguf"


MODELS = {
    "smollm2": ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf",
    "llama-bpe": vocab_file("llama-bpe"),
    "qwen2": vocab_file("qwen2"),
    "gpt-2": vocab_file("gpt-2"),
}

# The split patterns of meta-llama/Meta-Llama-3-8B and Qwen/Qwen2-7B, from their tokenizer.json.
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(False)])


PRE = {
    "smollm2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "llama-bpe": split(LLAMA3),
    "qwen2": split(QWEN2),
    "gpt-2": byte_level(True),
}


class Oracle:
    """`plain` knows no control tokens, `special` knows all."""

    def __init__(self, name):
        reader = GGUFReader(MODELS[name])

        def texts(key):
            field = reader.fields[key]
            return [bytes(field.parts[i]).decode() for i in field.data]

        types = reader.fields["tokenizer.ggml.token_type"]
        self.types = [int(types.parts[i][0]) for i in types.data]
        self.tokens = texts("tokenizer.ggml.tokens")
        self.merges = [tuple(m.split(" ")) for m in texts("tokenizer.ggml.merges")]
        self.plain = self.build(name, {USER_DEFINED})
        self.special = self.build(name, {USER_DEFINED, CONTROL})
        self.control = [t for t, k in zip(self.tokens, self.types) if k == CONTROL]

    def build(self, name, added):
        vocab = {t: i for i, t in enumerate(self.tokens)}
        t = Tokenizer(models.BPE(vocab, self.merges, ignore_merges=name == "llama-bpe"))
        if name == "qwen2":
            t.normalizer = normalizers.NFC()
        t.pre_tokenizer = PRE[name]
        t.decoder = decoders.ByteLevel()
        t.add_tokens([AddedToken(s, special=k == CONTROL, normalized=False)
                      for s, k in zip(self.tokens, self.types) if k in added])
        return t


class Tool:
    def __init__(self, model):
        self.proc = subprocess.Popen([TOOL, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, requests):
        """requests: (op, bytes, count). Answers as bytes; the sizes of items are the caller's to know."""
        out, _ = self.proc.communicate(b"".join(op + struct.pack("<I", n) + b for op, b, n in requests))
        assert self.proc.returncode == 0
        return out


def encode(model, texts, op=b"e"):
    out = Tool(model).ask([(op, b, len(b)) for b in texts])
    ids, at = [], 0
    for _ in texts:
        n, = struct.unpack_from("<I", out, at)
        ids.append(list(struct.unpack_from(f"<{n}I", out, at + 4)))
        at += 4 + 4 * n
    assert at == len(out)
    return ids


def decode(model, id_lists):
    out = Tool(model).ask([(b"d", struct.pack(f"<{len(i)}I", *i), len(i)) for i in id_lists])
    texts, at = [], 0
    for _ in id_lists:
        n, = struct.unpack_from("<I", out, at)
        texts.append(out[at + 4:at + 4 + n])
        at += 4 + n
    assert at == len(out)
    return texts


# ---- texts ------------------------------------------------------------------------------------------

SCRIPTS = [(0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
           (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0xF00, 0xFFF),
           (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x1E00, 0x1FFF), (0x2000, 0x206F),
           (0x2070, 0x218F), (0x2190, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
           (0xF900, 0xFDFF), (0xFE00, 0xFFFD), (0x10000, 0x10FFF), (0x1D000, 0x1D7FF), (0x1F000, 0x1FAFF),
           (0x20000, 0x2A6DF), (0x2EBF0, 0x323AF), (0xE0000, 0xE01EF)]
SPACES = " \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u180e\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
WORDS = """the The quick brown fox can't won't I'LL it's IT'S we've WE'VE you're You'Re o'clock 'd 'D 'ſ naïve Straße
            ŁÓDŹ Ελλάδα Россия ישראל العربية हिन्दी ไทย 日本語 中文字符 한국어 tokenizer antidisestablishmentarianism
            http://example.com/a?b=c&d=%20 foo_bar fooBar FOO x=1; 3.14159 1,000,000 0x1F ½ ² ٣ ₀ Ⅷ e\u0301 Å""".split()
CODE = ["def f(x):\n    return x ** 2  # sq\n", "for (int i = 0; i < n; i++) {\n\ta[i] = '\\0';\n}\n",
        "SELECT * FROM t WHERE a <> 'b';", "\t\tif (!p)\r\n\t\t\tgoto out;\r\n", "<div class=\"x\">&nbsp;</div>",
        "{\"a\": [1, 2.5e-3, null], \"b\": \"\\u00e9\"}", "λx. x → x ∀ε>0 ∃δ", "$x ~= s/[^\\w]+/_/gr;"]
EMOJI = ["👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "😀😀", "1️⃣", "🧑🏿‍🚀", "™️", "🫠"]


def any_char(r):
    while True:
        c = r.randrange(0x110000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def script_char(r, block):
    return chr(r.randint(*block))


def make_text(r, control):
    def piece():
        kind = r.randrange(14)
        block = r.choice(SCRIPTS)
        if kind == 0:
            return "".join(script_char(r, block) for _ in range(r.randint(1, 12)))
        if kind == 1:
            return "".join(script_char(r, r.choice(SCRIPTS)) for _ in range(r.randint(1, 8)))
        if kind == 2:
            return r.choice(CODE)
        if kind == 3:
            return r.choice(EMOJI) * r.randint(1, 3)
        if kind == 4:
            return "".join(chr(r.choice([r.randrange(32), r.randrange(0x7F, 0xA0)])) for _ in range(r.randint(1, 5)))
        if kind == 5:
            return r.randbytes(r.randint(1, 16)).decode("utf-8", errors="replace")
        if kind == 6:
            return r.choice(SPACES) * r.choice([1, 2, 3, 5, 17, 64, 300])
        if kind == 7:
            return "".join(r.choice(SPACES) for _ in range(r.randint(1, 10)))
        if kind == 8:
            return str(r.randrange(10 ** r.randint(1, 30)))
        if kind == 9:
            return r.choice("'’ʼ") + r.choice(["s", "S", "ll", "Ll", "LL", "ve", "rE", "m", "D", "t", "ſ", "x"])
        if kind == 10:
            s = r.choice(control)
            return s if r.random() < 0.7 else s[:r.randrange(len(s) + 1)]
        if kind == 11:
            return any_char(r) * r.choice([1, 1, 2, 40])
        if kind == 12:
            return "".join(r.choice("!?.,;:-_=+*/\\|()[]{}<>@#$%^&~`\"'") for _ in range(r.randint(1, 20)))
        return r.choice(["", " ", "  ", "\n", ", "]).join(r.choice(WORDS) for _ in range(r.randint(1, 12)))

    text = r.choice(["", " ", "", "\n"]).join(piece() for _ in range(r.randint(1, 8)))
    if r.random() < 0.1:
        text = unicodedata.normalize("NFD", text)
    return text


def make_texts(seed, control):
    r = random.Random(seed)
    return ["", " ", "\n", "\0"] + [make_text(r, control) for _ in range(N_STRINGS - 4)]


# ---- tests ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(MODELS))
def case(request):
    oracle = Oracle(request.param)
    texts = make_texts(f"argosy {request.param}", oracle.control)
    return request.param, MODELS[request.param], oracle, texts


@pytest.mark.parametrize("op,which", [(b"e", "plain"), (b"s", "special")])
def test_ids_equal_tokenizers(case, op, which):
    name, model, oracle, texts = case
    ours = encode(model, [t.encode() for t in texts], op)
    theirs = getattr(oracle, which).encode_batch(texts, add_special_tokens=False)
    wrong = [(t, a, b.ids) for t, a, b in zip(texts, ours, theirs) if a != b.ids]
    assert not wrong, f"{name}: {len(wrong)} of {len(texts)} differ, first: {wrong[0]!r}"


def test_control_tokens_are_never_made_from_plain_text(case):
    name, model, oracle, texts = case
    control = {i for i, k in enumerate(oracle.types) if k == CONTROL}
    for ids in encode(model, [t.encode() for t in texts] + [t.encode() for t in oracle.control]):
        assert not control & set(ids)


def test_random_bytes_read_as_python_replaces_them(case):
    name, model, oracle, _ = case
    r = random.Random(f"bytes {name}")
    raw = [r.randbytes(r.randint(1, 40)) if i % 2 else
           b"".join(r.choice([b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"a", b"\xed\xa0\x80", b"\xc3\xa9", b"\xff"])
                    for _ in range(r.randint(1, 12)))
           for i in range(2000)]
    theirs = oracle.plain.encode_batch([b.decode("utf-8", errors="replace") for b in raw], add_special_tokens=False)
    assert encode(model, raw) == [t.ids for t in theirs]


def test_round_trip(case):
    """decode(encode(x)) == x, but for what the model itself drops: form C, and bytes with no token."""
    name, model, oracle, texts = case
    back = decode(model, encode(model, [t.encode() for t in texts], b"s"))
    alphabet = set("".join(t for t in oracle.tokens if len(t) == 1))
    for text, got in zip(texts, back):
        want = text.encode()
        if name == "qwen2":
            want = oracle.special.normalizer.normalize_str(text).encode()
        missing = {b for b in set(want) if GPT2_BYTES[b] not in alphabet}
        want = bytes(b for b in want if b not in missing)
        assert got == want.decode("utf-8", errors="replace").encode()


def gpt2_bytes():
    """The byte alphabet of openai/gpt-2 (encoder.py, bytes_to_unicode)."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


GPT2_BYTES = gpt2_bytes()


def test_decoding_equals_python(case):
    """Any ids, control tokens and halves of characters among them."""
    name, model, oracle, _ = case
    r = random.Random(f"ids {name}")
    byte = {c: b for b, c in GPT2_BYTES.items()}
    raw = [bytes(byte[c] for c in t) if k == 1 else t.encode() for t, k in zip(oracle.tokens, oracle.types)]
    broken = [i for i, b in enumerate(raw) if b != b.decode("utf-8", errors="replace").encode()]
    lists = [[r.choice(broken) if r.random() < 0.5 else r.randrange(len(raw)) for _ in range(r.randint(1, 20))]
             for _ in range(2000)]
    want = [b"".join(raw[i] for i in ids).decode("utf-8", errors="replace").encode() for ids in lists]
    assert decode(model, lists) == want


# starcoder and refact have SmolLM2's pre-tokeniser, which has no pairs of its own.
@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "gpt-2", "starcoder", "refact"])
def test_llama_cpp_pairs(name):
    path = vocab_file(name)
    texts = path.with_suffix(".gguf.inp").read_bytes().split(b"\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text().splitlines()
    assert len(lines) > 40 and len(texts) - len(lines) in (0, 1)
    want = [[int(i) for i in line.split()] for line in lines]
    assert encode(path, texts[:len(want)]) == want


def check_long_words(model):
    units = [b"a", b"ab", b" ", b"1", "é".encode(), "\u0301\u0316".encode(), b"!", b"\n "]
    requests = b"".join(b"e" + struct.pack("<I", len(u) << 19) + u * (1 << 19) for u in units)
    proc = subprocess.run([TOOL, model], input=requests, stdout=subprocess.PIPE, timeout=60, check=True)
    assert len(proc.stdout) > 4 * len(units)


@pytest.mark.parametrize("name", list(MODELS))
def test_long_words_take_no_quadratic_time(name):
    check_long_words(MODELS[name])
