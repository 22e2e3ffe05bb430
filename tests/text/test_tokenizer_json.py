"""tokenizer.json: the same file, read by us and by `tokenizers`, id for id. The files are made here."""
import json
import subprocess

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.text import test_sentencepiece as spm
from tests.text import test_tokenizer as bpe

SPACE = spm.SPACE
FLAGGED = [
    AddedToken("<pad>", special=True), AddedToken("<left>", special=True, lstrip=True),
    AddedToken("<right>", special=True, rstrip=True), AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
    AddedToken("word", single_word=True, normalized=False), AddedToken("Å b", normalized=True),
    AddedToken("The quick", normalized=True), AddedToken("<tool>", normalized=False),
    AddedToken("<tool>s", normalized=False), AddedToken("fox", normalized=True, single_word=True, lstrip=True),
]
PIECES = [t.content for t in FLAGGED] + ["word.", "swords", " word ", "word word", "<left>  <right>  \n", "fox\u0301", " fox fox"]
DECODER = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def spm_vocab():
    reader = gguf.GGUFReader(bpe.vocab_file("llama-spm"))

    def array(key):
        field = reader.fields[f"tokenizer.ggml.{key}"]
        return [field.parts[i] for i in field.data]

    tokens = [bytes(t).decode() for t in array("tokens")]
    return {t: i for i, t in enumerate(tokens)}, [float(s[0]) for s in array("scores")]


def char_bpe(normalizer, pre, **options):
    vocab, scores = spm_vocab()
    pairs = [(scores[vocab[t]], t[:k], t[k:]) for t in vocab for k in range(1, len(t)) if t[:k] in vocab and t[k:] in vocab]
    pairs.sort(key=lambda p: (-p[0], vocab[p[1]], vocab[p[2]]))
    t = Tokenizer(models.BPE(vocab, [(a, b) for _, a, b in pairs], unk_token="<unk>", fuse_unk=True, **options))
    t.normalizer, t.decoder = normalizer, DECODER
    if pre:
        t.pre_tokenizer = pre
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def unigram(pre, normalizer=None, **options):
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre
    t.train_from_iterator(spm.corpus(), trainers.UnigramTrainer(
        vocab_size=1500, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False))
    data = json.loads(t.to_str())
    if options.get("byte_fallback"):
        data["model"]["byte_fallback"] = True
        data["model"]["vocab"] += [[f"<0x{i:02X}>", -20.0 - i] for i in range(256)]
    t = Tokenizer.from_str(json.dumps(data))
    t.decoder = decoders.Metaspace()
    if normalizer:
        t.normalizer = normalizer
    return t


def gpt2_with(pre):
    oracle = bpe.Oracle("gpt-2")
    oracle.plain.pre_tokenizer = pre_tokenizers.Sequence([pre, bpe.byte_level(False)])
    return oracle.plain


def split(pattern, behavior, invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

FILES = {
    **{name: lambda name=name: bpe.Oracle(name).special for name in bpe.MODELS},
    "llama-2": lambda: char_bpe(normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]), None,
                                byte_fallback=True),
    "gemma": lambda: char_bpe(normalizers.Replace(" ", SPACE), pre_tokenizers.Split(" ", "merged_with_previous"),
                              byte_fallback=True),
    "mistral": lambda: char_bpe(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), byte_fallback=True),
    "unknown": lambda: char_bpe(normalizers.Sequence([normalizers.NFC(), normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " ")]),
                                pre_tokenizers.Metaspace(prepend_scheme="always"), ignore_merges=True),
    "unigram": lambda: unigram(pre_tokenizers.Metaspace()),
    "unigram-bytes": lambda: unigram(pre_tokenizers.Metaspace(prepend_scheme="never", split=False), byte_fallback=True),
    "unigram-words": lambda: unigram(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
                                     normalizers.Strip()),
    "digits": lambda: gpt2_with(pre_tokenizers.Sequence([pre_tokenizers.Digits(False), split(r"\s", "merged_with_next")])),
    "removed": lambda: gpt2_with(split(r"[aeiou\s]+", "removed")),
    "previous": lambda: gpt2_with(split(r"[\p{L}\p{N}]", "merged_with_previous")),
    "contiguous": lambda: gpt2_with(split(r"\S", "contiguous")),
    "inverted": lambda: gpt2_with(split(r"\p{N}+|\p{L}{1,4}?", "isolated", True)),
    "prefix": lambda: gpt2_with(split("(?=[A-Z])", "isolated")),
    "gpt-4o": lambda: gpt2_with(split(GPT4O, "isolated")),
}


@pytest.fixture(scope="module", params=list(FILES))
def case(request, tmp_path_factory):
    t = FILES[request.param]()
    t.add_tokens(FLAGGED)
    folder = tmp_path_factory.mktemp("json")
    t.save(str(folder / "tokenizer.json"))
    data = json.loads((folder / "tokenizer.json").read_text())
    control = [x["content"] for x in data["added_tokens"] if x["special"]]
    if data["model"]["type"] == "Unigram":  # tokenizers' Unigram makes special tokens from plain text; we never do
        data["model"]["vocab"] = [["\0\uffff" + v if v in control else v, s] for v, s in data["model"]["vocab"]]
        data["added_tokens"] = [x for x in data["added_tokens"] if x["content"] not in ("<unk>", "</s>")]
    plain = Tokenizer.from_str(json.dumps(data))
    plain.encode_special_tokens = True
    # Every fifth of 10,000: the models behind the files have met all of them in the other two tests.
    texts = spm.make_texts(f"argosy json {request.param}", PIECES + control[:50])[::5]
    return request.param, folder / "tokenizer.json", t, plain, texts


@pytest.mark.parametrize("op,special", [(b"e", False), (b"s", True)])
def test_ids_equal_tokenizers(case, op, special):
    name, path, t, plain, texts = case
    theirs = (t if special else plain).encode_batch(texts, add_special_tokens=False)
    spm.check_equal(bpe.encode(path, [x.encode() for x in texts], op), [x.ids for x in theirs], texts, name)


def test_template(case):
    name, path, t, _, _ = case
    assert bpe.encode(path, [b"a text"], b"b") == [t.encode("a text").ids]


def test_decoding(case):
    """What is decoded is what tokenizers decodes, but for the space that its Strip or Metaspace takes away."""
    name, path, t, _, texts = case
    ids = [x.ids for x in t.encode_batch(texts[:3000], add_special_tokens=False)]
    theirs = t.decode_batch(ids, skip_special_tokens=False)
    for ours, want, i in zip(bpe.decode(path, ids), theirs, ids):
        got = ours.decode()
        assert got == want or got == " " + want or got.replace(" ", "") == want.replace(" ", ""), i


def test_long_words_take_no_quadratic_time(case):
    bpe.check_long_words(case[1])


# ---- what is refused --------------------------------------------------------------------------------


def base():
    t = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    t.pre_tokenizer, t.decoder = bpe.byte_level(True), decoders.ByteLevel()
    t.add_tokens([AddedToken("<x>", special=True)])
    return json.loads(t.to_str())


def put(data, path, value):
    *where, last = path.split("/")
    for key in where:
        data = data[int(key) if isinstance(data, list) else key]
    data[last] = value


@pytest.mark.parametrize("path,value,words", [
    ("normalizer", {"type": "BertNormalizer"}, "normalizer 'BertNormalizer'"),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}, "normalizer 'NFKC'"),
    ("pre_tokenizer", {"type": "UnicodeScripts"}, "pre_tokenizer 'UnicodeScripts'"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated", "invert": False}, "[a&&b]"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "\\h"}, "behavior": "Isolated", "invert": False}, "\\h"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}, "expression"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways", "invert": False}, "behaviour"),
    ("decoder", {"type": "WordPiece"}, "decoder 'WordPiece'"),
    ("decoder", None, "no decoder"),
    ("post_processor", {"type": "BertProcessing"}, "post_processor 'BertProcessing'"),
    ("truncation", {"max_length": 3}, "truncation"),
    ("padding", {"length": 3}, "padding"),
    ("surprise", 1, "not known"),
    ("model/type", "WordPiece", "neither BPE nor Unigram"),
    ("model/dropout", 0.5, "dropout"),
    ("model/end_of_word_suffix", "</w>", "end_of_word_suffix"),
    ("model/continuing_subword_prefix", "##", "continuing_subword_prefix"),
    ("model/unk_token", "zz", "unk_token"),
    ("model/surprise", 1, "not known"),
    ("model/merges", [["a", "c"]], "names no token"),
    ("model/merges", ["a b c"], "two texts"),
    ("model/merges", None, "no merges"),
    ("model/vocab", {"a": -1}, "whole number"),
    ("model/vocab", {"a": 2**40}, "8388608"),
    ("model/vocab", {"a": 1, "b": 1}, "two tokens with id 1"),
    ("model/vocab", [], "object"),
    ("added_tokens/0/id", 1, "another text"),
    ("added_tokens/0/surprise", 1, "not known"),
    ("model", None, "no model"),
])
def test_refusals_name_the_component(tmp_path, path, value, words):
    data = base()
    put(data, path, value)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(data))
    proc = subprocess.run([bpe.TOOL, file], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert proc.returncode == 1 and words in proc.stderr, proc.stderr


def test_base_is_served(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(base()))
    assert bpe.encode(file, [b"abb<x>"], b"s") == [[2, 1, 3]]
