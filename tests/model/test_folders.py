"""Folders as transformers writes them: every served architecture, in every float type, in one file and
in shards.

A folder's matrices are quantised at load, so it must have the bits of the same weights quantised by the
`gguf` package and written as GGUF (whose logits test_architectures.py holds to transformers); and its
logits are held to transformers with those weights, too.
"""

import hashlib
import json
import subprocess

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.model import families
from tests.model.scoring import compute, log_softmax
from tests.model.test_architectures import CONFIGS, LENGTH, SEEDS

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KL_MAX = 2e-3


def build(name, dtype=torch.float32):
    """A model whose values all exist in dtype."""
    family, options = CONFIGS[name]
    model = families.build(family, SEEDS[name], **options)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype).float())
    return model


def save(model, path, dtype=torch.float32, **options):
    model.to(dtype).save_pretrained(path, **options)
    return model.float()


def ids_of(name):
    return np.random.default_rng(SEEDS[name]).integers(0, families.VOCAB, LENGTH).tolist()


def bits(build_dir, path, ids, directory, **options):
    return np.array(compute(build_dir, path, ids, directory, **options)[0]).view(np.uint32)


@pytest.mark.parametrize("name", CONFIGS)
def test_folder_has_the_bits_of_its_weights_as_gguf(build_dir, tmp_path, name):
    dtype = DTYPES[SEEDS[name] % 3]
    model = build(name, dtype)
    save(model, tmp_path / "one", dtype)
    save(model, tmp_path / "shards", dtype, max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    families.write(CONFIGS[name][0], model, tmp_path / "model.gguf", "Q8_0")
    ids = ids_of(name)
    expected = bits(build_dir, tmp_path / "model.gguf", ids, tmp_path)
    found = bits(build_dir, tmp_path / "one", ids, tmp_path)
    assert np.array_equal(found, expected)
    assert np.array_equal(bits(build_dir, tmp_path / "shards", ids, tmp_path), expected)
    assert np.array_equal(bits(build_dir, tmp_path / "one", ids, tmp_path, isa="ref", threads=1), expected)
    families.round_weights(model, "Q8_0")
    p, q = log_softmax(families.reference(model, ids)), log_softmax(found.view(np.float32))
    # Not the mean: a row whose router is near a tie takes another expert.
    assert np.median((np.exp(p) * (p - q)).sum(axis=-1)) <= KL_MAX


def change(folder, edit):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def as_version_4(config):
    """What transformers wrote before rope_parameters."""
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        config.pop("layer_types", None)
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
    config["rope_theta"] = rope.pop("rope_theta")
    rope.pop("partial_rotary_factor", None)
    kind = rope.pop("rope_type")
    # Phi-3's had the first context beside it alone, and another name for the type.
    if kind == "longrope":
        rope.pop("original_max_position_embeddings")
    config["rope_scaling"] = None if kind == "default" else rope | {"type": kind}
    config["torch_dtype"] = config.pop("dtype")


@pytest.mark.parametrize(
    "name", ["llama-factors", "llama-linear", "qwen2-yarn", "phi3-long", "gemma3-six-layers", "mistral-window"]
)
def test_folder_with_an_older_config_is_the_same_model(build_dir, tmp_path, name):
    save(build(name), tmp_path / "model")
    ids = ids_of(name)
    expected = bits(build_dir, tmp_path / "model", ids, tmp_path)
    change(tmp_path / "model", as_version_4)
    assert "rope_parameters" not in (tmp_path / "model/config.json").read_text()
    assert np.array_equal(bits(build_dir, tmp_path / "model", ids, tmp_path), expected)


def refused(build_dir, folder):
    done = subprocess.run(
        [build_dir / "tests/tools/logits_tool", folder, "auto", "2", "64", "-", "-"],
        input="1 2 3",
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    return done.stderr


def rope(**more):
    return lambda c: c["rope_parameters"].update(more)


def drop(key):
    return lambda c: c.pop(key)


@pytest.mark.parametrize(
    "name,edit,said",
    [
        ("llama-yarn", {"model_type": "gpt2"}, "model_type 'gpt2' is not served"),
        ("llama-yarn", {"model_type": None}, "model_type is not a string"),
        ("llama-yarn", {"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
        ("llama-yarn", {"hidden_act": "relu"}, "hidden_act is not 'silu'"),
        ("llama-yarn", {"hidden_size": "128"}, "hidden_size is not an integer"),
        ("llama-yarn", {"hidden_size": -1}, "hidden_size is not an integer"),
        ("llama-yarn", {"num_attention_heads": 0}, "head_count is 0"),
        ("llama-yarn", {"head_dim": 0}, "head_dim is not above 0"),
        ("llama-yarn", {"head_dim": 33}, "heads of 33"),
        ("llama-yarn", {"rms_norm_eps": 7}, "epsilon is 7"),
        ("llama-yarn", {"quantization_config": {"bits": 4}}, "quantised already"),
        ("llama-yarn", {"layer_types": ["full_attention", "chunked"]}, "layer_types"),
        ("llama-yarn", rope(rope_type="dynamic"), "rope of type 'dynamic'"),
        ("llama-yarn", rope(truncate=False), "truncate false"),
        ("llama-yarn", rope(mscale=1.0, mscale_all_dim=0.5), "mscale"),
        ("llama-yarn", rope(factor=None), "factor is missing"),
        ("llama-factors", rope(low_freq_factor=4.0), "is not below high_freq_factor"),
        ("llama-factors", drop("rms_norm_eps"), "rms_norm_eps is missing"),
        ("mistral-window", drop("sliding_window"), "sliding_window is missing"),
        ("qwen2-tied", {"use_sliding_window": True, "sliding_window": 64, "layer_types": None},
         "a window of 64 is not served"),
        ("qwen2-tied", {"tie_word_embeddings": False}, "lm_head.weight' is missing"),
        ("qwen2-tied", {"tie_word_embeddings": 1}, "tie_word_embeddings is not true or false"),
        ("qwen3-96", drop("head_dim"), "head_dim is missing"),
        ("gemma3-pattern", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3-pattern", {"layer_types": ["full_attention"]}, "1 values for 3 layers"),
        ("gemma3-pattern", {"query_pre_attn_scalar": 0}, "attention.scale is inf"),
        ("phi3-long", rope(short_factor=[1.0]), "rope_factors_short"),
        ("phi3-long", rope(long_factor=["a"] * 16), "long_factor is not a list of numbers"),
        ("phi3-long", rope(partial_rotary_factor=1.5), "partial_rotary_factor"),
        ("mixtral-2-of-8", {"num_local_experts": 9}, "block_sparse_moe.gate"),
        ("mixtral-2-of-8", {"num_experts_per_tok": 9}, "expert_used_count is 9"),
        ("qwen3moe-all", {"norm_topk_prob": False}, "norm_topk_prob false"),
        ("qwen3moe-all", {"mlp_only_layers": [1]}, "layers without experts"),
        ("qwen3moe-all", {"decoder_sparse_step": 2}, "layers without experts"),
    ],
)
def test_folder_with_a_config_that_is_wrong_is_refused(build_dir, tmp_path, name, edit, said):
    save(build(name), tmp_path)
    change(tmp_path, edit if callable(edit) else lambda c: c.update(edit))
    assert said in refused(build_dir, tmp_path)


@pytest.mark.parametrize(
    "name,bend,said",
    [
        ("llama-yarn", {"model.layers.1.mlp.up_proj.weight": None}, "mlp.up_proj.weight' is missing"),
        ("llama-yarn", {"model.layers.2.mlp.up_proj.weight": torch.ones(96, 128)}, "is not part of"),
        ("llama-yarn", {"model.layers.1.self_attn.q_proj.weight": torch.ones(126, 128)}, "q_proj"),
        ("llama-yarn", {"model.layers.1.self_attn.o_proj.bias": torch.ones(128)}, "o_proj.bias"),
        ("llama-yarn", {"model.norm.weight": torch.full((128,), torch.nan)}, "is not finite"),
        ("llama-yarn", {"lm_head.weight": torch.full((259, 128), torch.inf)}, "is not finite, or too large"),
        ("llama-yarn", {"lm_head.weight": torch.full((259, 128), 1e7)}, "is not finite, or too large"),
        ("llama-yarn", {"lm_head.weight": torch.ones(259, 128, dtype=torch.int8)}, "of type I8"),
        ("llama-yarn", {"lm_head.weight": torch.ones(259, 128, 2, 1, 1)}, "5 dimensions"),
        ("mixtral-2-of-8", {"model.layers.0.block_sparse_moe.experts.7.w2.weight": None}, "experts.7.w2"),
        ("mixtral-2-of-8", {"model.layers.0.block_sparse_moe.experts.8.w2.weight": torch.ones(96, 64)}, "experts.8.w2"),
    ],
)
def test_folder_with_tensors_that_are_wrong_is_refused(build_dir, tmp_path, name, bend, said):
    save(build(name), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path) | bend
    safetensors.torch.save_file({k: v for k, v in tensors.items() if v is not None}, path)
    assert said in refused(build_dir, tmp_path)


def test_tensors_that_change_nothing_may_be_there(build_dir, tmp_path):
    save(build("qwen2-tied"), tmp_path)
    ids = ids_of("qwen2-tied")
    expected = bits(build_dir, tmp_path, ids, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    safetensors.torch.save_file(tensors, path)
    assert np.array_equal(bits(build_dir, tmp_path, ids, tmp_path), expected)


def manifest(build_dir, path):
    done = subprocess.run(
        [build_dir / "tests/tools/logits_tool", path, "manifest"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_manifest_covers_every_file_of_a_folder(build_dir, tmp_path):
    save(build("llama-yarn"), tmp_path, max_shard_size="100KB")
    extra = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    for name in extra:
        (tmp_path / name).write_text(name)
    (tmp_path / "README.md").write_text("not read")
    files = sorted(f for f in tmp_path.iterdir() if f.name != "README.md")
    assert {"config.json", "generation_config.json", "model.safetensors.index.json", *extra} < {f.name for f in files}

    def tree(data):
        chunks = [data[i : i + (1 << 22)] for i in range(0, len(data), 1 << 22)]
        digests = b"".join(hashlib.sha256(c).digest() for c in chunks)
        return hashlib.sha256(b"argosy-exact-1\0" + digests).hexdigest()

    def expected():
        lines = [f"{tree(f.read_bytes())}  {f.name}\n" for f in files]
        return tree(b"safetensors-q8_0\n" + "".join(lines).encode())

    first = manifest(build_dir, tmp_path)
    assert first == expected()
    (tmp_path / "chat_template.jinja").write_text("another")
    assert manifest(build_dir, tmp_path) == expected() != first


# ---- text -----------------------------------------------------------------------------------


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def write_tokenizer(folder):
    """Letters, and three special tokens: <s> 26, </s> 27, <turn> 28."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokens = [{"id": 26 + i, "content": t, **special} for i, t in enumerate(["<s>", "</s>", "<turn>"])]
    model = {"type": "BPE", "vocab": {chr(97 + i): i for i in range(26)}, "merges": [], "unk_token": None}
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": tokens, "normalizer": None, "pre_tokenizer": BYTE_LEVEL,
                    "post_processor": None, "decoder": BYTE_LEVEL, "model": model})
    )


def text_of(build_dir, folder):
    """What is said of the folder's tokens: {"bos": id, "eos": id, "ends": [ids]}; or the refusal."""
    done = subprocess.run(
        [build_dir / "tests/tools/logits_tool", folder, "ends"], capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


@pytest.mark.parametrize(
    "files,expected",
    [
        # Of config.json; </s> ends a text by its name, as in a GGUF file.
        ({}, {"bos": 1, "eos": 2, "ends": [2, 27]}),
        ({"generation_config.json": {"eos_token_id": [27, 28], "bos_token_id": 26}},
         {"bos": 26, "eos": 27, "ends": [27, 28]}),
        ({"generation_config.json": {"eos_token_id": 28}}, {"bos": 1, "eos": 28, "ends": [27, 28]}),
        ({"tokenizer_config.json": {"bos_token": "<s>", "eos_token": {"content": "<turn>"}},
          "generation_config.json": {"eos_token_id": [27]}},
         {"bos": 26, "eos": 28, "ends": [27, 28]}),
        ({"tokenizer_config.json": {"bos_token": None, "eos_token": "</s>"},
          "generation_config.json": {"eos_token_id": [5000]}},  # a row of the embedding, no token
         {"bos": 1, "eos": 27, "ends": [2, 27]}),
        ({"tokenizer_config.json": {"eos_token": "<stop>"}}, "eos_token is no token of tokenizer.json"),
        ({"tokenizer_config.json": {"eos_token": 3}}, "eos_token is not a token's text"),
        ({"generation_config.json": {"eos_token_id": "2"}}, "eos_token_id is not a token's id"),
        ({"generation_config.json": {"eos_token_id": list(range(20))}}, "more than 16"),
        ({"generation_config.json": []}, "not a JSON object"),
    ],
)
def test_which_tokens_end_a_text(build_dir, tmp_path, files, expected):
    save(build("llama-yarn"), tmp_path)
    (tmp_path / "generation_config.json").unlink()
    write_tokenizer(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = text_of(build_dir, tmp_path)
    assert found == expected if isinstance(expected, dict) else expected in found


def test_a_folder_without_a_tokenizer_is_refused(build_dir, tmp_path):
    save(build("llama-yarn"), tmp_path)
    assert "tokenizer.json is missing" in text_of(build_dir, tmp_path)
