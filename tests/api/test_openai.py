"""The endpoint as openai-python sees it, against a running cluster with a real model."""

import concurrent.futures
import json
import threading

import httpx2
import openai
import pytest

PROMPTS = [
    "What is the capital of France?",
    "Write one line about the sea.",
    "Count from one to five.",
    "Name three colours, with an emoji for each.",
]


@pytest.fixture(scope="module")
def client(cluster):
    return openai.OpenAI(base_url=cluster.url, api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def model(cluster):
    return cluster.model


def user(text):
    return [{"role": "user", "content": text}]


def streamed(stream):
    """The texts and finish reasons by choice, and the usage, of a chat or completion stream."""
    texts, reasons, usage = {}, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            piece = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (piece or "")
            if choice.finish_reason:
                assert choice.index not in reasons
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage


def chat(client, model, prompt, **fields):
    return client.chat.completions.create(
        model=model, messages=user(prompt), **{"temperature": 0, "max_tokens": 24, **fields}
    )


def test_chat_has_openais_shape(client, model):
    answer = chat(client, model, PROMPTS[0])
    assert answer.choices[0].message.content
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint.startswith("fp_")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_streamed_text_is_the_whole_text(client, model, prompt):
    whole = chat(client, model, prompt)
    options = {"include_usage": True}
    texts, reasons, usage = streamed(
        chat(client, model, prompt, stream=True, stream_options=options)
    )
    assert texts == {0: whole.choices[0].message.content}
    assert reasons == {0: whole.choices[0].finish_reason}
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_32_clients_get_what_each_gets_alone(cluster, client, model, stream):
    def ask(i):
        own = openai.OpenAI(base_url=cluster.url, api_key="none", max_retries=0, timeout=300)
        fields = {"temperature": 0.8, "seed": i} if i % 2 else {"temperature": 0}
        answer = own.chat.completions.create(
            model=model,
            messages=user(PROMPTS[i % 4] + " " * (i // 4)),
            max_tokens=12,
            stream=stream,
            **fields,
        )
        if stream:
            return streamed(answer)[:2]
        choice = answer.choices[0]
        return {0: choice.message.content}, {0: choice.finish_reason}

    alone = [ask(i) for i in range(32)]
    start = threading.Barrier(32)

    def together(i):
        start.wait()
        return ask(i)

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert list(pool.map(together, range(32))) == alone
    assert len({json.dumps(a) for a in alone}) > 8


def test_completions(client, model):
    plain = client.completions.create(
        model=model, prompt="The capital of France is", temperature=0, max_tokens=8
    )
    assert plain.object == "text_completion"
    assert "Paris" in plain.choices[0].text
    texts, reasons, _ = streamed(
        client.completions.create(
            model=model, prompt="The capital of France is", temperature=0, max_tokens=8, stream=True
        )
    )
    assert texts == {0: plain.choices[0].text}
    assert reasons == {0: plain.choices[0].finish_reason}
    default = client.completions.create(model=model, prompt="One two three", temperature=0)
    assert default.usage.completion_tokens <= 16


def test_completions_of_tokens_and_lists(cluster, client, model):
    prompts = ["The capital of France is", "Two plus two is"]
    ids = []
    for prompt in prompts:
        status, text = cluster.request("POST", "/tokenize", {"model": model, "prompt": prompt})
        assert status == 200
        ids.append(json.loads(text)["tokens"])
        status, text = cluster.request("POST", "/detokenize", {"model": model, "tokens": ids[-1]})
        assert json.loads(text) == {"prompt": prompt}

    def texts(prompt):
        answer = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=6)
        assert [c.index for c in answer.choices] == list(range(len(answer.choices)))
        return [c.text for c in answer.choices]

    alone = [texts(p)[0] for p in prompts]
    assert texts(prompts) == alone
    assert texts(ids) == alone
    assert texts(ids[0]) == alone[:1]


def test_echo(client, model):
    plain = client.completions.create(model=model, prompt="Once upon", temperature=0, max_tokens=4)
    for stream in (False, True):
        echoed = client.completions.create(
            model=model, prompt="Once upon", temperature=0, max_tokens=4, echo=True, stream=stream
        )
        text = streamed(echoed)[0][0] if stream else echoed.choices[0].text
        assert text == "Once upon" + plain.choices[0].text


def test_seed_decides(client, model):
    def sample(seed, **fields):
        return chat(client, model, PROMPTS[1], temperature=1.2, seed=seed, **fields)

    first = sample(1).choices[0].message.content
    assert sample(1).choices[0].message.content == first
    assert len({sample(s).choices[0].message.content for s in range(1, 6)}) > 1
    # The first of several choices is the one that comes alone.
    three = sample(1, n=3)
    assert [c.index for c in three.choices] == [0, 1, 2]
    assert three.choices[0].message.content == first
    assert len({c.message.content for c in three.choices}) > 1
    texts, reasons, _ = streamed(sample(1, n=3, stream=True))
    assert texts == {c.index: c.message.content for c in three.choices}
    assert reasons == {c.index: c.finish_reason for c in three.choices}
    assert three.usage.prompt_tokens == sample(1).usage.prompt_tokens


def test_stop_strings_cut_exactly(client, model):
    whole = chat(client, model, PROMPTS[2], max_tokens=32).choices[0].message.content
    assert len(whole) > 12
    for stop in (whole[7:9], whole[5:11], whole[10]):
        expected = whole[: whole.index(stop)]
        cut = chat(client, model, PROMPTS[2], max_tokens=32, stop=["\x7fnever", stop])
        assert cut.choices[0].message.content == expected
        assert cut.choices[0].finish_reason == "stop"
        texts, reasons, _ = streamed(
            chat(client, model, PROMPTS[2], max_tokens=32, stop=[stop], stream=True)
        )
        assert (texts[0], reasons[0]) == (expected, "stop")


def test_stop_token_ids_and_min_tokens(cluster, client, model):
    whole = chat(client, model, PROMPTS[2], max_tokens=16, logprobs=True)
    tokens = [t.token for t in whole.choices[0].logprobs.content]
    target = tokens[4]
    status, text = cluster.request(
        "POST", "/tokenize", {"model": model, "prompt": target, "add_special_tokens": False}
    )
    (stop_id,) = json.loads(text)["tokens"]
    stopped = chat(client, model, PROMPTS[2], extra_body={"stop_token_ids": [stop_id]})
    assert stopped.choices[0].message.content == "".join(tokens[: tokens.index(target)])
    assert stopped.choices[0].finish_reason == "stop"

    longer = chat(
        client, model, "Say OK.", max_tokens=40, extra_body={"min_tokens": 40, "ignore_eos": True}
    )
    assert longer.usage.completion_tokens == 40
    assert longer.choices[0].finish_reason == "length"


def test_logit_bias(cluster, client, model):
    status, text = cluster.request(
        "POST", "/tokenize", {"model": model, "prompt": " sea", "add_special_tokens": False}
    )
    (sea,) = json.loads(text)["tokens"]
    biased = chat(client, model, "Hello", max_tokens=3, logit_bias={str(sea): 100})
    assert biased.choices[0].message.content == " sea sea sea"
    plain = chat(client, model, PROMPTS[0], max_tokens=4, logprobs=True)
    first = plain.choices[0].logprobs.content[0].token
    status, text = cluster.request(
        "POST", "/tokenize", {"model": model, "prompt": first, "add_special_tokens": False}
    )
    banned = chat(
        client,
        model,
        PROMPTS[0],
        max_tokens=4,
        logprobs=True,
        logit_bias={str(json.loads(text)["tokens"][0]): -100},
    )
    assert banned.choices[0].logprobs.content[0].token != first


@pytest.mark.parametrize("stream", [False, True])
def test_chat_logprobs(client, model, stream):
    answer = chat(client, model, PROMPTS[3], logprobs=True, top_logprobs=5, stream=stream)
    if stream:
        content, text = [], ""
        for chunk in answer:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                content += choice.logprobs.content if choice.logprobs else []
    else:
        content = answer.choices[0].logprobs.content
        text = answer.choices[0].message.content
    joined = b"".join(bytes(t.bytes) for t in content)
    assert joined.decode(errors="replace") == text
    for token in content:
        assert token.token == bytes(token.bytes).decode(errors="replace")
        assert len(token.top_logprobs) == 5
        values = [t.logprob for t in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert token.logprob == values[0]  # greedy
        assert token.token == token.top_logprobs[0].token
        assert all(v <= 0 for v in values)


def test_completion_logprobs(client, model):
    answer = client.completions.create(
        model=model, prompt="The sea is", temperature=0, max_tokens=8, logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    text = answer.choices[0].text
    for token, offset in zip(logprobs.tokens, logprobs.text_offset):
        if not token.startswith("bytes:"):
            assert text[offset : offset + len(token)] == token
    for token, value, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert top[token] == value == max(top.values())
        assert len(top) == 3


def test_parts_developer_and_harmless_fields(client, model):
    plain = client.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, *user("Hello")],
        temperature=0,
        max_tokens=8,
    )
    same = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        ],
        temperature=0,
        max_completion_tokens=8,
        user="someone",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        prompt_cache_key="key",
        safety_identifier="id",
        response_format={"type": "text"},
        modalities=["text"],
        tool_choice="none",
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        parallel_tool_calls=False,
        frequency_penalty=0,
        presence_penalty=0,
        extra_body={"top_k": -1, "min_p": 0, "repetition_penalty": 1},
    )
    assert same.choices[0].message.content == plain.choices[0].message.content
    assert same.choices[0].message.tool_calls is None


def test_models(client, model):
    assert model in [m.id for m in client.models.list()]
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing/like-it")


BAD = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 10**9}, "n"),
    ({"n": 0}, "n"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 10**6}, "max_tokens"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"logit_bias": {"999999999": 1}}, "logit_bias.999999999"),
    ({"logit_bias": {"1": 200}}, "logit_bias.1"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
    ({"messages": user("word " * 20000)}, "messages"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"extra_body": {"wonder": 1}}, "wonder"),
    ({"extra_body": {"chat_template": "{{ 1 }}"}}, "chat_template"),
]


@pytest.mark.parametrize("fields, param", BAD, ids=[f"{p}-{i}" for i, (_, p) in enumerate(BAD)])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_input_is_an_openai_error(client, model, fields, param, stream):
    call = {"model": model, "messages": user("x"), "max_tokens": 4, "stream": stream, **fields}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**call)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.body["message"]
    assert caught.value.request_id


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, "gpt-9", "x")
    assert caught.value.code == "model_not_found"


def test_a_client_that_leaves_frees_the_worker(cluster, client, model):
    """The cancelled stream is gone from the counts long before its 2,000 tokens could be."""
    stream = chat(client, model, PROMPTS[1], max_tokens=2000, stream=True,
                  extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    running = f'vllm:num_requests_running{{model_name="{model}"}} 0'
    for _ in range(40):
        status, text = cluster.request("GET", "/metrics")
        assert status == 200
        if running in text:
            break
        threading.Event().wait(0.05)
    assert running in text


def test_health_ready_and_request_ids(cluster, client, model):
    base = cluster.url.removesuffix("/v1")
    assert httpx2.get(base + "/health").status_code == 200
    assert httpx2.get(base + "/ready").json()["models"][model] >= 1
    assert httpx2.get(base + "/nothing").json()["error"]["code"] == "unknown_url"
    wrong = httpx2.get(base + "/v1/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST, OPTIONS")
    answer = client.chat.completions.with_raw_response.create(
        model=model, messages=user("x"), max_tokens=1, extra_headers={"X-Request-Id": "my-own"}
    )
    assert answer.headers["x-request-id"] == "my-own"
    assert answer.headers["x-argosy-worker"]
