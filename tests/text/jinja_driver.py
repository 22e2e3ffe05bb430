"""Drives tests/tools/chat_tool.c, and renders with the oracle: jinja2 as transformers sets it up."""
import datetime
import json
import os
import pathlib
import subprocess

from transformers.utils import chat_template_utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = pathlib.Path(os.environ.get("ARGOSY_FIXTURES", ROOT / "build/fixtures"))
TOOL = ROOT / "build" / os.environ.get("ARGOSY_BUILD", "release") / "tests/tools/chat_tool"
NOW = 1_770_000_123


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)


class Tool:
    def __init__(self, binary=TOOL):
        self.process = subprocess.Popen([str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"chat_tool died on {json.dumps(request)[:4000]}"
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0


def oracle_template(text):
    """The compiled template, or the exception."""
    try:
        return chat_template_utils._compile_jinja_template(text)
    except Exception as e:  # jinja2 raises many kinds
        return e


def oracle_render(text, variables):
    template = oracle_template(text)
    if isinstance(template, Exception):
        return None, template
    try:
        return template.render(**variables), None
    except Exception as e:
        return None, e


def oracle_chat(text, messages, tools, add_generation_prompt, kwargs):
    """What transformers' render_jinja_template gives, or the exception."""
    plain = chat_template_utils.datetime
    chat_template_utils.datetime = FixedTime
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], tools=tools, chat_template=text, add_generation_prompt=add_generation_prompt, **kwargs)
        return rendered[0], None
    except Exception as e:
        return None, e
    finally:
        chat_template_utils.datetime = plain
