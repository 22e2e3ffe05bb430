"""kn_dequantize_row and kn_quantize_q8_0 against the `gguf` package, bit for bit: random blocks, and the tensors of a
real model."""
import os
import pathlib
import subprocess

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize

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


# ---- floats to Q8_0 -------------------------------------------------------------------------


def to_q8_0(rows):
    return subprocess.run([TOOL, "q8_0", str(rows.shape[1])], input=rows.tobytes(), capture_output=True)


def hard_rows():
    """Values that lie on, just below and just above the middle of two quants; of every size; zeros and subnormals."""
    random = np.random.default_rng(2)
    middles = (random.integers(-127, 127, (400, 64)) + 0.5).astype(np.float32)
    middles[:, ::32] = 127
    steps = random.integers(-1, 2, middles.shape).astype(np.int32)
    near = (middles.view(np.int32) + steps).view(np.float32)
    scales = np.exp2(random.integers(-100, 17, (400, 1))).astype(np.float32)
    normal = random.standard_normal((2000, 64)).astype(np.float32)
    sizes = normal * np.exp2(random.integers(-110, 20, (2000, 1))).astype(np.float32)
    zeros = np.zeros((2, 64), np.float32)
    zeros[1] = -0.0
    zeros[1, 5] = 3.0
    edge = np.full((1, 64), 127 * 65504.0, np.float32)
    return np.concatenate([middles, near, near * scales, normal, sizes, zeros, edge])


def test_quantised_rows_are_the_packages():
    rows = hard_rows()
    run = to_q8_0(rows)
    assert run.returncode == 0
    want = quantize(rows, GGMLQuantizationType.Q8_0)
    got = np.frombuffer(run.stdout, np.uint8).reshape(want.shape)
    assert np.array_equal(got, want)


def test_values_too_small_for_a_scale_become_zero():
    rows = np.full((1, 32), 2.0**-125, np.float32)
    assert to_q8_0(rows).stdout == bytes(34)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 127 * 65520.0, 3e38])
def test_what_no_scale_holds_is_refused(value):
    rows = np.ones((2, 64), np.float32)
    rows[1, 40] = value
    assert to_q8_0(rows).returncode == 3
