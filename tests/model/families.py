"""Small random models of every served architecture: built in transformers, written as GGUF.

The tensors' names, layouts and metadata are those that llama.cpp's converter writes (it is the
format's reference): q and k of Llama's family with the pairs of a head side by side, Gemma's norms
plus one, experts as one tensor of three dimensions, Llama 3's and longrope's factors as tensors.

`reference` runs transformers in fp32, with K and V rounded to fp16 as every cache here holds them.
"""

import math
from dataclasses import dataclass, field

import gguf
import numpy as np
import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

VOCAB = 259

# ---- the reference --------------------------------------------------------------------------


def attention_over_f16(module, query, key, value, attention_mask, scaling=None, softcap=None, **_):
    """Plain attention; K and V as a cache of fp16 gives them back."""
    heads = query.shape[1] // key.shape[1]
    key = key.half().float().repeat_interleave(heads, 1)
    value = value.half().float().repeat_interleave(heads, 1)
    score = query @ key.transpose(2, 3) * scaling
    softcap = softcap or getattr(module, "attn_logit_softcapping", None)
    if softcap:
        score = torch.tanh(score / softcap) * softcap
    weight = torch.softmax(score + attention_mask, -1)
    return (weight @ value).transpose(1, 2).contiguous(), weight


AttentionInterface.register("over_f16", attention_over_f16)
AttentionMaskInterface.register("over_f16", eager_mask)


def reference(model, ids):
    """Logits (n, vocab) in fp32."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


# ---- random models --------------------------------------------------------------------------


@dataclass
class Family:
    """An architecture in transformers and in GGUF."""

    arch: str
    config: type
    model: type
    permuted: bool = False  # q and k
    norm_shift: float = 0.0
    extra: dict = field(default_factory=dict)  # of the configuration


FAMILIES = {
    "llama": Family(
        "llama", transformers.LlamaConfig, transformers.LlamaForCausalLM, permuted=True
    ),
    "mistral": Family(
        "llama", transformers.MistralConfig, transformers.MistralForCausalLM, permuted=True
    ),
    "mixtral": Family(
        "llama", transformers.MixtralConfig, transformers.MixtralForCausalLM, permuted=True
    ),
    "qwen2": Family("qwen2", transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": Family("qwen3", transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "qwen3moe": Family(
        "qwen3moe",
        transformers.Qwen3MoeConfig,
        transformers.Qwen3MoeForCausalLM,
        extra={"norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1},
    ),
    "gemma3": Family(
        "gemma3", transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, norm_shift=1.0
    ),
    "phi3": Family(
        "phi3", transformers.Phi3Config, transformers.Phi3ForCausalLM, extra={"pad_token_id": 0}
    ),
}


def build(family, seed, **options):
    """A model with random weights whose logits have a spread of about two."""
    f = FAMILIES[family]
    settings = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5}
    model = f.model(f.config(**(settings | f.extra | options))).float().eval()
    model.set_attn_implementation("over_f16")
    random = torch.Generator().manual_seed(seed)

    def normal(shape, spread):
        return torch.randn(shape, generator=random) * spread

    scaled = family == "gemma3"  # the embedding, by sqrt(n) in the pass
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.copy_((0.0 if f.norm_shift else 1.0) + normal(p.shape, 0.25))
            elif name.endswith(".bias"):
                p.copy_(normal(p.shape, 0.4))
            elif "embed_tokens" in name:
                tied = model.config.tie_word_embeddings
                p.copy_(normal(p.shape, 2 / math.sqrt(p.shape[1]) if tied or scaled else 1.0))
            elif "lm_head" in name or "mlp.gate.weight" in name:
                p.copy_(normal(p.shape, 2 / math.sqrt(p.shape[1])))
            else:
                p.copy_(normal(p.shape, 1 / math.sqrt(p.shape[-1])))
    return model


# ---- GGUF -----------------------------------------------------------------------------------

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.down_proj": "ffn_down_exps",
}
GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def permute(w, heads):
    """Pairs of a head that lie half a head apart come side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_name(family, name):
    """What GGUF calls a tensor of transformers (but for gate_up_proj of experts, which are two)."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):  # experts are parameters of their own
        stem, kind = name, "weight"
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    names = GEMMA_NAMES if FAMILIES[family].arch == "gemma3" else NAMES
    return f"blk.{layer}.{names.get(part, part)}.{kind}"


def tensors(family, model):
    """(GGUF name, array) of the model's weights."""
    f, config = FAMILIES[family], model.config
    for name, w in model.state_dict().items():
        w = w.numpy()
        to = gguf_name(family, name)
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("gate_up_proj"):
            for part, half in zip(("gate", "up"), np.split(w, 2, axis=1)):
                yield to.replace("mlp.experts.gate_up_proj", f"ffn_{part}_exps"), half
            continue
        if f.permuted and ".attn_q." in to:
            w = permute(w, config.num_attention_heads)
        if f.permuted and ".attn_k." in to:
            w = permute(w, config.num_key_value_heads)
        if name.endswith("norm.weight"):
            w = w + np.float32(f.norm_shift)
        yield to, w


def read(family, model, path):
    """Gives the model the weights of a file, dequantised by the gguf package. Not for the families
    whose tensors GGUF permutes or splits."""
    f, reader = FAMILIES[family], gguf.GGUFReader(path)
    stored = {t.name: t for t in reader.tensors}
    assert not f.permuted
    with torch.no_grad():
        for name, p in model.named_parameters():
            t = stored.pop(gguf_name(family, name))
            w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
            shift = f.norm_shift if name.endswith("norm.weight") else 0
            p.copy_(torch.from_numpy(w.reshape(p.shape) - np.float32(shift)))
    assert not stored, stored.keys()


def llama3_factors(rope, dim):
    """What each frequency is divided by: nothing for fast ones, the factor for slow ones."""
    wave = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    context = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (context / wave - low) / (high - low)
    mixed = 1 / ((1 - smooth) / rope["factor"] + smooth)
    factors = np.where(wave > context / low, rope["factor"], mixed)
    return np.where(wave < context / high, 1, factors)


def write_rope(writer, config, rope):
    kind = rope.get("rope_type", "default")
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "attention_factor" in rope:
            writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
        if "beta_fast" in rope:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        if "beta_slow" in rope:
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    elif kind == "longrope":
        context, first = config.max_position_embeddings, rope["original_max_position_embeddings"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        scale = context / first
        writer.add_rope_scaling_attn_factors(
            math.sqrt(1 + math.log(scale) / math.log(first)) if scale > 1 else 1.0
        )
        writer.add_tensor("rope_factors_long.weight", np.float32(rope["long_factor"]))
        writer.add_tensor("rope_factors_short.weight", np.float32(rope["short_factor"]))
    elif kind == "llama3":
        writer.add_tensor("rope_freqs.weight", np.float32(llama3_factors(rope, dim)))
    else:
        assert kind == "default", kind


def write_metadata(writer, family, config):
    f = FAMILIES[family]
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    if "full_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    write_rope(writer, config, rope)
    if f.arch == "phi3":
        part = rope.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(part * config.hidden_size) // heads)
        writer.add_rope_scaling_orig_ctx_len(
            rope.get("original_max_position_embeddings", config.max_position_embeddings)
        )
    else:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if f.arch in ("gemma3", "phi3") or family == "mistral":
        writer.add_sliding_window(config.sliding_window or 0)
    if f.arch == "gemma3":
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
        if config.attn_logit_softcapping:
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        if config.query_pre_attn_scalar != head_dim:
            writer.add_attention_scale(config.query_pre_attn_scalar**-0.5)
        pattern = [kind == "sliding_attention" for kind in config.layer_types]
        if pattern != [(i + 1) % 6 != 0 for i in range(len(pattern))]:
            writer.add_sliding_window_pattern(pattern)
    if family in ("mixtral", "qwen3moe"):
        writer.add_expert_count(getattr(config, "num_experts", None) or config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if family == "qwen3moe":
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def stored_as(kind, name, shape):
    """Whether `write` stores a tensor as `kind`: vectors, biases and routers stay F32, and so does
    what has rows of no whole blocks."""
    block = gguf.GGML_QUANT_SIZES[kind][0]
    router = "ffn_gate_inp" in name or "mlp.gate.weight" in name
    return (
        len(shape) > 1
        and not router
        and shape[-1] % block == 0
        and kind != gguf.GGMLQuantizationType.F32
    )


def write(family, model, path, kind, keys=None, bend=None):
    """The model as GGUF with matrices of `kind` ("F32", "F16", "Q8_0", …), where `stored_as` says
    so: as the converter does. For files that say something wrong: `keys` are
    metadata (without the architecture's prefix) that get another value, None for none at all;
    `bend` maps the name of a tensor to what is written in its place, None for nothing."""
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, FAMILIES[family].arch)
    write_metadata(writer, family, model.config)
    for key, value in (keys or {}).items():
        key = f"{FAMILIES[family].arch}.{key}"
        writer.kv_data[0].pop(key, None)
        if value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, w in tensors(family, model):
        if bend and name in bend:
            w = bend[name]
        if w is None:
            continue
        w = np.ascontiguousarray(w, np.float32)
        if not stored_as(kind, name, w.shape):
            writer.add_tensor(name, w)
        else:
            writer.add_tensor(name, gguf.quants.quantize(w, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def round_weights(model, kind):
    """Gives the model's matrices the values that `write` to `kind` stores."""
    kind = gguf.GGMLQuantizationType[kind]
    if kind == gguf.GGMLQuantizationType.F32:
        return
    with torch.no_grad():
        for name, p in model.named_parameters():
            if stored_as(kind, name, p.shape):
                stored = gguf.quants.quantize(p.numpy(), kind)
                p.copy_(torch.from_numpy(gguf.quants.dequantize(stored, kind).reshape(p.shape)))
