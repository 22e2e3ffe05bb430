"""kn_dequantize_row against the `gguf` package, bit for bit: random blocks, and the tensors of a real model."""
import os
import pathlib
import subprocess

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "build" / os.environ.get("BUILD", "release") / "tests/tools/dequantize_tool"
MODEL = ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]


def ours(kind, rows, cols):
    run = subprocess.run([TOOL, str(int(kind)), str(cols)], input=rows.tobytes(), capture_output=True, check=True)
    return np.frombuffer(run.stdout, np.float32).reshape(len(rows), cols)


def assert_same(got, want):
    assert got.shape == want.shape
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    assert same.all(), f"{(~same).sum()} of {same.size} differ"


@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
@pytest.mark.parametrize("name", TYPES)
def test_random_blocks(name):
    kind = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[kind]
    cols = 768
    rows = np.random.default_rng(1).integers(0, 256, (500, cols // block * size), np.uint8)
    assert_same(ours(kind, rows, cols), dequantize(rows, kind).astype(np.float32).reshape(500, cols))


def test_a_real_model():
    seen = set()
    for tensor in GGUFReader(MODEL).tensors:
        cols = int(tensor.shape[0])
        rows = np.ascontiguousarray(tensor.data).view(np.uint8)
        rows = rows.reshape(-1, cols // GGML_QUANT_SIZES[tensor.tensor_type][0] * GGML_QUANT_SIZES[tensor.tensor_type][1])
        want = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(-1, cols)
        assert_same(ours(tensor.tensor_type, rows, cols), want)
        seen.add(tensor.tensor_type.name)
    assert "Q4_1" in seen


@pytest.mark.parametrize("arguments", [["2", "33"], ["9", "256"], ["12", "32"], ["0", "0"], ["0", "-5"], []])
def test_what_is_not_served_is_refused(arguments):
    assert subprocess.run([TOOL, *arguments], input=b"", capture_output=True).returncode == 2
