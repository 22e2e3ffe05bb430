"""Tools as openai-python sees them: SmolLM2's weights with Qwen 2.5's template, which has calls.

The model was not trained for it, so what it says of its own accord is content; what it is held to is a call."""

import json
import shutil
import struct

import openai
import pytest

from tests.cluster import Cluster
from tests.conftest import ROOT

WEIGHTS = ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = ROOT / "build/fixtures/llama.cpp/models/templates/Qwen-Qwen2.5-7B-Instruct.jinja"
KEY = b"tokenizer.chat_template"


def tool(name, parameters, **fields):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


WEATHER = tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["c", "f"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
ROLL = tool(
    "roll",
    {
        "type": "object",
        "properties": {"sides": {"type": "integer", "minimum": 2, "maximum": 99}},
        "required": ["sides"],
        "additionalProperties": False,
    },
)


def with_template(path):
    """A copy of the weights with the other template. The header changes by a multiple of its alignment, so that all
    that follows may stay as it is."""
    data = WEIGHTS.read_bytes()
    at = data.index(struct.pack("<Q", len(KEY)) + KEY) + 8 + len(KEY) + 4
    (n,) = struct.unpack_from("<Q", data, at)
    text = TEMPLATE.read_text().encode()
    room = -(len(text) + len("{##}") - n) % 32
    text += b"{#" + b" " * room + b"#}"
    path.write_bytes(data[:at] + struct.pack("<Q", len(text)) + text + data[at + 8 + n :])


@pytest.fixture(scope="module")
def cluster(build_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    model = folder / "tools.gguf"
    with_template(model)
    cluster = Cluster(build_dir / "argosy", folder, model=model)
    try:
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def client(cluster):
    return openai.OpenAI(base_url=cluster.url, api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


def ask(client, model, tools, **fields):
    fields = {"temperature": 0.7, "seed": 5, "max_tokens": 100, **fields}
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    return client.chat.completions.create(model=model, messages=messages, tools=tools, **fields)


def gather(stream):
    """The message of a stream, put together as its pieces say, and the finish reason."""
    content, calls, reason = None, [], None
    for chunk in stream:
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                content = (content or "") + choice.delta.content
            for piece in choice.delta.tool_calls or []:
                if piece.index == len(calls):
                    assert piece.id and piece.type == "function" and piece.function.name
                    calls.append([piece.function.name, ""])
                calls[piece.index][1] += piece.function.arguments or ""
    return content, calls, reason


def check(name, arguments):
    a = json.loads(arguments)
    if name == "roll":
        assert list(a) == ["sides"] and 2 <= a["sides"] <= 99
    else:
        assert name == "get_weather" and set(a) == {"city", "unit"}
        assert len(a["city"]) <= 20 and a["unit"] in ("c", "f")


FUNCTION = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["required", FUNCTION])
@pytest.mark.parametrize("seed", range(3))
def test_a_required_call_follows_its_schema(client, model, choice, seed):
    answer = ask(client, model, [ROLL, WEATHER], tool_choice=choice, seed=seed, parallel_tool_calls=False)
    (made,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert made.type == "function" and made.id
    check(made.function.name, made.function.arguments)
    if choice == FUNCTION:
        assert made.function.name == "get_weather"


def test_a_stream_has_the_calls_of_the_whole_answer(client, model):
    fields = {"tool_choice": "required", "parallel_tool_calls": False}
    whole = ask(client, model, [ROLL, WEATHER], **fields).choices[0]
    content, calls, reason = gather(ask(client, model, [ROLL, WEATHER], stream=True, **fields))
    assert (content, reason) == (whole.message.content, whole.finish_reason)
    assert calls == [[c.function.name, c.function.arguments] for c in whole.message.tool_calls]


def test_what_is_no_call_is_content(client, model):
    answer = ask(client, model, [ROLL], temperature=0, max_tokens=12).choices[0]
    assert answer.message.content and answer.message.tool_calls is None
    content, calls, _ = gather(ask(client, model, [ROLL], temperature=0, max_tokens=12, stream=True))
    assert (content, calls) == (answer.message.content, [])


def test_strict_tools_may_be_left_alone(client, model):
    strict = tool("roll", ROLL["function"]["parameters"], strict=True)
    answer = ask(client, model, [strict], max_tokens=12).choices[0]
    assert answer.message.content or answer.message.tool_calls


def test_a_call_and_its_result_go_back_into_the_conversation(client, model):
    call = ask(client, model, [ROLL], tool_choice="required", parallel_tool_calls=False).choices[0].message
    messages = [
        {"role": "user", "content": "Roll."},
        call.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "4"},
    ]
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=[ROLL], tool_choice="none", temperature=0, max_tokens=8
    )
    assert answer.choices[0].message.content


WRONG = [
    ({"tools": [ROLL, ROLL]}, "tools[1].function.name"),
    ({"tools": [tool("a b", {})]}, "tools[0].function.name"),
    ({"tools": [{"type": "custom"}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
    ({"tools": [ROLL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"tools": [ROLL], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [ROLL] * 129}, "tools"),
    ({"tools": [tool("f", {"type": "object", "not": {}})], "tool_choice": "required"}, "tools"),
    ({"tools": [ROLL], "tool_choice": "required", "response_format": {"type": "json_object"}}, "tools"),
]


@pytest.mark.parametrize("fields, param", WRONG)
def test_wrong_tools_are_named(client, model, fields, param):
    with pytest.raises(openai.BadRequestError) as e:
        ask(client, model, **fields)
    assert e.value.param == param
