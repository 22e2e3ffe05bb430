"""The GGUF reader against the `gguf` package, on real files and on one that the package writes."""
import json
import os
import pathlib
import subprocess

import gguf
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = pathlib.Path(os.environ.get("ARGOSY_FIXTURES", ROOT / "build/fixtures"))
TOOL = ROOT / "build" / os.environ.get("BUILD", "release") / "tests/tools/gguf_tool"
V = gguf.GGUFValueType
INTS = {V.UINT8, V.INT8, V.UINT16, V.INT16, V.UINT32, V.INT32, V.UINT64, V.INT64}
FLOATS = {V.FLOAT32, V.FLOAT64}


def kind(field):
    first = field.types[0]
    if first == V.ARRAY:
        elem = field.types[-1]
        return "S" if elem == V.STRING else "F" if elem in FLOATS else "I"
    return "s" if first == V.STRING else "f" if first in FLOATS else "b" if first == V.BOOL else "u"


def value(field):
    if field.types[0] != V.ARRAY:
        return field.contents()
    return [bytes(field.parts[i]).decode() if field.types[-1] == V.STRING else field.parts[i][0].item()
            for i in field.data]


def run(path, lines):
    proc = subprocess.run([TOOL, path], input="".join(lines), capture_output=True, text=True)
    assert proc.returncode == 0, proc.stderr
    return [json.loads(line) for line in proc.stdout.rstrip("\n").split("\n")]


def same(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return np.float32(a) == np.float32(b)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b


def check(path):
    reader = gguf.GGUFReader(path)
    fields = {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    got = run(path, [f"{kind(f)} {k}\n" for k, f in fields.items()])
    for (name, field), ours in zip(fields.items(), got):
        assert same(ours, value(field)), name
    tensors = [[t.name, int(t.tensor_type), [int(n) for n in t.shape], int(t.data_offset), int(t.n_bytes)]
               for t in reader.tensors]
    assert got[len(fields):] == tensors
    return len(fields), len(tensors)


def test_real_model():
    n_fields, n_tensors = check(ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert n_fields >= 30 and n_tensors == 272


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "bert-bge"])
def test_vocabulary_files(name):
    assert check(FIXTURES / f"llama.cpp/models/ggml-vocab-{name}.gguf")[0] > 10


@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_file_by_the_package(tmp_path, alignment):
    path = tmp_path / "x.gguf"
    w = gguf.GGUFWriter(path, "argosy")
    w.add_custom_alignment(alignment)
    w.add_uint8("u8", 255)
    w.add_int8("i8", 127)
    w.add_uint16("u16", 65535)
    w.add_uint32("u32", 2**32 - 1)
    w.add_uint64("u64", 2**62)
    w.add_float32("f32", 1.1)
    w.add_float64("f64", 0.1)
    w.add_bool("t", True)
    w.add_bool("f", False)
    w.add_string("empty", "")
    w.add_string("text", "naïve 日本 \x01\n")
    w.add_array("ints", [-1, 2, -3])
    w.add_array("floats", [0.5, -1.25])
    w.add_array("bools", [True, False])
    w.add_array("strings", ["", "a", "ß" * 300])
    rng = np.random.default_rng(7)
    types = [gguf.GGMLQuantizationType[n] for n in
             "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 TQ1_0 TQ2_0".split()]
    for i, t in enumerate(types):
        block, size = gguf.GGML_QUANT_SIZES[t]
        rows = i + 1
        data = rng.integers(0, 256, (rows, 256 // block * size), dtype=np.uint8)
        w.add_tensor(f"q.{t.name}", data, raw_dtype=t)
    w.add_tensor("f32", rng.random((3, 5), dtype=np.float32))
    w.add_tensor("f16", rng.random((2, 3, 4), dtype=np.float32).astype(np.float16))
    w.add_tensor("i8", np.arange(7, dtype=np.int8))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    n_fields, n_tensors = check(path)
    assert n_fields >= 15 and n_tensors == len(types) + 3
