"""The logits of the real SmolLM2 against two oracles.

- transformers in fp32 on the dequantised weights: what quantised activations cost in quality. The
  text is prose from novels. On speeches that every model knows by heart (Gettysburg, the Declaration
  of Independence) the cost in KL is three times that: a recitation hangs on few weights.
- tests/model/replica.py, which follows kernels/NUMERICS.md: every bit.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.model.scoring import IsaMissing, Score, compute, tokenize

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = Path(__file__).with_name("text.txt")
POSITIONS = 1024  # scored against transformers
INT8_KV_KL_MAX = 6e-3
REPLICA_POSITIONS = 144  # more than one split of the context (128)


@pytest.fixture(scope="module")
def model_file():
    if not MODEL.exists():
        warnings.warn(f"{MODEL} is missing: the model's logits are NOT tested", stacklevel=1)
        pytest.skip(f"{MODEL} is missing: run models/fetch.py smollm2-135m")
    return MODEL


@pytest.fixture(scope="module")
def ids(build_dir, model_file):
    found = tokenize(build_dir, MODEL, TEXT.read_bytes())
    assert len(found) > POSITIONS
    return found


def reference_model():
    """transformers' Llama with the file's weights, dequantised by the gguf package."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(MODEL)

    def value(key):
        return reader.fields["llama." + key].contents()

    heads, kv_heads = value("attention.head_count"), value("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=True,
    )
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for tensor in reader.tensors:
        w = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.removesuffix(".weight").split(".")
        n = {"attn_q": heads, "attn_k": kv_heads}.get(parts[-1])
        if n:  # GGUF has the pairs of a head side by side, transformers half a head apart
            w = w.reshape(n, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        state[prefix + names[parts[-1]] + ".weight"] = torch.from_numpy(w.copy())
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected  # tied to the embedding
    model.tie_weights()
    return model


def test_logits_are_transformers_within_the_cost_of_int8_activations(build_dir, ids, tmp_path):
    import torch

    score = Score()
    ids = ids[: POSITIONS + 1]
    ours, _ = compute(build_dir, MODEL, ids[:-1], tmp_path)
    model = reference_model()
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids[:-1]])).last_hidden_state[0]
        for begin in range(0, POSITIONS, 128):
            part = slice(begin, begin + 128)
            reference = model.lm_head(hidden[part]).numpy()
            score.add(reference, ours[part], ids[begin + 1 : begin + 129])
    reference_ppl, our_ppl = score.perplexities()
    print(
        f"\n{score.n} positions: mean KL to transformers fp32 {score.mean_kl():.2e}, "
        f"perplexity {reference_ppl:.4f} there, {our_ppl:.4f} here"
    )
    (tmp_path / "logits").unlink()
    assert score.n == POSITIONS
    assert 0 <= score.mean_kl() <= 5e-3
    assert abs(our_ppl / reference_ppl - 1) <= 5e-3


def test_int8_kv_costs_what_is_stated(build_dir, ids, tmp_path):
    """kernels/NUMERICS.md, "Attention"."""
    score = Score()
    ids = ids[: POSITIONS + 1]
    dirs = [tmp_path / "f16", tmp_path / "int8"]
    for d in dirs:
        d.mkdir()
    f16, int8 = (compute(build_dir, MODEL, ids[:-1], d, kv_type=d.name)[0] for d in dirs)
    for begin in range(0, POSITIONS, 128):
        part = slice(begin, begin + 128)
        score.add(f16[part], int8[part], ids[begin + 1 : begin + 129])
    f16_ppl, int8_ppl = score.perplexities()
    print(
        f"\n{score.n} positions: mean KL of int8 KV to f16 {score.mean_kl():.2e}, "
        f"perplexity {f16_ppl:.4f} with f16, {int8_ppl:.4f} with int8"
    )
    for d in dirs:
        (d / "logits").unlink()
    assert 0 < score.mean_kl() <= INT8_KV_KL_MAX
    assert abs(int8_ppl / f16_ppl - 1) <= 5e-3


@pytest.mark.parametrize("kv_type", ["f16", "int8"])
def test_logits_are_the_replicas_bits(build_dir, ids, tmp_path, kv_type):
    ids = ids[: REPLICA_POSITIONS + 1]
    ours, our_hidden = compute(build_dir, MODEL, ids[:-1], tmp_path, kv_type=kv_type)
    (tmp_path / "ids").write_text(" ".join(map(str, ids[:-1])))
    subprocess.run(
        [sys.executable, "-m", "tests.model.replica", MODEL, tmp_path / "ids",
         tmp_path / "replica_hidden", tmp_path / "replica_logits", kv_type],
        cwd=ROOT,
        # Its products are small: more threads of BLAS only spin.
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    logits = np.fromfile(tmp_path / "replica_logits", np.float32).reshape(ours.shape)
    hidden = np.fromfile(tmp_path / "replica_hidden", np.float32).reshape(our_hidden.shape)
    score = Score()
    score.add(logits, ours, ids[1:])
    same = np.mean(logits.view(np.uint32) == np.asarray(ours).view(np.uint32))
    same_hidden = np.mean(hidden.view(np.uint32) == np.asarray(our_hidden).view(np.uint32))
    print(
        f"\n{score.n} positions: mean KL to the replica {score.mean_kl():.2e}, equal bits: "
        f"{same:.2%} of the logits, {same_hidden:.2%} of the hidden states"
    )
    assert abs(score.mean_kl()) <= 1e-5
    assert same == 1.0 and same_hidden == 1.0


@pytest.mark.parametrize("threads,chunk", [(1, 1), (2, 1), (1, 37), (2, 150)])
def test_hidden_states_do_not_depend_on_threads_and_chunks(build_dir, ids, tmp_path, threads, chunk):
    base, other = tmp_path / "base", tmp_path / "other"
    base.mkdir()
    other.mkdir()
    few = ids[:300]
    _, expected = compute(build_dir, MODEL, few, base)
    _, found = compute(build_dir, MODEL, few, other, threads=threads, chunk=chunk)
    assert np.array_equal(np.asarray(expected).view(np.uint32), np.asarray(found).view(np.uint32))


def test_hidden_states_do_not_depend_on_the_instruction_set(build_dir, ids, tmp_path):
    results = {}
    for isa in ("ref", "avx2", "avx512", "amx"):
        directory = tmp_path / isa
        directory.mkdir()
        try:
            _, hidden = compute(build_dir, MODEL, ids[:48], directory, isa=isa, threads=2, chunk=32)
        except IsaMissing:
            print(f"\n{isa} is not available on this machine: NOT compared")
            continue
        results[isa] = np.asarray(hidden).view(np.uint32).copy()
    for isa, bits in results.items():
        assert np.array_equal(results["ref"], bits), isa
