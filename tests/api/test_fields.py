"""Every field that openai-python can send stands in the table of router/http/README.md."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

README = Path(__file__).resolve().parents[2] / "router/http/README.md"


def table(kind):
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", README.read_text(), re.MULTILINE)
    return {name for name, of in rows if of in (kind, "both")}


@pytest.mark.parametrize(
    "kind, params",
    [
        ("chat", chat_create_params.CompletionCreateParamsStreaming),
        ("completions", completion_create_params.CompletionCreateParamsStreaming),
    ],
)
def test_every_field_of_openai_python_is_decided(kind, params):
    fields = set(get_type_hints(params))
    assert len(fields) > 15
    assert fields - table(kind) == set()
