"""Models of other formats and families than the first one, served by a whole cluster."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.model import families
from tests.model.scoring import compute, tokenize

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = ROOT / "tests/model/text.txt"
GEMMA = ROOT / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf"
TEMPLATE = """{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""
MARGIN = 0.3  # between the best two logits: more than int8 activations move them


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(TEXT)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATE,
    )


def make_folder(folder):
    """A random Llama with a tokenizer of its own, as transformers saves them; the model."""
    tokenizer = make_tokenizer()
    model = families.build(
        "llama", 5, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=512, vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )
    model.save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def old_style(folder):
    """The template in tokenizer_config.json, as transformers saved it before; one of several."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    template = (folder / "chat_template.jinja").read_text()
    config["chat_template"] = [
        {"name": "rag", "template": "wrong"},
        {"name": "default", "template": template},
    ]
    path.write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize("style", ["new", "old"])
def test_a_folder_is_served_as_its_weights_as_gguf_say(build_dir, start_cluster, tmp_path, style):
    folder = tmp_path / "tiny"
    model, tokenizer = make_folder(folder)
    if style == "old":
        old_style(folder)
    cluster = start_cluster(model=f"{folder}/")
    cluster.model = "tiny"
    messages = [{"role": "user", "content": "Who was he?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    body = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 40, "logprobs": True}
    status, text = cluster.request("POST", "/v1/chat/completions", body)
    assert status == 200, text
    answer = json.loads(text)
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    said = [bytes(t["bytes"]) for t in answer["choices"][0]["logprobs"]["content"]]
    assert len(said) > 5

    # The same weights as GGUF: each of the tokens is the best one behind those before it.
    families.write("llama", model, tmp_path / "model.gguf", "Q8_0")
    families.round_weights(model, "Q8_0")
    byte_of = {c: b for b, c in zip(range(256), map(chr_of, range(256)))}
    text_of = [bytes(byte_of[c] for c in s) if i > 2 else s.encode()
               for i, s in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))]
    ids = prompt + [text_of.index(t) for t in said]
    logits, _ = compute(build_dir, tmp_path / "model.gguf", ids, tmp_path)
    best = logits.argmax(axis=-1)[len(prompt) - 1 : -1]
    assert best.tolist() == ids[len(prompt) :]

    # transformers says the same wherever the best is not nearly the second.
    with torch.inference_mode():
        theirs = np.sort(model(torch.tensor([ids])).logits[0].numpy()[len(prompt) - 1 : -1])
        chosen = model(torch.tensor([ids])).logits[0].argmax(-1).numpy()[len(prompt) - 1 : -1]
    clear = theirs[:, -1] - theirs[:, -2] > MARGIN
    assert clear.sum() > len(said) / 4
    assert np.array_equal(chosen[clear], best[clear])


def chr_of(byte):
    """GPT-2's character for a byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte) if byte in plain else chr(256 + [b for b in range(256) if b not in plain].index(byte))


def test_gemma_3_is_served_end_to_end(build_dir, start_cluster, tmp_path):
    if not GEMMA.exists():
        warnings.warn(f"{GEMMA} is missing: serving Gemma 3 is NOT tested", stacklevel=1)
        pytest.skip(f"{GEMMA} is missing: run models/fetch.py gemma3-270m")
    cluster = start_cluster(model="gemma3-270m")
    prompt = "The capital of France is"
    body = {"model": "gemma3-270m", "prompt": prompt, "temperature": 0, "max_tokens": 12}
    status, text = cluster.request("POST", "/v1/completions", body, timeout_s=120)
    assert status == 200, text
    answer = json.loads(text)["choices"][0]["text"]
    assert "France" in answer  # a base model of this size knows no better
    bos = [2]
    start = bos + tokenize(build_dir, GEMMA, prompt.encode())
    ids = bos + tokenize(build_dir, GEMMA, (prompt + answer).encode())
    assert ids[: len(start)] == start
    logits, _ = compute(build_dir, GEMMA, ids, tmp_path)
    assert logits.argmax(axis=-1)[len(start) - 1 : -1].tolist() == ids[len(start) :]
