"""Every served architecture against transformers, on small random models with odd sizes.

Weights of F32 are exact on both sides, so what is left is the order of sums, and elements of K and V
that it carries over to the next fp16. F16 the same, with the weights rounded for both. Q8_0 shows what int8 activations cost. And the bits of each are the same
for every instruction set, number of threads and chunk size.
"""

import subprocess

import numpy as np
import pytest

from tests.model import families
from tests.model.scoring import IsaMissing, compute, log_softmax

LENGTH = 150  # past the first split of the context, and past every window
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def sizes(hidden, ff, layers, heads, kv_heads, **more):
    return {
        "hidden_size": hidden,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 512,
    } | more


def longrope(half, context):
    random = np.random.default_rng(half)
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": context,
        "short_factor": (1 + random.random(half)).tolist(),
        "long_factor": (1 + 7 * random.random(half)).tolist(),
    }


def gemma(hidden, ff, layers, heads, kv_heads, head_dim, full=None, **more):
    full = full or {"rope_type": "default", "rope_theta": 1000000.0}
    local = {"rope_type": "default", "rope_theta": 10000.0}
    return sizes(hidden, ff, layers, heads, kv_heads, head_dim=head_dim, **more) | {
        "query_pre_attn_scalar": more.get("query_pre_attn_scalar", head_dim),
        "rope_parameters": {"full_attention": full, "sliding_attention": local},
    }


# name: family, configuration. Those with every width a multiple of 32 are run as Q8_0, too.
CONFIGS = {
    "llama-tied-3-heads": ("llama", sizes(96, 160, 2, 3, 1, tie_word_embeddings=True)),
    "llama-odd-widths": ("llama", sizes(120, 100, 3, 5, 5)),
    "llama-factors": ("llama", sizes(160, 96, 2, 5, 1, rope_parameters=LLAMA3)),
    "llama-linear": (
        "llama",
        sizes(64, 96, 2, 4, 2, rope_parameters={
            "rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}),
    ),
    "llama-yarn": ("llama", sizes(128, 96, 2, 2, 1, rope_parameters=YARN)),
    "mistral-window": ("mistral", sizes(96, 128, 2, 6, 2, sliding_window=37)),
    "mistral-wide-heads": ("mistral", sizes(64, 96, 2, 3, 1, head_dim=96, sliding_window=None)),
    "qwen2-tied": ("qwen2", sizes(96, 192, 3, 3, 1, tie_word_embeddings=True)),
    "qwen2-7-heads": ("qwen2", sizes(224, 96, 2, 7, 1)),
    "qwen2-odd-widths": ("qwen2", sizes(72, 50, 2, 3, 3)),
    "qwen2-yarn": (
        "qwen2",
        sizes(64, 96, 2, 4, 2, rope_parameters=YARN | {"beta_fast": 16.0, "beta_slow": 2.0}),
    ),
    "qwen3-tied": ("qwen3", sizes(96, 160, 3, 3, 1, head_dim=64, tie_word_embeddings=True)),
    "qwen3-96": ("qwen3", sizes(64, 96, 2, 5, 5, head_dim=96)),
    "qwen3-yarn": (
        "qwen3",
        sizes(64, 96, 2, 4, 2, head_dim=32, rope_parameters=YARN | {"attention_factor": 1.3}),
    ),
    "gemma3-six-layers": ("gemma3", gemma(64, 96, 7, 4, 1, 32, sliding_window=20)),
    "gemma3-256": ("gemma3", gemma(96, 160, 2, 3, 1, 256, sliding_window=64)),
    "gemma3-pattern": (
        "gemma3",
        gemma(96, 64, 3, 2, 2, 48, sliding_window=17, query_pre_attn_scalar=77,
              layer_types=["full_attention", "sliding_attention", "full_attention"],
              full={"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0}),
    ),
    "gemma3-caps": (
        "gemma3",
        gemma(88, 100, 2, 2, 1, 40, sliding_window=33, attn_logit_softcapping=3.0,
              final_logit_softcapping=5.0, tie_word_embeddings=False),
    ),
    "phi3-plain": ("phi3", sizes(96, 160, 2, 3, 3)),
    "phi3-window": ("phi3", sizes(96, 128, 3, 3, 1, sliding_window=45)),
    "phi3-long": (
        "phi3",
        sizes(96, 64, 2, 3, 1, original_max_position_embeddings=32,
              rope_parameters=longrope(16, 32)),
    ),
    "phi3-short": (
        "phi3",
        sizes(96, 64, 2, 2, 1, original_max_position_embeddings=512,
              rope_parameters=longrope(24, 512)),
    ),
    "phi3-part-of-the-head": (
        "phi3",
        sizes(128, 64, 2, 2, 1, tie_word_embeddings=True, partial_rotary_factor=0.75,
              rope_parameters=longrope(24, 64) | {"partial_rotary_factor": 0.75},
              original_max_position_embeddings=64),
    ),
    "mixtral-2-of-8": (
        "mixtral",
        sizes(96, 64, 2, 3, 1, num_local_experts=8, num_experts_per_tok=2, sliding_window=None),
    ),
    "mixtral-3-of-5-odd": (
        "mixtral",
        sizes(72, 44, 2, 3, 3, num_local_experts=5, num_experts_per_tok=3, sliding_window=None),
    ),
    "qwen3moe-8-of-33": (
        "qwen3moe",
        sizes(64, 999, 3, 5, 1, head_dim=32, moe_intermediate_size=32, num_experts=33,
              num_experts_per_tok=8),
    ),
    "qwen3moe-1-of-3": (
        "qwen3moe",
        sizes(96, 999, 2, 2, 2, head_dim=40, moe_intermediate_size=96, num_experts=3,
              num_experts_per_tok=1, tie_word_embeddings=True),
    ),
    "qwen3moe-all": (
        "qwen3moe",
        sizes(64, 999, 2, 4, 2, head_dim=16, moe_intermediate_size=64, num_experts=4,
              num_experts_per_tok=4),
    ),
}
SEEDS = {name: i for i, name in enumerate(CONFIGS)}
# Mean KL(transformers || ours), and the largest difference of two logits over their spread.
LIMITS = {"F32": (1e-7, 3e-3), "F16": (1e-7, 3e-3), "Q8_0": (2e-3, None)}


def rows_of_32(options):
    heads = options["num_attention_heads"]
    head_dim = options.get("head_dim") or options["hidden_size"] // heads
    ff = options.get("moe_intermediate_size") or options["intermediate_size"]
    return all(n % 32 == 0 for n in (options["hidden_size"], ff, heads * head_dim))


CASES = [
    (name, kind)
    for name, (_, options) in CONFIGS.items()
    for kind in LIMITS
    if kind != "Q8_0" or rows_of_32(options)
]


def make(name, kind, path):
    family, options = CONFIGS[name]
    model = families.build(family, SEEDS[name], **options)
    families.write(family, model, path, kind)
    families.round_weights(model, kind)
    ids = np.random.default_rng(SEEDS[name]).integers(0, families.VOCAB, LENGTH).tolist()
    return model, ids


@pytest.mark.parametrize("name,kind", CASES, ids=lambda v: v)
def test_architecture_is_transformers(build_dir, tmp_path, name, kind):
    path = tmp_path / "model.gguf"
    model, ids = make(name, kind, path)
    ours, _ = compute(build_dir, path, ids, tmp_path)
    reference = families.reference(model, ids)
    p, q = log_softmax(reference), log_softmax(ours)
    kl = (np.exp(p) * (p - q)).sum(axis=-1).mean()
    spread = reference.std(axis=-1).mean()
    difference = np.abs(reference - ours).max() / spread
    print(f"\n{name} {kind}: spread {spread:.2f}, KL {kl:.1e}, largest difference {difference:.1e}")
    assert 0.5 < spread < 5  # neither flat nor certain: the comparison means something
    kl_max, difference_max = LIMITS[kind]
    assert kl <= kl_max
    assert difference_max is None or difference <= difference_max


@pytest.mark.parametrize("name,kind", [c for c in CASES if c[1] != "F16"], ids=lambda v: v)
def test_architecture_has_the_same_bits_everywhere(build_dir, tmp_path, name, kind):
    path = tmp_path / "model.gguf"
    _, ids = make(name, kind, path)
    expected, _ = compute(build_dir, path, ids, tmp_path, isa="ref", threads=1)
    expected = np.array(expected).view(np.uint32)
    others = [("avx2", 2, 64), ("avx512", 2, 64), ("amx", 2, 64), ("auto", 1, 1), ("auto", 2, 1), ("auto", 3, 7), ("auto", 2, 150)]
    for isa, threads, chunk in others:
        try:
            found, _ = compute(build_dir, path, ids, tmp_path, isa, threads, chunk)
        except IsaMissing:
            print(f"\n{isa} is not available on this machine: NOT compared")
            continue
        assert np.array_equal(expected, np.asarray(found).view(np.uint32)), (isa, threads, chunk)
    for ranks, threads, chunk in [(2, 2, 7), (3, 1, 33), (4, 1, 64), (8, 1, 150)]:
        found, _ = compute(build_dir, path, ids, tmp_path, "auto", threads, chunk, ranks)
        assert np.array_equal(expected, np.asarray(found).view(np.uint32)), (ranks, threads, chunk)


def bits(arrays):
    return [np.array(a).view(np.uint32) for a in arrays]


@pytest.mark.parametrize("name,kind", [c for c in CASES if c[1] != "F16"], ids=lambda v: v)
def test_architecture_has_the_same_bits_on_a_gpu(build_dir, tmp_path, monkeypatch, name, kind):
    """Emulated: a prompt in tiles, tokens one by one, two and four GPUs that share it out."""
    monkeypatch.setenv("SIMT_MACHINE", "devices=4")
    path = tmp_path / "model.gguf"
    _, ids = make(name, kind, path)
    few = ids[:20]
    runs = [("f16", 1, ids, LENGTH), ("f16", 1, few, 1), ("f16", 2, ids, 70), ("f16", 4, few, 10)]
    for kv_type, ranks, some, chunk in runs + [("int8", 1, few, 10)]:
        expected = bits(compute(build_dir, path, some, tmp_path, kv_type=kv_type))
        found = bits(compute(build_dir, path, some, tmp_path, "cuda", 1, chunk, ranks, kv_type))
        for ours, theirs in zip(found, expected):
            assert np.array_equal(ours, theirs), (kv_type, ranks, chunk)


def refused(build_dir, tmp_path, name, keys=None, bend=None):
    """What is said about a file that is wrong in that."""
    family, options = CONFIGS[name]
    path = tmp_path / "bad.gguf"
    families.write(family, families.build(family, 1, **options), path, "F32", keys, bend)
    done = subprocess.run(
        [build_dir / "tests/tools/logits_tool", path, "auto", "2", "64", "-", "-"],
        input="1 2 3",
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    return done.stderr


@pytest.mark.parametrize(
    "name,keys,said",
    [
        ("llama-yarn", {"rope.freq_base": 1.0}, "yarn with a base of 1"),
        ("llama-yarn", {"rope.scaling.type": "su"}, "'su' is not served"),
        ("llama-yarn", {"rope.scaling.factor": 0.0}, "rope.scaling.factor is 0"),
        ("llama-yarn", {"rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor is 0.5"),
        ("llama-yarn", {"rope.scaling.original_context_length": 0}, "original_context_length is 0"),
        ("qwen2-tied", {"attention.sliding_window": 64}, "a window of 64 is not served"),
        ("qwen3-96", {"attention.key_length": 520}, "attention.key_length is 520"),
        ("gemma3-pattern", {"attention.sliding_window_pattern": [True]}, "1 values for 3 layers"),
        ("gemma3-pattern", {"attention.sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        ("gemma3-pattern", {"attention.sliding_window_pattern": ["a"] * 3}, "list of numbers"),
        ("gemma3-256", {"rope.freq_base_swa": float("nan")}, "rope.freq_base_swa is nan"),
        ("gemma3-caps", {"final_logit_softcapping": -1.0}, "final_logit_softcapping is -1"),
        ("phi3-long", {"rope.dimension_count": 30}, "rope_factors_long"),
        ("mixtral-2-of-8", {"expert_used_count": 9}, "expert_used_count is 9, wanted 1 to 8"),
        ("mixtral-2-of-8", {"expert_used_count": 0}, "expert_used_count is 0"),
        ("mixtral-2-of-8", {"expert_count": 1 << 30}, "expert_count is 1073741824"),
        ("mixtral-2-of-8", {"expert_count": 4}, "ffn_gate_inp"),
        ("mixtral-2-of-8", {"expert_count": 0}, "ffn_gate.weight' is missing"),
        ("mixtral-2-of-8", {"expert_shared_count": 1}, "expert_shared_count is not served"),
        ("qwen3moe-all", {"expert_feed_forward_length": 32}, "ffn_gate_exps"),
        ("qwen3moe-all", {"expert_count": None}, "expert_count"),
    ],
)
def test_architecture_refuses_metadata_that_is_wrong(build_dir, tmp_path, name, keys, said):
    assert said in refused(build_dir, tmp_path, name, keys)


@pytest.mark.parametrize(
    "name,bend,said",
    [
        ("phi3-long", {"blk.0.attn_qkv.weight": np.ones((100, 96))}, "wanted 96 × 160 × 1"),
        ("qwen3-96", {"blk.1.attn_q_norm.weight": None}, "attn_q_norm.weight' is missing"),
        ("qwen2-tied", {"blk.2.attn_k.bias": None}, "attn_k.bias' is missing"),
        ("qwen2-tied", {"blk.2.attn_k.bias": np.full(32, np.inf)}, "is not finite"),
        ("gemma3-256", {"blk.0.post_ffw_norm.weight": np.ones(95)}, "post_ffw_norm"),
        ("mixtral-2-of-8", {"blk.0.ffn_up_exps.weight": np.ones((7, 64, 96))}, "wanted 96 × 64 × 8"),
        ("mixtral-2-of-8", {"blk.0.ffn_down_exps.weight": np.ones((512, 96))}, "ffn_down_exps"),
    ],
)
def test_architecture_refuses_tensors_that_are_wrong(build_dir, tmp_path, name, bend, said):
    assert said in refused(build_dir, tmp_path, name, bend=bend)
