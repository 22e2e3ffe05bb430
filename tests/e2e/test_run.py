"""The two commands that a newcomer types, `make run` among them, and how they end."""

import os
import signal
import socket
import subprocess
import time

import pytest
from openai import AuthenticationError, OpenAI

from tests.cluster import Cluster, children_of, command_of, is_alive, wait_until

QUESTION = "What is the capital of France?"
CHAT_OPTIONS = ["--temperature=0", "--max-tokens=64", "--system=You are a helpful assistant."]


def descendants(pid):
    found = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def run_once(question):
    command = ["make", "-s", "run", f"ONCE={question}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_make_run_once_answers_with_paris():
    done = run_once(QUESTION)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert len(done.stdout.strip().splitlines()) < 20


def test_make_run_once_takes_any_characters():
    done = run_once("It's \"$HOME\"; `date` \\ ü\t#%")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != ""


def test_make_run_once_says_the_same_every_time():
    assert run_once(QUESTION).stdout == run_once(QUESTION).stdout


def test_up_with_keys_answers_their_owners_alone(build_dir, tmp_path):
    made = subprocess.run([build_dir / "argosy", "key", "create", "--name=alice", f"--keys={tmp_path}/keys"],
                          capture_output=True, text=True, timeout=30)
    cluster = Cluster(build_dir / "argosy", tmp_path, args=("--keys", tmp_path / "keys"))
    try:
        cluster.wait_ready()
        ask = {"model": cluster.model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4}
        answer = OpenAI(base_url=cluster.url, api_key=made.stdout.strip()).chat.completions.create(**ask)
        assert answer.usage.completion_tokens == 4
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=cluster.url, api_key="none").chat.completions.create(**ask)
    finally:
        assert cluster.stop() == 0


def test_make_run_is_ready_within_three_seconds():
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    # A group of its own: the terminal's Ctrl-C goes to a whole group too.
    process = subprocess.Popen(
        ["make", "run", f"PORT={port}"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout:
            if line.startswith("Ready in"):
                break
        ready_s = time.monotonic() - began
        print(f"make run: ready after {ready_s:.2f} s")
        pids = descendants(process.pid)
        names = [os.path.basename(command_of(p)[0].split()[0]) for p in pids]
        assert {"argosy", "argosy-router", "argosy-worker", "redis-server"} <= set(names)
        assert ready_s < 3
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
    wait_until(lambda: not any(is_alive(p) for p in pids), 5, "all processes are gone")


def test_make_run_names_the_models_it_knows():
    done = subprocess.run(
        ["make", "-s", "run", "MODEL=nope"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "there is no model 'nope'" in done.stderr and "smollm2-135m" in done.stderr


def test_up_leaves_no_process_and_no_file(start_cluster):
    cluster = start_cluster(workers=2)
    cluster.ask(QUESTION)
    pids = children_of(cluster.process.pid)
    assert cluster.stop() == 0
    assert not any(is_alive(p) for p in pids)
    assert list(cluster.tmp.iterdir()) == []


def test_up_ends_soon_while_a_stream_runs(start_cluster):
    cluster = start_cluster()
    with cluster.stream("Tell me a long story.", max_tokens=4000, ignore_eos=True) as events:
        next(events)
        began = time.monotonic()
        assert cluster.stop() == 0
        assert time.monotonic() - began < 8


def test_up_serves_a_model_by_its_path(start_cluster):
    cluster = start_cluster(model="models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf")
    cluster.model = "SmolLM2-135M-Instruct.Q4_1"
    assert "Paris" in cluster.ask(QUESTION, max_tokens=32)


def test_chat_client_talks_to_the_cluster(cluster, build_dir):
    command = [build_dir / "argosy", "chat", "--url", cluster.url, *CHAT_OPTIONS]
    done = subprocess.run([*command, QUESTION], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr
    two = subprocess.run(
        command, input=f"{QUESTION}\nWho wrote Hamlet?\n", capture_output=True, text=True, timeout=60
    )
    assert two.returncode == 0 and "Paris" in two.stdout and "Shakespeare" in two.stdout, two.stderr


def test_chat_client_is_told_of_an_unknown_model(cluster, build_dir):
    command = [build_dir / "argosy", "chat", "--url", cluster.url, "--model", "nope", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "nope" in done.stderr and "HTTP 404" in done.stderr


def test_chat_client_at_a_terminal(cluster, build_dir, terminal):
    ours, theirs = terminal
    command = [build_dir / "argosy", "chat", "--url", cluster.url, *CHAT_OPTIONS]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.write(ours, f"{QUESTION}\n".encode())
        seen = b""
        while b"Paris" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"/exit\n")
        assert process.wait(30) == 0


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_answers_do_not_depend_on_the_number_of_workers(start_cluster, workers):
    cluster = start_cluster(workers=workers)
    expected = run_once(QUESTION).stdout.strip()
    assert cluster.ask(QUESTION, max_tokens=256).strip() == expected
