"""LoRA adapters as models of a running cluster: a router, two workers that have them, one that has not.

The oracle is transformers in fp32 with W + scale B A in place of W, W being the GGUF's weights. An
adapter here is random and as large as its matrices, so that rows in the wrong order, a wrong scale or
a matrix that is left out would not go unnoticed.
"""

import base64
import json
import os
import re
import signal
import subprocess
import threading

import numpy as np
import openai
import pytest

from tests.cluster import wait_until
from tests.model.test_logits import MODEL, model_file, reference_model  # noqa: F401

QUESTION = "What is the capital of France?"
TEXTS = [
    "The capital of France is Paris.",
    "Ein Satz auf Deutsch, mit Umlauten: äöü.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife.",
]
# Of the last token's state. Measured: at most 2.6e-3, where the adapters move it by 0.17 at least.
COSINE_LOSS_MAX = 6e-3
LAYERS, WIDTH, FF, KV = 30, 576, 1536, 192
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KV, WIDTH),
    "self_attn.v_proj": (KV, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (FF, WIDTH),
    "mlp.up_proj": (FF, WIDTH),
    "mlp.down_proj": (WIDTH, FF),
}


class Adapter:
    def __init__(self, folder, name, seed, rank, modules, rslora=False):
        import torch
        from safetensors.torch import save_file

        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        alpha = 2.0 * rank
        self.scale = alpha / (rank**0.5 if rslora else rank)
        generator = torch.Generator().manual_seed(seed)
        self.parts, tensors = {}, {}
        for layer in range(LAYERS):
            for module in modules:
                rows, cols = SHAPES[module]
                a = torch.randn(rank, cols, generator=generator) / cols**0.5
                b = torch.randn(rows, rank, generator=generator) / (self.scale * rank**0.5)
                if seed % 2:
                    a, b = a.bfloat16(), b.bfloat16()
                self.parts[layer, module] = (a.float(), b.float())
                prefix = f"base_model.model.model.layers.{layer}.{module}"
                tensors[f"{prefix}.lora_A.weight"] = a.contiguous()
                tensors[f"{prefix}.lora_B.weight"] = b.contiguous()
        save_file(tensors, self.folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "use_rslora": rslora}
        config |= {"bias": "none", "target_modules": list(modules), "modules_to_save": None}
        (self.folder / "adapter_config.json").write_text(json.dumps(config))

    def merge_into(self, model, sign=1):
        for (layer, module), (a, b) in self.parts.items():
            added = sign * self.scale * (b @ a)
            model.get_submodule(f"layers.{layer}.{module}").weight.data += added


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    attention = [m for m in SHAPES if m.startswith("self_attn")]
    return [
        Adapter(folder, "all", 1, 16, list(SHAPES)),
        Adapter(folder, "attention", 2, 5, attention, rslora=True),
    ]


class Pool:
    """A router and workers, each a process of its own, on sockets below `folder`."""

    def __init__(self, build_dir, folder, adapters):
        self.build_dir, self.folder, self.adapters = build_dir, folder, adapters
        self.processes, self.workers = [], {}
        self.rpc = f"unix:{folder}/rpc"
        args = [f"--adapters={a.name}=smol={a.folder}" for a in adapters]
        self.run("router", "--listen=127.0.0.1:0", f"--rpc-listen={self.rpc}",
                 f"--models=smol={MODEL}", *args)
        found = wait_until(lambda: re.search(r"router is up .*port=(\d+)", self.said("router")), 60,
                           "the router is up")
        self.url = f"http://127.0.0.1:{found[1]}/v1"

    def said(self, name):
        return (self.folder / f"{name}.err").read_text()

    def run(self, name, *args):
        program = "argosy-router" if name == "router" else "argosy-worker"
        with (self.folder / f"{name}.err").open("wb") as err:
            process = subprocess.Popen(
                [self.build_dir / program, "--die-with-parent", *args], stderr=err
            )
        self.processes.append(process)
        return process

    def add_worker(self, name, adapters):
        args = [f"--adapters={a.name}={a.folder}" for a in adapters]
        self.workers[name] = self.run(name, f"--routers={self.rpc}", f"--id={name}",
                                      f"--model=smol={MODEL}", "--context-max=512", *args)
        wait_until(lambda: "attached" in self.said(name), 60, f"{name} is attached")

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def pool(build_dir, tmp_path_factory, adapters, model_file):  # noqa: F811
    pool = Pool(build_dir, tmp_path_factory.mktemp("pool"), adapters)
    try:
        pool.add_worker("plain", [])
        pool.add_worker("one", adapters)
        pool.add_worker("two", adapters[::-1])
        yield pool
    finally:
        pool.stop()


@pytest.fixture(scope="module")
def client(pool):
    return openai.OpenAI(base_url=pool.url, api_key="none", max_retries=0, timeout=120)


def embed(client, model):
    data = client.embeddings.create(
        model=model, input=TEXTS, encoding_format="base64", extra_body={"pooling": "last"}
    ).data
    return np.array([np.frombuffer(base64.b64decode(d.embedding), "<f4") for d in data])


def ask(client, model, **fields):
    fields = {"temperature": 0, "max_tokens": 24, **fields}
    messages = [{"role": "user", "content": QUESTION}]
    return client.chat.completions.create(model=model, messages=messages, **fields)


def test_adapters_are_models_with_a_parent(client, adapters):
    models = {m.id: m for m in client.models.list().data}
    assert set(models) == {"smol", "all", "attention"}
    assert models["smol"].parent is None
    for a in adapters:
        assert models[a.name].parent == "smol"
        assert re.fullmatch("[0-9a-f]{64}", models[a.name].adapter_sha256)
    assert client.models.retrieve("all").parent == "smol"
    with pytest.raises(openai.NotFoundError) as e:
        ask(client, "nobody")
    assert e.value.code == "model_not_found"


def test_vectors_are_transformers_with_the_adapter_merged(client, adapters):
    import torch

    plain = embed(client, "smol")
    worst, change = {}, {}
    model = reference_model().model
    for adapter in adapters:
        ours = embed(client, adapter.name)
        adapter.merge_into(model)
        for i, text in enumerate(TEXTS):
            ids = token_ids(client, text)
            with torch.inference_mode():
                h = model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
            v = h[-1]
            loss = 1 - ours[i].astype(np.float64) @ v / np.linalg.norm(v)
            worst[adapter.name] = max(worst.get(adapter.name, 0), loss)
            change[adapter.name] = min(change.get(adapter.name, 2), 1 - float(ours[i] @ plain[i]))
        adapter.merge_into(model, -1)
    print(f"\n1 - cosine to transformers fp32, at most: {worst}; to the model alone, at least: {change}")
    assert max(worst.values()) <= COSINE_LOSS_MAX
    assert min(change.values()) >= 20 * COSINE_LOSS_MAX


def token_ids(client, text):
    url = str(client.base_url).removesuffix("/v1/")
    answer = client._client.post(f"{url}/tokenize", json={"model": "smol", "prompt": text})
    return answer.json()["tokens"]


def test_adapters_in_one_batch_are_each_as_alone(client):
    names = ["smol", "all", "attention"] * 4
    alone = {name: ask(client, name).choices[0].message.content for name in names[:3]}
    assert len(set(alone.values())) == 3
    got = {}

    def run(i):
        got[i] = ask(client, names[i]).choices[0].message.content

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(names))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == {i: alone[name] for i, name in enumerate(names)}


def test_a_stream_with_an_adapter_goes_on_when_its_worker_is_killed(client, pool):
    whole = ask(client, "all", max_tokens=60, extra_body={"ignore_eos": True})
    stream = ask(client, "all", max_tokens=60, stream=True, extra_body={"ignore_eos": True})
    worker = stream.response.headers["x-argosy-worker"]
    assert worker in ("one", "two")  # never the one without the adapter
    text, killed = "", False
    for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        if text and not killed:
            os.kill(pool.workers[worker].pid, signal.SIGKILL)
            killed = True
    assert killed
    assert text == whole.choices[0].message.content
    # The last one that has it goes: the model itself is served on.
    left = "two" if worker == "one" else "one"
    pool.workers[left].send_signal(signal.SIGTERM)
    pool.workers[left].wait(30)
    assert ask(client, "smol").choices[0].message.content
