"""Calls of tools and thoughts in a model's text, against how real templates write them down.

A template writes what an assistant said into the prompt of the next turn: jinja2 renders it, and what stands
between the prompt and the end of the turn is a text of that model, whose calls are known."""
import json
import random
import re

import pytest

from tests.grammar.driver import SPACE_ONE, Ours, Refused
from tests.text.jinja_driver import TOOL, Tool, oracle_chat
from tests.text.test_chat_template import BOS, EOS, TEMPLATES, TOOLS, user

FORMS = {
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen-QwQ-32B": "hermes",
    "ibm-granite-granite-4.0": "hermes",
    "meta-llama-Llama-3.1-8B-Instruct": "llama3",
    "meta-llama-Llama-3.2-3B-Instruct": "llama3",
    "meta-llama-Llama-3.3-70B-Instruct": "llama3",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral_args",
    "unsloth-mistral-Devstral-Small-2507": "mistral_args",
    "Qwen3-Coder": "none",
    "smollm2": "none",
}
THINKS = {"Qwen-Qwen3-0.6B", "Qwen-QwQ-32B"}
CALLS = [
    ("get_weather", {"city": "Zürich", "unit": "celsius"}),
    ("search", {"query": ["a \"quoted\"", "</tool_call>", "{[}]\\"], "limit": 10, "deep": {"a": -1.5e3, "b": None}}),
    ("noop", {}),
]
NAMES = [c[0] for c in CALLS]
ENDS = re.compile(r"<\|im_end\|>|<\|eot_id\|>|<\|end_of_text\|>|</s>|<EOS>")


@pytest.fixture(scope="module")
def driver():
    tool = Tool(TOOL.with_name("speech_tool"))
    yield tool
    tool.close()


def call(name, arguments, at):
    return {"id": f"abcdefg{at:02}", "type": "function", "function": {"name": name, "arguments": arguments}}


def said(name, calls, content):
    """What the assistant said, as its template writes it: from the start of its turn to its end."""
    message = {"role": "assistant", "content": content, "tool_calls": [call(n, a, i) for i, (n, a) in enumerate(calls)]}
    kwargs = {"bos_token": BOS, "eos_token": EOS}
    text, raised = oracle_chat(TEMPLATES[name], [user("hi"), message], TOOLS[:3], False, kwargs)
    if text is None:
        pytest.skip(f"the template refuses: {raised}")
    prompt, _ = oracle_chat(TEMPLATES[name], [user("hi")], TOOLS[:3], True, kwargs)
    prompt = re.sub(r"<think>\s*(</think>)?$", "", prompt)
    assert text.startswith(prompt)
    return ENDS.split(text[len(prompt) :])[0]


def cuts(text, rng):
    yield [text]
    yield list(text)
    for _ in range(8):
        at = sorted(rng.sample(range(len(text) + 1), min(len(text), rng.randint(1, 12))))
        yield [text[a:b] for a, b in zip([0, *at], [*at, len(text)])]


@pytest.mark.parametrize("name, form", FORMS.items())
def test_forms_are_read_off_the_templates(driver, name, form):
    answer = driver.ask(template=TEMPLATES[name], pieces=[])
    assert (answer["tools"], answer["thinks"]) == (form, name in THINKS)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("content", ["", "I look.\n\nNow: { [ <tool "])
@pytest.mark.parametrize("name", [n for n, form in FORMS.items() if form != "none"])
def test_calls_come_back_as_the_template_wrote_them(driver, name, content, n):
    rng = random.Random(f"{name} {content} {n}")
    llama3 = FORMS[name] == "llama3"
    if llama3 and (n > 1 or content):
        pytest.skip("Llama 3 says one call and nothing else")
    calls = rng.sample(CALLS, n)
    text = said(name, calls, content)
    shows_content = bool(content) and content.split("\n")[0] in text
    for pieces in cuts(text, rng):
        answer = driver.ask(template=TEMPLATES[name], pieces=pieces, names=NAMES)
        assert [c[0] for c in answer["calls"]] == [c[0] for c in calls], (text, answer)
        assert [json.loads(c[1]) for c in answer["calls"]] == [c[1] for c in calls], (text, answer)
        assert answer["content"].strip() == (content.strip() if shows_content else "")


THOUGHTS = [
    # prompt, text, reasoning, content
    ("", "<think>\nA.\nB.\n</think>\n\nC. <think>", "A.\nB.", "C. <think>"),
    ("…<think>\n", "A.</think>C.", "A.", "C."),
    ("…<think>\n", "\nA. </thin", "A. </thin", ""),
    ("", "<think>\n\n</think>\n\nC.", "", "C."),
    ("", "\n C. </think>", "", "\n C. </think>"),
    ("", "<thin", "", "<thin"),
    ("", "<think>A.</think>\n<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>", "A.", ""),
]


@pytest.mark.parametrize("prompt, text, reasoning, content", THOUGHTS)
def test_thoughts_are_told_from_the_answer(driver, prompt, text, reasoning, content):
    for pieces in cuts(text, random.Random(text)):
        answer = driver.ask(template=TEMPLATES["Qwen-Qwen3-0.6B"], prompt=prompt, pieces=pieces, names=NAMES)
        assert (answer["reasoning"], answer["content"]) == (reasoning, content)
        assert len(answer["calls"]) == text.count("</tool_call>")


NO_CALLS = {
    "Qwen-Qwen2.5-7B-Instruct": ["<tool_call> is a tag", "a <tool_call>\n{\"names\": 1}", "<tool_call>{\"name\": 7}", "<tool_call>"],
    "meta-llama-Llama-3.1-8B-Instruct": ['{"name": "unknown", "parameters": {}}', '{"a": 1}', ' {"name', "x {\"name\": \"noop\"}"],
    "mistralai-Mistral-Nemo-Instruct-2407": ["[TOOL_CALLS] none", "[TOOL_CALLS][{]", "[TOOL_CALL"],
}


@pytest.mark.parametrize("name", NO_CALLS)
def test_what_is_no_call_is_content(driver, name):
    for text in NO_CALLS[name]:
        for pieces in cuts(text, random.Random(text)):
            answer = driver.ask(template=TEMPLATES[name], pieces=pieces, names=NAMES)
            assert (answer["content"], answer["calls"]) == (text, [])


def test_a_call_that_is_cut_off_keeps_what_there_is(driver):
    text = '<tool_call>\n{"name": "search", "arguments": {"query": ["a", "b'
    for pieces in cuts(text, random.Random(1)):
        answer = driver.ask(template=TEMPLATES["Qwen-Qwen2.5-7B-Instruct"], pieces=pieces, names=NAMES)
        assert answer["calls"] == [["search", '{"query": ["a", "b']]


def test_arguments_written_as_a_string_are_what_is_in_it(driver):
    text = '<tool_call>{"arguments": "{\\"a\\": 1}", "name": "noop"}</tool_call>'
    answer = driver.ask(template=TEMPLATES["Qwen-Qwen2.5-7B-Instruct"], pieces=[text], names=NAMES)
    assert answer["calls"] == [["noop", '{"a": 1}']]


@pytest.fixture(scope="module")
def grammar():
    ours = Ours("smollm2")
    yield ours
    ours.close()


@pytest.fixture(scope="module")
def bytes_of(grammar):
    """The token of each byte."""
    return {t: i for i, t in reversed(list(enumerate(grammar.tokens))) if len(t) == 1}


def follows(grammar, bytes_of, text):
    """How many bytes of the text the grammar takes, and whether it may end there."""
    grammar.clear()
    data = text.encode()
    for i, byte in enumerate(data):
        try:
            grammar.accept(bytes_of[bytes([byte])])
        except Refused:
            return i, False
    return len(data), bool(grammar.mask()[grammar.eog].all())


def constrain(driver, grammar, name, tools, **rule):
    schemas = [[t["function"]["name"], json.dumps(t["function"]["parameters"])] for t in tools]
    made = driver.ask(template=TEMPLATES[name], tools=schemas, grammar=rule)
    if "grammar" in made:
        grammar.compile("g", made["grammar"], SPACE_ONE)
    return made


HELD = [n for n, form in FORMS.items() if form != "none"]
# "deep" holds a value that its schema does not have.
FITTING = [c for c in CALLS if c[0] != "search"]


@pytest.mark.parametrize("name", HELD)
def test_a_required_call_is_what_the_template_would_write(driver, grammar, bytes_of, name):
    for tool_name, arguments in FITTING:
        tools = TOOLS[:1] if tool_name == "get_weather" else TOOLS[2:3]
        made = constrain(driver, grammar, name, tools)
        text = said(name, [(tool_name, arguments)], "").strip()
        if name in THINKS:
            text = re.sub(r"^<think>.*?</think>\s*", "", text, flags=re.S)
        # The id is the server's: Mistral's models write none.
        text = re.sub(r', "id": "\w+"|\[CALL_ID\]\w+', "", text)
        assert text.startswith(made["lead"])
        text = text[len(made["lead"]) :]
        n, ends = follows(grammar, bytes_of, text)
        assert (text.encode()[:n].decode(), ends) == (text, True), made
        wrong = text.replace(json.dumps(arguments, ensure_ascii=False), "[]")
        assert follows(grammar, bytes_of, wrong) != (len(wrong.encode()), True)
        assert not follows(grammar, bytes_of, "Hello.")[1]


@pytest.mark.parametrize("name", [n for n in HELD if FORMS[n] in ("hermes", "llama3")])
def test_a_strict_tool_leaves_content_alone(driver, grammar, bytes_of, name):
    constrain(driver, grammar, name, TOOLS[:1], may_talk=True, several=True)
    for text in ("Hello. <tool", "a < b <tool_cal <tool_calls", ""):
        assert follows(grammar, bytes_of, text) == (len(text.encode()), True)
    call = said(name, [FITTING[0]], "").strip()
    if name not in THINKS:
        assert follows(grammar, bytes_of, call) == (len(call.encode()), True)
        wrong = call.replace("celsius", "kelvin")
        assert follows(grammar, bytes_of, wrong)[0] < len(wrong.encode())


def test_forms_that_can_not_be_held_are_refused(driver, grammar):
    assert "grammar" not in constrain(driver, grammar, "Mistral-Small-3.2-24B-Instruct-2506", TOOLS[:2])
    assert "grammar" not in constrain(driver, grammar, "mistralai-Mistral-Nemo-Instruct-2407", TOOLS[:1], may_talk=True)
    assert "grammar" not in constrain(driver, grammar, "smollm2", TOOLS[:1])
