"""Structured output as openai-python asks for it, against a running cluster with a real model.

The model is small and says what it likes; whatever it says must parse, and be what was asked for. Answers are validated
by pydantic, by Python's json and re. Prompts ask for nothing of the kind, so nothing comes right by itself."""

import enum
import json
import re
from typing import Literal, Optional

import openai
import pydantic
import pytest

STORY = "Tell me a story about a dog and the sea."


@pytest.fixture(scope="module")
def client(cluster):
    return openai.OpenAI(base_url=cluster.url, api_key="none", max_retries=0, timeout=120)


class Colour(str, enum.Enum):
    RED = "red"
    GREEN = "green"


class Step(pydantic.BaseModel):
    explanation: str = pydantic.Field(max_length=30)
    done: bool


class Plan(pydantic.BaseModel):
    title: str = pydantic.Field(max_length=20)
    count: int = pydantic.Field(ge=0, le=40)
    share: float = pydantic.Field(ge=0, le=1)
    colour: Colour
    kind: Literal["a", "b"]
    steps: list[Step] = pydantic.Field(max_length=2)
    note: Optional[str] = pydantic.Field(max_length=20)


def ask(client, cluster, method=None, **fields):
    method = method or client.chat.completions.create
    return method(**{"model": cluster.model, "messages": [{"role": "user", "content": STORY}],
                     "temperature": 1.0, "max_tokens": 400, **fields})


@pytest.mark.parametrize("seed", range(4))
def test_parse_gives_the_pydantic_model(cluster, client, seed):
    answer = ask(client, cluster, client.chat.completions.parse, response_format=Plan, seed=seed)
    assert answer.choices[0].finish_reason == "stop"
    plan = answer.choices[0].message.parsed
    assert isinstance(plan, Plan)
    assert json.loads(answer.choices[0].message.content) == json.loads(plan.model_dump_json())


def test_every_choice_of_n_follows_the_schema(cluster, client):
    answer = ask(client, cluster, client.chat.completions.parse, response_format=Plan, seed=5, n=3)
    contents = [c.message.content for c in answer.choices]
    assert all(isinstance(c.message.parsed, Plan) for c in answer.choices)
    assert len(set(contents)) == 3


def test_streamed_is_the_same_as_whole(cluster, client):
    fields = {"response_format": {"type": "json_schema", "json_schema": {
        "name": "plan", "strict": True, "schema": Plan.model_json_schema() | {"additionalProperties": False}}}}
    whole = ask(client, cluster, seed=7, **fields).choices[0].message.content
    Plan.model_validate_json(whole)
    stream = ask(client, cluster, seed=7, stream=True, **fields)
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == whole


def test_json_object_is_an_object(cluster, client):
    for seed in range(3):
        answer = ask(client, cluster, response_format={"type": "json_object"}, seed=seed, max_tokens=300).choices[0]
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.message.content), dict)
        else:
            assert answer.finish_reason == "length"
            assert answer.message.content.startswith("{")


SMALL = {"type": "object", "properties": {"n": {"type": "integer", "minimum": -999, "maximum": 999}},
         "required": ["n"], "additionalProperties": False}


def is_small(text):
    value = json.loads(text)
    return set(value) == {"n"} and isinstance(value["n"], int)


@pytest.mark.parametrize("fields, fits", [
    ({"structured_outputs": {"json": SMALL}}, is_small),
    ({"structured_outputs": {"json": json.dumps(SMALL)}}, is_small),
    ({"structured_outputs": {"regex": r"[A-Z]{3}-\d{4}"}}, re.compile(r"[A-Z]{3}-\d{4}").fullmatch),
    ({"structured_outputs": {"choice": ["positive", "nega\"tive\\", "ünkläŗ"]}},
     lambda t: t in ("positive", "nega\"tive\\", "ünkläŗ")),
    ({"structured_outputs": {"grammar": 'root ::= ("ab" | "cd"){1,4} "."'}},
     re.compile(r"(ab|cd){1,4}\.").fullmatch),
    ({"guided_json": SMALL}, is_small),
    ({"guided_regex": r"\d\d:\d\d"}, re.compile(r"\d\d:\d\d").fullmatch),
    ({"guided_choice": ["yes", "no"], "guided_decoding_backend": "xgrammar"}, lambda t: t in ("yes", "no")),
    ({"guided_grammar": 'root ::= "x" [0-9]'}, re.compile(r"x\d").fullmatch),
    ({"grammar": 'root ::= "y" [0-9]'}, re.compile(r"y\d").fullmatch),
    ({"json_schema": SMALL}, is_small),
    ({"response_format": {"type": "json_object", "schema": SMALL}}, is_small),
], ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
@pytest.mark.parametrize("kind", ["chat", "completions"])
def test_other_servers_names(cluster, client, kind, fields, fits):
    if kind == "chat":
        answer = ask(client, cluster, extra_body=fields, max_tokens=100).choices[0]
        text = answer.message.content
    else:
        answer = client.completions.create(model=cluster.model, prompt=STORY, extra_body=fields, max_tokens=100,
                                           temperature=1.0).choices[0]
        text = answer.text
    assert answer.finish_reason == "stop", text
    assert fits(text), text


def test_ignore_eos_and_min_tokens_go_as_far_as_the_grammar(cluster, client):
    digits = {"guided_regex": r"\d{1,12}"}
    short = ask(client, cluster, extra_body=digits, temperature=0).choices[0]
    assert short.finish_reason == "stop"
    for more in ({"ignore_eos": True}, {"min_tokens": 100}):
        answer = ask(client, cluster, extra_body={**digits, **more}, max_tokens=100, temperature=0).choices[0]
        assert answer.finish_reason == "stop"
        assert re.fullmatch(r"\d{12}", answer.message.content)


def test_stop_bias_and_logprobs_together_with_a_grammar(cluster, client):
    answer = ask(client, cluster, extra_body={"guided_regex": r"(ab)+;c"}, stop=";", temperature=0,
                 logprobs=True, top_logprobs=3).choices[0]
    assert answer.finish_reason in ("stop", "length")
    assert re.fullmatch(r"(ab)+", answer.message.content)
    first = answer.logprobs.content[0]
    # The model's own: what it would have said stands at the top, whatever the grammar lets it say.
    assert first.logprob <= first.top_logprobs[0].logprob
    body = {"model": cluster.model, "prompt": "z", "add_special_tokens": False}
    z = json.loads(cluster.request("POST", "/tokenize", body)[1])["tokens"][0]
    biased = ask(client, cluster, extra_body={"guided_regex": "[xy]"}, logit_bias={str(z): 100}).choices[0]
    assert biased.message.content in ("x", "y")


REFUSED = [
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": SMALL}}},
     "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}}}},
     "response_format.json_schema.schema"),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
    ({"response_format": {"type": "json_object", "strange": 1}}, "response_format.strange"),
    ({"structured_outputs": {"json": {"type": "objekt"}}}, "structured_outputs.json"),
    ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": r"(?=a)b"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"grammar": "root ::= other"}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
    ({"guided_regex": "a", "guided_json": SMALL}, None),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": {"type": "integer", "maximum": 10**30}}, "guided_json"),
    ({"guided_whitespace_pattern": " ?"}, "guided_whitespace_pattern"),
    ({"guided_regex": "a" * 300000}, "guided_regex"),
]


@pytest.mark.parametrize("fields, param", REFUSED)
def test_what_cannot_be_compiled_is_refused_by_name(cluster, client, fields, param):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, cluster, extra_body=fields)
    if param:
        assert refusal.value.param == param
        assert param in refusal.value.message
    assert len(refusal.value.message) > 20
