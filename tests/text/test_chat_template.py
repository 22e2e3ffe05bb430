"""Chat templates of real models, byte for byte against transformers.

Every template of llama.cpp's collection and those inside the project's model files, with many conversations.
Where Python raises, we must fail; where it renders, we must give the same bytes.
"""
import collections
import copy
import fnmatch
import json
import mmap
import random
import struct

import pytest

from tests.text.jinja_driver import FIXTURES, NOW, ROOT, Tool, oracle_chat, oracle_template

MODELS = {
    "smollm2": ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": ROOT / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf",
}
BOS, EOS = "<BOS>", "<EOS>"
N_RANDOM = 40
MUST_COMPILE = [
    "smollm2", "meta-llama-Llama-3.1*", "meta-llama-Llama-3.2*", "meta-llama-Llama-3.3*", "Qwen-Qwen2.5*", "Qwen-Qwen3*",
    "Qwen3-Coder*", "Qwen-QwQ*", "mistralai-Mistral-Nemo*", "Mistral-Small-3.2*", "*Devstral*", "mistralai-Ministral*",
    "google-gemma-2*", "microsoft-Phi-3.5*", "NousResearch-Hermes-2*", "NousResearch-Hermes-3*", "*DeepSeek-R1*",
    "*DeepSeek-V3.1*", "ibm-granite*3.3*", "ibm-granite*4.0*", "HuggingFaceTB-SmolLM3*",
]


def gguf_template(path):
    """The string under tokenizer.chat_template, or None. (The gguf package takes a minute to read a large vocabulary.)"""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        key = b"tokenizer.chat_template"
        at = data.find(struct.pack("<Q", len(key)) + key + struct.pack("<I", 8))
        if at < 0:
            return None
        at += 8 + len(key) + 4
        (n,) = struct.unpack_from("<Q", data, at)
        return data[at + 8 : at + 8 + n].decode()


def templates():
    found = {p.stem: p.read_text() for p in sorted((FIXTURES / "llama.cpp/models/templates").glob("*.jinja"))}
    for name, path in MODELS.items():
        text = gguf_template(path) if path.exists() else None
        if text:
            found[name] = text
    return found


TEMPLATES = templates()


def tool(name, **properties):
    return {"type": "function", "function": {
        "name": name, "description": f"Does {name}.\nIn two lines — \"quoted\".",
        "parameters": {"type": "object", "properties": properties, "required": list(properties)[:1]}}}


TOOLS = [
    tool("get_weather", city={"type": "string", "description": "The city, e.g. Zürich"},
         unit={"type": "string", "enum": ["celsius", "fahrenheit"]}),
    tool("search", query={"type": "array", "items": {"type": "string"}}, limit={"type": "integer", "default": 10},
         deep={"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "boolean"}}}),
    {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}},
    tool("many", a={"type": ["string", "null"]}, b={"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
         c={"type": "object", "additionalProperties": {"type": "string"}, "description": "<b>&'\"</b>"}),
]


def user(text):
    return {"role": "user", "content": text}


def system(text):
    return {"role": "system", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, arguments, id="abcdefghi"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def result(text, id="abcdefghi", **more):
    return {"role": "tool", "tool_call_id": id, "content": text, **more}


WEATHER = call("get_weather", {"city": "Zürich", "unit": "celsius"})
CONVERSATIONS = {
    "user": [user("Hello")],
    "system": [system("Be brief."), user("Hello")],
    "empty": [user("")],
    "empty system": [system(""), user("Hi")],
    "spaces": [system("  Be brief.\n\n"), user("\n  Hello \t"), assistant("  ok \n"), user(" more ")],
    "turns": [user("1"), assistant("one"), user("2"), assistant("two"), user("3")],
    "system turns": [system("S"), user("1"), assistant("one"), user("2"), assistant("two")],
    "unicode": [system("你好 \U0001f600"), user("Grüße, naïve ﬁ ß İ \u200b\ufeff\u2028 \x00 end"), assistant("Ωμέγα"), user("é")],
    "special": [user("<|im_start|>system\n{{ 7*7 }} {% if %}</s>[INST]"), assistant("<|im_end|>"), user("<think>x</think>y")],
    "quotes": [user("'\"\\ \r\n\t \x7f")],
    "assistant first": [assistant("Hi"), user("Hello")],
    "two users": [user("a"), user("b")],
    "only system": [system("S")],
    "late system": [user("a"), system("S"), user("b")],
    "developer": [{"role": "developer", "content": "D"}, user("a")],
    "unknown role": [user("a"), {"role": "narrator", "content": "n"}],
    "none": [],
    "name": [{**user("a"), "name": "Ann"}, assistant("b", name="Bob"), user("c")],
    "thinking": [user("a"), assistant("<think>\nwhy\n</think>\n\nbecause"), user("b"), assistant("<think>x</think>z"), user("c")],
    "reasoning": [user("a"), assistant("b", reasoning_content="deep\nthought"), user("c"), assistant("d", reasoning="x")],
    "call": [user("Weather?"), assistant(None, tool_calls=[WEATHER])],
    "call result": [user("Weather?"), assistant(None, tool_calls=[WEATHER]), result("22 °C")],
    "call result named": [user("Weather?"), assistant(None, tool_calls=[WEATHER]), result('{"t": 22}', name="get_weather")],
    "call text": [user("Weather?"), assistant("I look.", tool_calls=[WEATHER]), result("22"), assistant("22 degrees."), user("ok")],
    "call empty": [system("S"), user("W?"), assistant("", tool_calls=[call("noop", {})]), result(""), user("and?")],
    "calls": [user("Both?"), assistant(None, tool_calls=[WEATHER, call("search", {"query": ["a", "b"], "limit": 3, "deep": {
        "a": 1.5, "b": True, "n": None}}, "bcdefghij")]), result("22"), result("[1, 2]", "bcdefghij", name="search")],
    "calls thinking": [user("?"), assistant("", reasoning_content="hm", tool_calls=[WEATHER]), result("22"), assistant("done"),
                       user("?"), assistant(None, tool_calls=[call("search", {"query": []})]), result("none")],
    "arguments not an object": [user("?"), assistant(None, tool_calls=[{"id": "abcdefghi", "type": "function", "function": {
        "name": "f", "arguments": "not json"}}]), result("x")],
    "call missing content": [user("?"), {"role": "assistant", "tool_calls": [WEATHER]}, result("x")],
    "arguments deep": [user("?"), assistant(None, tool_calls=[call("f", {
        "s": "a\"b\\c\n<&>'é", "f": 1e-7, "g": 1e22, "h": 100.0, "i": -5, "l": [[], {}, [1, [2, [3]]]], "": 0})]), result("x")],
    "null content": [user("a"), assistant(None), user("b")],
}
KWARGS = [{}, {"enable_thinking": True}, {"enable_thinking": False}, {"thinking": True, "date_string": "01 Feb 2026"},
          {"reasoning_effort": "high", "custom": [1, {"a": None}]}]


def words(rng):
    pool = ["Hello", "world", " ", "\n", "\t", "<think>", "</think>", "é", "漢字", "\U0001f680", "'", '"', "\\", "{", "}", "<tool_call>",
            "ß", "[INST]", "0", "3.5", "a b", "\u00a0", "\u3000", "", "|", "</s>", "{{", "%}", "#", "\r", "A", "\x1f"]
    return "".join(rng.choice(pool) for _ in range(rng.randrange(12)))


def value(rng, depth=0):
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {words(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return [words(rng), rng.randrange(-10**6, 10**6), rng.uniform(-1e3, 1e3), rng.random() < 0.5, None][kind]


def conversation(rng):
    messages = [system(words(rng))] if rng.random() < 0.4 else []
    for turn in range(rng.randrange(1, 5)):
        messages.append(user(words(rng)))
        for _ in range(rng.randrange(3) if rng.random() < 0.4 else 0):
            calls = [call(rng.choice(["get_weather", "search"]), {words(rng): value(rng) for _ in range(rng.randrange(3))},
                          f"call{turn:04d}{k}") for k in range(rng.randrange(1, 3))]
            more = {"reasoning_content": words(rng)} if rng.random() < 0.3 else {}
            messages.append(assistant(rng.choice([None, "", words(rng)]), tool_calls=calls, **more))
            messages += [result(words(rng), c["id"]) for c in calls]
        if rng.random() < 0.8:
            messages.append(assistant(words(rng)))
    return messages


def for_oracle(messages):
    """What our front is documented to do before the template sees the messages: arguments become objects."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for c in message.get("tool_calls") or []:
            try:
                parsed = json.loads(c["function"]["arguments"])
            except ValueError:
                continue
            if isinstance(parsed, dict):
                c["function"]["arguments"] = parsed
    return messages


def cases():
    for name, messages in CONVERSATIONS.items():
        for tools in (None, TOOLS[:1], TOOLS):
            for kwargs in KWARGS:
                for prompt in (False, True):
                    yield name, messages, tools, prompt, kwargs
    rng = random.Random(20260202)
    for i in range(N_RANDOM):
        yield (f"random {i}", conversation(rng), rng.choice([None, TOOLS[: rng.randrange(1, 5)]]), rng.random() < 0.5,
               rng.choice(KWARGS))


CASES = list(cases())
TALLY = collections.Counter()
REFUSED = {}


@pytest.fixture(scope="module")
def driver():
    tool = Tool()
    yield tool
    tool.close()
    print(f"\nchat templates: {TALLY['templates']} templates x {len(CASES)} conversations: {TALLY['equal']} equal, "
          f"{TALLY['both fail']} refused by Python and by us, {TALLY['differ']} different")
    print(f"refused at compile: {REFUSED or 'none'}")


def test_all_fixture_templates_are_there():
    assert len(TEMPLATES) >= 60, f"too few templates in {FIXTURES}/llama.cpp/models/templates"
    for pattern in MUST_COMPILE:
        assert fnmatch.filter(TEMPLATES, pattern), pattern
    for name, path in MODELS.items():
        if name not in TEMPLATES:
            print(f"SKIPPED: {name}: {path.name} is not here" if not path.exists() else f"SKIPPED: {name}: {path.name} holds no chat template")


@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers_does(name, driver):
    text = TEMPLATES[name]
    made = driver.ask(template=text, bos_token=BOS, eos_token=EOS)
    if "error" in made:
        REFUSED[name] = made["message"]
        assert not any(fnmatch.fnmatch(name, p) for p in MUST_COMPILE), made
        if not isinstance(oracle_template(text), Exception):
            assert made["error"] == "ERR_UNSUPPORTED", made
            pytest.skip(f"refused: {made['message']}")
        return
    TALLY["templates"] += 1
    wrong = []
    for title, messages, tools, prompt, kwargs in CASES:
        want, raised = oracle_chat(text, for_oracle(messages), tools, prompt, {"bos_token": BOS, "eos_token": EOS, **kwargs})
        got = driver.ask(messages=messages, tools=tools, add_generation_prompt=int(prompt), kwargs=kwargs, now=NOW)
        if got.get("ok") == want:
            TALLY["equal" if want is not None else "both fail"] += 1
        else:
            TALLY["differ"] += 1
            wrong.append((title, bool(tools), prompt, kwargs, want if want is not None else repr(raised), got))
    assert not wrong, f"{len(wrong)} of {len(CASES)} differ; the first: {wrong[0]}"


PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two <|é|>"}]


@pytest.mark.parametrize("name", TEMPLATES)
def test_content_in_parts(name, driver):
    """A list of parts renders as transformers renders the list, where it does so sensibly, else as the joined text."""
    text = TEMPLATES[name]
    made = driver.ask(template=text, bos_token=BOS, eos_token=EOS)
    if "error" in made:
        pytest.skip(f"refused: {made['message']}")
    kwargs = {"bos_token": BOS, "eos_token": EOS}
    as_string, _ = oracle_chat(text, [user("one")], None, True, kwargs)
    as_parts, _ = oracle_chat(text, [user(PARTS[:1])], None, True, kwargs)
    takes_parts = as_parts is not None and (as_parts == as_string or as_string is None or "one" not in as_string)
    content = PARTS if takes_parts else "one\ntwo <|é|>"
    want, raised = oracle_chat(text, [user(content)], None, True, kwargs)
    got = driver.ask(messages=[user(PARTS)], add_generation_prompt=1, now=NOW)
    assert got.get("ok") == want, (takes_parts, want, raised, got)
