"""POST /v1/embeddings of a running cluster: openai-python, and what the vectors are.

Two oracles for the numbers: every bit, from the states behind the last layer (logits_tool) and
kernels/NUMERICS.md written again in numpy; and transformers in fp32 on the dequantised weights, which
shows that these are the states that others pool. What int8 activations cost against it is measured
here as an angle: 1 - cosine.
"""

import base64
import concurrent.futures
import json

import numpy as np
import openai
import pytest

from tests.model.replica import rmsnorm
from tests.model.scoring import compute, tokenize
from tests.model.test_logits import MODEL, TEXT, reference_model

TEXTS = [
    "The capital of France is Paris.",
    "a",
    "Ein Satz auf Deutsch, mit Umlauten: äöü.",
    TEXT.read_text()[:900],
    TEXT.read_text()[1000:1700],
]
# Measured: at most 6e-4 for the last token, 3e-4 for the mean.
COSINE_LOSS_MAX = 2e-3


@pytest.fixture(scope="module")
def client(cluster):
    return openai.OpenAI(base_url=cluster.url, api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def model(cluster):
    return cluster.model


def embed(cluster, inputs, **fields):
    """The vectors as fp32, bit by bit."""
    body = {"model": cluster.model, "input": inputs, "encoding_format": "base64", **fields}
    status, text = cluster.request("POST", "/v1/embeddings", body)
    assert status == 200, text
    data = json.loads(text)["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data])


def out_norm():
    from gguf import GGUFReader

    reader = GGUFReader(MODEL)
    eps = reader.fields["llama.attention.layer_norm_rms_epsilon"].contents()
    (w,) = [t.data for t in reader.tensors if t.name == "output_norm.weight"]
    return w, eps


@pytest.fixture(scope="module")
def states(build_dir, tmp_path_factory):
    """Of each text: its ids, and its states behind the output norm."""
    w, eps = out_norm()
    found = []
    for text in TEXTS:
        ids = tokenize(build_dir, MODEL, text.encode())
        _, x = compute(build_dir, MODEL, ids, tmp_path_factory.mktemp("states"))
        found.append((ids, rmsnorm(np.array(x), w, eps)))
    return found


def mean_of(h):
    total = np.zeros(h.shape[1])
    for row in h:
        total += row
    return (total / len(h)).astype(np.float32)


def normalized(v):
    square = 0.0
    for x in v.astype(np.float64):
        square += x * x
    return (v / np.sqrt(square)).astype(np.float32)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_are_the_bits_of_numerics_md(cluster, states, pooling):
    plain = [mean_of(h) if pooling == "mean" else h[-1] for _, h in states]
    assert np.array_equal(embed(cluster, TEXTS, pooling=pooling, normalize=False), np.array(plain))
    unit = np.array([normalized(v) for v in plain])
    assert np.array_equal(embed(cluster, TEXTS, pooling=pooling), unit)


def test_vectors_are_transformers_within_the_cost_of_int8_activations(cluster, states):
    import torch

    reference = reference_model().model
    ours = {p: embed(cluster, TEXTS, pooling=p) for p in ("mean", "last")}
    worst = {"mean": 0.0, "last": 0.0}
    for i, (ids, _) in enumerate(states):
        with torch.inference_mode():
            h = reference(torch.tensor([ids])).last_hidden_state[0].double().numpy()
        for pooling, v in (("mean", h.mean(axis=0)), ("last", h[-1])):
            cosine = ours[pooling][i].astype(np.float64) @ v / np.linalg.norm(v)
            worst[pooling] = max(worst[pooling], 1 - cosine)
    print(f"\n1 - cosine to transformers fp32, at most: {worst}")
    assert max(worst.values()) <= COSINE_LOSS_MAX


def test_openai_python_reads_both_formats(client, cluster, model):
    """It asks for base64 when nothing is said, and reads it with numpy."""
    default = client.embeddings.create(model=model, input=TEXTS[:2])
    floats = client.embeddings.create(model=model, input=TEXTS[:2], encoding_format="float")
    assert default.object == "list" and default.model == model
    assert [d.index for d in default.data] == [0, 1]
    want = embed(cluster, TEXTS[:2])
    for got in (default, floats):
        assert np.array_equal(np.array([d.embedding for d in got.data], np.float32), want)
    assert np.allclose(np.linalg.norm(want, axis=1), 1, atol=1e-6)
    assert default.usage.prompt_tokens == default.usage.total_tokens > 2


def test_token_ids_are_their_texts(cluster, states):
    ids = [ids for ids, _ in states]
    assert np.array_equal(embed(cluster, ids), embed(cluster, TEXTS))
    assert np.array_equal(embed(cluster, ids[0]), embed(cluster, TEXTS[0]))


def test_many_inputs_at_once_among_chats(cluster, states):
    """More inputs than a worker takes at once, while others chat: each as alone."""
    alone = {text: embed(cluster, text, pooling="mean")[0] for text in TEXTS[:3]}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        chats = [pool.submit(cluster.ask, "Count from one to five.") for _ in range(2)]
        many = [pool.submit(embed, cluster, TEXTS[:3] * 15, pooling="mean") for _ in range(3)]
        for job in many:
            for i, v in enumerate(job.result()):
                assert np.array_equal(v, alone[TEXTS[i % 3]])
        assert chats[0].result() == chats[1].result()


def test_an_input_over_the_context_is_a_400(client, model):
    with pytest.raises(openai.BadRequestError) as e:
        client.embeddings.create(model=model, input=[1] * 200000)
    assert e.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as e:
        client.embeddings.create(model=model, input="x", dimensions=16)
    assert e.value.param == "dimensions"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nobody", input="x")
