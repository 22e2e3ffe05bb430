"""Every field that openai-python can send stands in the table of router/http/README.md."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

README = Path(__file__).resolve().parents[2] / "router/http/README.md"


def table(kind):
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", README.read_text(), re.MULTILINE)
    shared = {"all"} if kind == "embeddings" else {"all", "both"}
    return {name for name, of in rows if of == kind or of in shared}


@pytest.mark.parametrize(
    "kind, params",
    [
        ("chat", chat_create_params.CompletionCreateParamsStreaming),
        ("completions", completion_create_params.CompletionCreateParamsStreaming),
        ("embeddings", embedding_create_params.EmbeddingCreateParams),
    ],
)
def test_every_field_of_openai_python_is_decided(kind, params):
    fields = set(get_type_hints(params))
    assert len(fields) > (4 if kind == "embeddings" else 15)
    assert fields - table(kind) == set()
