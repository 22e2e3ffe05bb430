"""SentencePiece's kinds of tokenizer against the `sentencepiece` library, id for id.

The oracle is a model of that library built from the pieces and scores of the same GGUF file (read by the `gguf`
package); for Unigram it is trained here, and the GGUF file is written from it.
"""
import io
import random
import subprocess
import sys

import gguf
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from tests.text import test_tokenizer as bpe

ROOT = bpe.ROOT
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"

MODELS = {
    "llama-spm": bpe.vocab_file("llama-spm"),
    "phi-3": bpe.vocab_file("phi-3"),
    "baichuan": bpe.vocab_file("baichuan"),
    "gemma3": ROOT / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf",
}


def fetch(path):
    """The model's weights, if they are not there yet."""
    if path.is_relative_to(ROOT / "models"):
        subprocess.run([sys.executable, ROOT / "models/fetch.py", path.parent.name], check=True, stdout=sys.stderr)


def processor(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


class Oracle:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)

        def array(key):
            field = reader.fields[f"tokenizer.ggml.{key}"]
            return [field.parts[i] for i in field.data]

        def scalar(key, default):
            field = reader.fields.get(f"tokenizer.ggml.{key}")
            return default if field is None else field.contents()

        self.tokens = [bytes(t).decode() for t in array("tokens")]
        self.types = [int(t[0]) for t in array("token_type")]
        self.unknown = scalar("unknown_token_id", 0)
        m = proto.ModelProto()
        m.trainer_spec.model_type = proto.TrainerSpec.BPE
        m.trainer_spec.byte_fallback = True
        m.trainer_spec.unk_id = self.unknown
        m.normalizer_spec.name = "identity"
        m.normalizer_spec.add_dummy_prefix = scalar("add_space_prefix", True)
        m.normalizer_spec.remove_extra_whitespaces = False
        m.normalizer_spec.escape_whitespaces = True
        for i, (token, kind, score) in enumerate(zip(self.tokens, self.types, array("scores"))):
            if kind == UNKNOWN:
                kind = CONTROL  # the library takes one unknown token alone
            if kind == USER_DEFINED:
                token = token.replace(" ", SPACE)
            m.pieces.add(piece=token, score=float(score[0]), type=UNKNOWN if i == self.unknown else kind)
        self.sp = processor(m)
        self.control = [t for t, k in zip(self.tokens, self.types) if k == CONTROL]
        self.user = [t for t, k in zip(self.tokens, self.types) if k == USER_DEFINED]


def make_texts(seed, specials):
    r = random.Random(seed + " runs")
    texts = bpe.make_texts(seed, specials)
    # Some with U+2581 itself, runs of what Gemma has tokens for, and HTML.
    for i in range(4, len(texts), 5):
        run = r.choice([" ", "\n", SPACE, "\t", " \n", "<td>", "</h1>", "<0x0A>", "<0xE2>", "▁\n", "a"]) * r.randint(1, 40)
        texts[i] = texts[i][:20] + run + texts[i][20:]
    return texts


@pytest.fixture(scope="module", params=list(MODELS))
def case(request):
    path = MODELS[request.param]
    fetch(path)
    oracle = Oracle(path)
    texts = make_texts(f"argosy {request.param}", (oracle.control + oracle.user)[:200])
    return request.param, path, oracle, texts


def check_equal(ours, theirs, texts, name):
    wrong = [(t, a, b) for t, a, b in zip(texts, ours, theirs) if a != b]
    assert not wrong, f"{name}: {len(wrong)} of {len(texts)} differ, first: {wrong[0]!r}"


def test_ids_equal_sentencepiece(case):
    name, path, oracle, texts = case
    check_equal(bpe.encode(path, [t.encode() for t in texts]), oracle.sp.encode(texts), texts, name)


def test_control_tokens_part_the_text(case):
    """Each text between them is encoded as one of its own."""
    name, path, oracle, texts = case
    r = random.Random(f"control {name}")
    control = [i for i, k in enumerate(oracle.types) if k == CONTROL]
    clean = [t for t in texts if not any(c in t for c in oracle.control)]
    whole, want = [], []
    for _ in range(1000):
        parts = r.sample(clean, 3)
        marks = [r.choice(control) for _ in parts]
        whole.append("".join(oracle.tokens[m] + p for m, p in zip(marks, parts)))
        want.append([i for m, p in zip(marks, parts) for i in [m, *oracle.sp.encode(p)]])
    check_equal(bpe.encode(path, [t.encode() for t in whole], b"s"), want, whole, name)


def test_bos_and_eos(case):
    name, path, oracle, _ = case
    bos = gguf.GGUFReader(path).fields["tokenizer.ggml.bos_token_id"].contents()
    assert bpe.encode(path, [b"a text"], b"b") == [[bos, *oracle.sp.encode("a text")]]


def test_bytes_of_tokens(case):
    """Ids to text: the bytes of their pieces, spaces where U+2581 stands."""
    name, path, oracle, _ = case
    r = random.Random(f"ids {name}")
    raw = [bytes([int(t[3:5], 16)]) if k == BYTE else t.encode() if k == CONTROL else t.replace(SPACE, " ").encode()
           for t, k in zip(oracle.tokens, oracle.types)]
    some = [i for i, k in enumerate(oracle.types) if k == BYTE]
    lists = [[r.choice(some) if r.random() < 0.4 else r.randrange(len(raw)) for _ in range(r.randint(1, 20))]
             for _ in range(2000)]
    want = [b"".join(raw[i] for i in ids).decode("utf-8", errors="replace").encode() for ids in lists]
    assert bpe.decode(path, lists) == want


def test_round_trip(case):
    name, path, oracle, texts = case
    back = bpe.decode(path, bpe.encode(path, [t.encode() for t in texts]))
    prefix = "" if name == "gemma3" else " "
    assert back == [(prefix * bool(t) + t.replace(SPACE, " ")).encode() for t in texts]


@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_llama_cpp_pairs(name):
    bpe.test_llama_cpp_pairs(name)


@pytest.mark.parametrize("name", list(MODELS))
def test_long_words_take_no_quadratic_time(name):
    fetch(MODELS[name])
    bpe.check_long_words(MODELS[name])


# ---- models trained here ----------------------------------------------------------------------------

# What the four differ in: kind, normalisation, spaces, bytes, user-defined tokens.
TRAINED = {
    "unigram-t5": dict(model_type="unigram", normalization_rule_name="nmt_nfkc", add_dummy_prefix=True,
                       remove_extra_whitespaces=True, byte_fallback=False),
    "unigram-bytes": dict(model_type="unigram", normalization_rule_name="identity", add_dummy_prefix=False,
                          remove_extra_whitespaces=False, byte_fallback=True),
    "bpe-unknown": dict(model_type="bpe", normalization_rule_name="nmt_nfkc_cf", add_dummy_prefix=True,
                        remove_extra_whitespaces=True, byte_fallback=False),
    "bpe-bytes": dict(model_type="bpe", normalization_rule_name="nfkc", add_dummy_prefix=False,
                      remove_extra_whitespaces=True, byte_fallback=True),
}
USER = ["<tool>", "<tool>s", "ab", "b c", "  ", "\n\n", "Straße"]


def corpus():
    r = random.Random("argosy corpus")
    words = [w for t in (*bpe.CODE, *bpe.WORDS, __doc__, bpe.__doc__, *bpe.EMOJI) for w in t.split()]
    return [" ".join(r.choice(words) for _ in range(r.randint(3, 20))) for _ in range(3000)]


def train(name):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=1200, hard_vocab_limit=False,
        character_coverage=0.98, user_defined_symbols=[u.replace(" ", SPACE) for u in USER], num_threads=1,
        minloglevel=2, **TRAINED[name])
    m = proto.ModelProto()
    m.ParseFromString(model.getvalue())
    return m


def write_gguf(m, path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("t5" if m.trainer_spec.model_type == proto.TrainerSpec.UNIGRAM else "llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([p.piece.encode() for p in m.pieces])
    w.add_token_scores([p.score for p in m.pieces])
    w.add_token_types([p.type for p in m.pieces])
    w.add_unk_token_id(m.trainer_spec.unk_id)
    w.add_bos_token_id(m.trainer_spec.bos_id)
    w.add_eos_token_id(m.trainer_spec.eos_id)
    w.add_add_space_prefix(m.normalizer_spec.add_dummy_prefix)
    w.add_remove_extra_whitespaces(m.normalizer_spec.remove_extra_whitespaces)
    if m.normalizer_spec.precompiled_charsmap:
        w.add_precompiled_charsmap(m.normalizer_spec.precompiled_charsmap)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


@pytest.fixture(scope="module", params=list(TRAINED))
def trained(request, tmp_path_factory):
    m = train(request.param)
    path = tmp_path_factory.mktemp("trained") / f"{request.param}.gguf"
    write_gguf(m, path)
    return request.param, path, processor(m), make_texts(f"argosy {request.param}", USER)


def test_trained_models_equal_sentencepiece(trained):
    name, path, sp, texts = trained
    check_equal(bpe.encode(path, [t.encode() for t in texts]), sp.encode(texts), texts, name)


def test_trained_models_take_no_quadratic_time(trained):
    bpe.check_long_words(trained[1])
