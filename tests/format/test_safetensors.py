"""The reader of safetensors against the `safetensors` package: files that it writes, and files that it refuses."""
import json
import os
import pathlib
import random
import struct
import subprocess

import pytest
import safetensors
import safetensors.torch
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "build" / os.environ.get("BUILD", "release") / "tests/tools/safetensors_tool"

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
         torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
SERVED = {"F32", "F16", "BF16"}


def run(path):
    return subprocess.run([TOOL, path], capture_output=True, text=True)


def read(path):
    proc = run(path)
    assert proc.returncode == 0, proc.stderr
    return [json.loads(line) for line in proc.stdout.splitlines()]


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & (1 << 64) - 1
    return h


def expected(tensors):
    rows = []
    for name, t in sorted(tensors.items(), key=lambda kv: kv[0].encode()):
        raw = bytes(t.contiguous().flatten().view(torch.uint8).numpy()) if t.numel() else b""
        kind = NAMES[t.dtype]
        rows.append([name, kind, list(t.shape), len(raw), fnv(raw), kind in SERVED])
    return rows


def make_tensors(seed):
    r = random.Random(seed)
    g = torch.Generator().manual_seed(seed)
    tensors = {}
    for i in range(r.randint(1, 40)):
        shape = [r.choice([0, 1, 2, 3, 5, 8, 16]) for _ in range(r.randint(0, 4))]
        raw = torch.randint(0, 2, shape, generator=g) if r.random() < 0.2 else torch.randn(shape, generator=g) * 9
        name = r.choice(["model.layers.%d.w", "ä%d", 'quo"te\\%d', "日本/%d", "\n%d", "%d"]) % i
        tensors[name] = raw.to(r.choice(list(NAMES)))
    return tensors


@pytest.mark.parametrize("seed", range(20))
def test_file_equals_the_package(tmp_path, seed):
    tensors = make_tensors(seed)
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "a\"b": "ü"} if seed % 2 else None)
    assert read(path) == expected(tensors)


def write_folder(folder, tensors, shards):
    names = sorted(tensors)
    random.Random(len(names)).shuffle(names)
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        safetensors.torch.save_file({n: tensors[n] for n in names[i::shards]}, folder / name)
        weight_map.update({n: name for n in names[i::shards]})
    return weight_map


@pytest.mark.parametrize("seed", range(20, 26))
def test_folder_of_shards_equals_the_package(tmp_path, seed):
    tensors = make_tensors(seed)
    weight_map = write_folder(tmp_path, tensors, min(len(tensors), 1 + seed % 5))
    index = {"metadata": {"total_size": 1, "x": [1, {"y": None}]}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    assert read(tmp_path) == expected(tensors)


def test_index_picks_among_the_tensors_of_a_shard(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(1), "b": torch.ones(2), "c": torch.ones(3)}, tmp_path / "1.safetensors")
    safetensors.torch.save_file({"a": torch.zeros(1), "b": torch.zeros(2)}, tmp_path / "2.safetensors")
    index = {"weight_map": {"b": "2.safetensors", "a": "1.safetensors", "c": "1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read(tmp_path) == expected({"a": torch.ones(1), "b": torch.zeros(2), "c": torch.ones(3)})


def test_folder_of_one_file(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    assert read(tmp_path) == expected({"a": torch.ones(3)})


@pytest.mark.parametrize("index,words", [
    ({"weight_map": {"a": "../x.safetensors"}}, "in the same folder"),
    ({"weight_map": {"a": "/etc/passwd"}}, "in the same folder"),
    ({"weight_map": {"a": ""}}, "in the same folder"),
    ({"weight_map": {"a": "2.safetensors"}}, "no such file"),
    ({"weight_map": {"b": "1.safetensors"}}, "'b' is not in 1.safetensors"),
    ({"weight_map": {}}, "weight_map"),
    ({"weight_map": {"a": 1}}, "a string is wanted"),
    ({}, "weight_map"),
    ([], "an object is wanted"),
])
def test_bad_index_is_refused(tmp_path, index, words):
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    proc = run(tmp_path)
    assert proc.returncode == 1 and words in proc.stderr


def test_folder_without_tensors_is_refused(tmp_path):
    assert "neither" in run(tmp_path).stderr


def blob(header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


F32X2 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "empty": b"",
    "short": b"\x01\0\0",
    "header past the file": struct.pack("<Q", 1000) + b"{}",
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "not closed": blob(b'{"a":', b""),
    "behind the end": blob(b"{}x", b""),
    "no dtype": blob({"a": {"shape": [2], "data_offsets": [0, 8]}}),
    "no shape": blob({"a": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "no offsets": blob({"a": {"dtype": "F32", "shape": [2]}}),
    "three offsets": blob({"a": {**F32X2, "data_offsets": [0, 8, 8]}}),
    "one offset": blob({"a": {**F32X2, "data_offsets": [0]}}),
    "unknown dtype": blob({"a": {**F32X2, "dtype": "F33"}}),
    "wrong size": blob({"a": {**F32X2, "shape": [3]}}),
    "backwards": blob({"a": {**F32X2, "data_offsets": [8, 0]}}),
    "overflow": blob({"a": {**F32X2, "shape": [2**62, 2**62, 8]}}),
    "negative": blob({"a": {**F32X2, "shape": [-2]}}),
    "fraction": blob({"a": {**F32X2, "shape": [2.0]}}),
    "past the file": blob({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "data without tensor": blob({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
    "no tensor but data": blob({}),
    "gap at the start": blob({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
    "overlap": blob({"a": F32X2, "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
    "gap": blob({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
                 "b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}),
    "metadata not text": blob({"__metadata__": {"a": 1}, "a": F32X2}),
    "list": blob([]),
    "deep": blob(b'{"a":' + b"[" * 100000, b""),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_file_is_refused(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(Exception):
        safetensors.torch.load_file(path)
    proc = run(path)
    assert proc.returncode == 1 and "x.safetensors" in proc.stderr


def test_damaged_files_are_refused_or_read_as_the_package_does(tmp_path):
    r = random.Random("damage")
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.randn(3, 4), "b": torch.ones(5, dtype=torch.float16), "c": torch.ones(0)}, path)
    whole = path.read_bytes()
    header = 8 + struct.unpack_from("<Q", whole)[0]
    both = 0
    for _ in range(1200):
        raw = bytearray(whole)
        raw[r.randrange(header)] = r.choice(b'0123456789"{}[]:,F61 \0\xff')
        path.write_bytes(raw)
        try:
            with safetensors.safe_open(path, "pt") as f:
                theirs = {k: f.get_slice(k).get_shape() for k in f.keys()}
        except Exception:
            theirs = None
        proc = run(path)
        assert proc.returncode in (0, 1)
        if theirs is None:
            assert proc.returncode == 1, bytes(raw[:header])
        elif proc.returncode == 0:
            both += 1
            assert {row[0]: row[2] for row in map(json.loads, proc.stdout.splitlines())} == theirs
    assert both > 10


def test_header_starts_with_a_brace(tmp_path):
    """The format demands it, the package does not."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(blob(b" {}", b""))
    assert "'{'" in run(path).stderr


def test_odd_start_is_read_but_not_lent(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(blob(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' + b" " * 3))
    assert [row[5] for row in read(path)] == [False]
