"""Writes the seeds of fuzz_gguf: small model files, whole and damaged. Run from the root after a change:

    build/venv/bin/python tests/fuzz/make_corpus_gguf.py
"""
import pathlib
import struct
import tempfile

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent / "corpus/fuzz_gguf"


def written(fill):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.gguf"
        w = gguf.GGUFWriter(path, "llama")
        fill(w)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        return path.read_bytes()


def values(w):
    w.add_custom_alignment(64)
    w.add_uint8("u8", 1)
    w.add_int64("i64", -1)
    w.add_float64("f64", 0.5)
    w.add_bool("a", True)
    w.add_array("ints", [1, 2, 3])
    w.add_array("strings", ["x", "", "yy"])


def tensors(w):
    Q = gguf.GGMLQuantizationType
    w.add_tensor("f", np.ones((2, 3), dtype=np.float32))
    for t in (Q.Q4_0, Q.Q8_0, Q.Q6_K):
        block, size = gguf.GGML_QUANT_SIZES[t]
        w.add_tensor(t.name, np.zeros((1, size), dtype=np.uint8), raw_dtype=t)


def tokenizer(pre):
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(b) for b in keep] + [chr(256 + i) for i in range(256 - len(keep))]

    def fill(w):
        tokens = alphabet + ["ab", "abc", "Ġa", "<|im_end|>", "<tool>"]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types([1] * (len(tokens) - 2) + [3, 4])
        w.add_token_merges(["a b", "ab c", "Ġ a"])
        w.add_eos_token_id(len(tokens) - 2)
        w.add_add_bos_token(False)

    return fill


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    files = {"values": written(values), "tensors": written(tensors)}
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2", "other"):
        files[f"tokenizer-{pre}"] = written(tokenizer(pre))
    good = files["tensors"]
    files["cut"] = good[: len(good) // 2]
    files["many-tensors"] = good[:8] + struct.pack("<Q", 2**63) + good[16:]
    files["many-keys"] = good[:16] + struct.pack("<Q", 2**64 - 1) + good[24:]
    files["version-2"] = good[:4] + struct.pack("<I", 2) + good[8:]
    files["big-endian"] = good[:4] + struct.pack(">I", 3) + good[8:]
    files["long-key"] = good[:24] + struct.pack("<Q", 2**64 - 8) + good[32:]
    for name, data in files.items():
        (OUT / name).write_bytes(data)


main()
