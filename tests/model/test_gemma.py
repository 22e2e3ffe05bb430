"""The logits of the real Gemma 3 270M (Q4_K_M) against transformers on its dequantised weights."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.model.scoring import Score, compute, tokenize

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf"
TEXT = Path(__file__).with_name("text.txt")
BOS = 2
POSITIONS = 640  # more than its window of 512
EVERY = 4  # position is scored: 262,144 logits each


@pytest.fixture(scope="module")
def model_file():
    if not MODEL.exists():
        warnings.warn(f"{MODEL} is missing: Gemma's logits are NOT tested", stacklevel=1)
        pytest.skip(f"{MODEL} is missing: run models/fetch.py gemma3-270m")
    return MODEL


def reference_model(path):
    import torch
    from gguf import GGUFReader
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from tests.model import families

    reader = GGUFReader(path)

    def value(key):
        return reader.fields["gemma3." + key].contents()

    config = Gemma3TextConfig(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        head_dim=value("attention.key_length"),
        query_pre_attn_scalar=value("attention.key_length"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        sliding_window=value("attention.sliding_window"),
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": value("rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )
    with torch.device("meta"):
        model = Gemma3ForCausalLM(config)
    model = model.to_empty(device="cpu").float().eval()
    # to_empty leaves what is not a parameter without its values: the angles, the embedding's scale.
    fresh = Gemma3ForCausalLM(Gemma3TextConfig(**(config.to_dict() | {"vocab_size": 8})))
    found = dict(model.named_buffers())
    for name, buffer in fresh.named_buffers():
        found[name].copy_(buffer)
    model.tie_weights()
    model.set_attn_implementation("over_f16")
    families.read("gemma3", model, path)
    return model


def test_logits_are_transformers_within_the_cost_of_int8_activations(
    build_dir, model_file, tmp_path
):
    import torch

    ids = [BOS, *tokenize(build_dir, model_file, TEXT.read_bytes())][: POSITIONS + 1]
    assert len(ids) == POSITIONS + 1
    ours, _ = compute(build_dir, model_file, ids[:-1], tmp_path)
    model = reference_model(model_file)
    score, same = Score(), 0
    with torch.inference_mode():
        hidden = model.model(torch.tensor([ids[:-1]])).last_hidden_state[0]
        for begin in range(0, POSITIONS, 64):
            rows = np.arange(begin, begin + 64, EVERY)
            reference = model.lm_head(hidden[rows]).numpy()
            score.add(reference, ours[rows], np.asarray(ids)[rows + 1])
            same += int((reference.argmax(-1) == ours[rows].argmax(-1)).sum())
    (tmp_path / "logits").unlink()
    reference_ppl, our_ppl = score.perplexities()
    print(
        f"\n{score.n} positions: mean KL to transformers fp32 {score.mean_kl():.2e}, "
        f"perplexity {reference_ppl:.4f} there, {our_ppl:.4f} here, "
        f"{same / score.n:.1%} of the most likely tokens equal"
    )
    assert 0 <= score.mean_kl() <= 1e-2
    assert abs(our_ppl / reference_ppl - 1) <= 1e-2
    assert reference_ppl < 60  # the reference itself makes sense of the text


def test_gemma_completes_what_everybody_knows(build_dir, model_file, tmp_path):
    def next_token(text):
        ids = [BOS, *tokenize(build_dir, model_file, text.encode())]
        logits, _ = compute(build_dir, model_file, ids, tmp_path)
        return int(np.asarray(logits[-1]).argmax())

    def token(text):
        (found,) = tokenize(build_dir, model_file, text.encode())
        return found

    assert next_token("Monday, Tuesday, Wednesday, Thursday,") == token(" Friday")
    assert next_token("Paris is the capital of France. Rome is the capital of") == token(" Italy")
    assert next_token("one, two, three, four, five, six,") == token(" seven")


def test_gemma_has_the_same_bits_token_by_token_on_any_threads(build_dir, model_file, tmp_path):
    ids = [BOS, *tokenize(build_dir, model_file, TEXT.read_bytes())][:24]
    expected = np.array(compute(build_dir, model_file, ids, tmp_path, threads=1)[0]).view(np.uint32)
    for threads, chunk in [(2, 1), (3, 1), (4, 2), (2, 1)]:
        found, _ = compute(build_dir, model_file, ids, tmp_path, threads=threads, chunk=chunk)
        assert np.array_equal(expected, np.asarray(found).view(np.uint32)), (threads, chunk)
