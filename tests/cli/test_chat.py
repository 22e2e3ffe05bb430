"""`argosy chat` against an endpoint that a test controls."""

import os
import signal
import subprocess
import time

import pytest

from tests.cli.stubs import Endpoint, delta

DONE = "data: [DONE]\n\n"


@pytest.fixture
def endpoint():
    """endpoint(reply) -> a running Endpoint."""
    made = []

    def make(reply):
        made.append(Endpoint(reply))
        return made[-1]

    yield make
    for e in made:
        e.close()


@pytest.fixture
def chat(build_dir):
    def run(url, *args, stdin=b"", timeout_s=20):
        command = [build_dir / "argosy", "chat", "--url", url, *args]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s)

    return run


def test_chat_streams_one_answer(endpoint, chat):
    e = endpoint(lambda r: (200, [delta("Par"), delta("is."), DONE]))
    done = chat(e.url, "What is the capital of France?")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Paris.\n", b"")
    path, request = e.requests[0]
    assert path == "/v1/chat/completions"
    assert request == {
        "model": "stub-1",
        "stream": True,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }


def test_chat_passes_what_is_asked_for(endpoint, chat):
    e = endpoint(lambda r: (200, [DONE]))
    options = ["--model", "m", "--temperature", "0", "--max-tokens", "7", "--system", "Be brief."]
    assert chat(e.url + "/other/", *options, "--", '-"é\n').returncode == 0
    path, request = e.requests[0]
    assert path == "/other/chat/completions"
    assert request["model"] == "m" and request["temperature"] == 0 and request["max_tokens"] == 7
    assert [m["content"] for m in request["messages"]] == ["Be brief.", '-"é\n']


def test_chat_sends_the_key_of_a_file(endpoint, chat, tmp_path):
    e = endpoint(lambda r: (200, [DONE]))
    (tmp_path / "key").write_text("ak-0123\nnot this\n")
    assert chat(e.url, "--key-file", tmp_path / "key", "hi").returncode == 0
    assert chat(e.url, "hi").returncode == 0
    assert e.authorizations == ["Bearer ak-0123", None]
    done = chat(e.url, "--key-file", tmp_path / "none", "hi")
    assert done.returncode == 1 and b"cannot be read" in done.stderr


def test_chat_takes_events_cut_anywhere(endpoint, chat):
    text = "Zürich → 東京 🚀"
    stream = ": comment\r\nevent: x\r\n" + delta(text[:4]).replace("\n", "\r\n")
    data = (stream + delta(text[4:]) + DONE).encode()
    e = endpoint(lambda r: (200, [data[i : i + 1] for i in range(len(data))]))
    assert chat(e.url, "x").stdout.decode() == text + "\n"


def test_chat_says_what_the_server_refused(endpoint, chat):
    e = endpoint(lambda r: (400, ['{"error": {"message": "no such model", "type": "x"}}']))
    done = chat(e.url, "x")
    assert done.returncode == 1 and b"no such model (HTTP 400)" in done.stderr


def test_chat_reports_an_error_in_the_stream(endpoint, chat):
    error = 'data: {"error": {"message": "worker gone"}}\n\n'
    e = endpoint(lambda r: (200, [delta("so far"), error]))
    done = chat(e.url, "x")
    assert done.returncode == 1
    assert done.stdout == b"so far\n" and b"worker gone" in done.stderr


def test_chat_does_not_take_a_cut_stream_for_an_answer(endpoint, chat):
    e = endpoint(lambda r: (200, [delta("so far")]))
    done = chat(e.url, "x")
    assert done.returncode == 1 and b"broke off" in done.stderr


def test_chat_survives_a_hostile_server(endpoint, chat):
    deep = "data: " + "[" * 100000 + "\n\n"
    for piece in ("data: [1, 2\n\n", "data: 7\n\n", deep, b"data: \xff\0\n\n"):
        e = endpoint(lambda r, piece=piece: (200, [piece]))
        done = chat(e.url, "x")
        assert done.returncode == 1 and b"no JSON object" in done.stderr
    e = endpoint(lambda r: (200, ["data: " + "x" * (2 << 20)]))
    done = chat(e.url, "x")
    assert done.returncode == 1 and b"over 1048576 bytes" in done.stderr


def test_chat_says_when_nobody_answers(chat):
    done = chat("http://127.0.0.1:1", "x")
    assert done.returncode == 1 and b"nothing answers at 127.0.0.1:1" in done.stderr


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "https://a", "http://", "ftp://a:1"])
def test_chat_refuses_a_url_it_cannot_use(chat, url):
    done = chat(url, "x")
    assert done.returncode == 1 and b"is no URL" in done.stderr


def test_chat_refuses_bad_options(chat):
    bad = (["--temperature", "3"], ["--temperature", "x"], ["--max-tokens", "0"], ["a", "b"])
    for options in bad:
        assert chat("http://127.0.0.1:1", *options).returncode == 64


def test_chat_keeps_the_conversation(endpoint, chat):
    e = endpoint(lambda r: (200, [delta(f"answer {len(r['messages'])}"), DONE]))
    done = chat(e.url, stdin=b"one\ntwo\n\n/clear\nthree\n/exit\nfour\n")
    assert done.stdout == b"answer 1\nanswer 3\nanswer 1\n" and done.returncode == 0
    said = [[m["content"] for m in request["messages"]] for _, request in e.requests]
    assert said == [["one"], ["one", "answer 1", "two"], ["three"]]
    assert e.requests[1][1]["messages"][1]["role"] == "assistant"


def test_chat_forgets_a_question_that_failed(endpoint, chat):
    def reply(request):
        bad = request["messages"][-1]["content"] == "bad"
        return (500, ["oops"]) if bad else (200, [delta("ok"), DONE])

    e = endpoint(reply)
    done = chat(e.url, stdin=b"bad\ngood\n")
    assert b"HTTP 500: oops" in done.stderr and done.stdout == b"ok\n" and done.returncode == 1
    assert [m["content"] for m in e.requests[1][1]["messages"]] == ["good"]


def test_chat_stops_an_answer_at_ctrl_c(endpoint, build_dir):
    def slowly(request):
        def pieces():
            yield delta("begun")
            time.sleep(30)

        return 200, pieces()

    e = endpoint(slowly)
    command = [build_dir / "argosy", "chat", "--url", e.url, "x"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as p:
        assert p.stdout.read(5) == b"begun"
        p.send_signal(signal.SIGINT)
        assert p.wait(5) == 130


def test_chat_keeps_escape_sequences_from_a_terminal(endpoint, build_dir, terminal):
    e = endpoint(lambda r: (200, [delta("a\x1b]0;title\x07b\x7f"), DONE]))
    ours, theirs = terminal
    command = [build_dir / "argosy", "chat", "--url", e.url, "x"]
    with subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL) as p:
        assert p.wait(10) == 0
    assert os.read(ours, 1000) == b"a]0;titleb\r\n"
