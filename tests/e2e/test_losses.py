"""Parts are killed under a running cluster; clients do not notice, or are told properly."""

import json
import os
import signal
import subprocess
import threading
import time

from tests.cluster import command_of, is_alive, wait_until

QUESTION = "What is the capital of France?"


def redis(cluster, *command):
    """The answer's lines of the cluster's own Redis."""
    socket_path = next(cluster.tmp.glob("argosy-*/redis.sock"))
    done = subprocess.run(
        ["redis-cli", "-s", str(socket_path), *command], capture_output=True, text=True, timeout=10
    )
    return done.stdout.split("\n")[:-1]


def workers_in_table(cluster):
    return sorted(line for line in redis(cluster, "SMEMBERS", "argosy:{default}:workers") if line)


def worker_pid(cluster, worker_id):
    for pid in cluster.pids("argosy-worker"):
        command = command_of(pid)
        if command[command.index("--id") + 1] == worker_id:
            return pid
    raise AssertionError(f"no process of worker {worker_id}")


def test_a_killed_worker_is_survived_by_the_next_request(start_cluster):
    cluster = start_cluster(workers=1)
    before = cluster.ask(QUESTION)
    pid = cluster.pid("argosy-worker")
    os.kill(pid, signal.SIGKILL)
    assert cluster.ask(QUESTION) == before
    assert cluster.pid("argosy-worker") != pid
    assert "worker 1 was killed by signal 9" in cluster.err.read_text()


def test_a_killed_router_comes_back(start_cluster):
    cluster = start_cluster(workers=1)
    before = cluster.ask(QUESTION)
    os.kill(cluster.pid("argosy-router"), signal.SIGKILL)

    def answer():
        try:
            return cluster.ask(QUESTION)
        except (OSError, AssertionError):
            return None

    assert wait_until(answer, 20, "the router answers again") == before


def test_a_stream_goes_on_when_its_worker_is_killed(start_cluster):
    cluster = start_cluster(workers=2)
    options = {"max_tokens": 200, "ignore_eos": True}
    expected = "".join(cluster.stream("Tell me a long story.", **options).texts())
    for _ in range(3):
        wait_until(lambda: len(cluster.pids("argosy-worker")) == 2, 10, "both workers run")
        wait_until(lambda: len(workers_in_table(cluster)) == 2, 20, "both are attached")
        with cluster.stream("Tell me a long story.", **options) as stream:
            texts = stream.texts()
            text = "".join(next(texts) for _ in range(20))
            os.kill(worker_pid(cluster, stream.headers["x-argosy-worker"]), signal.SIGKILL)
            text += "".join(texts)
            assert stream.done
        assert text == expected


def test_a_stream_that_follows_a_schema_goes_on_when_its_worker_is_killed(start_cluster):
    cluster = start_cluster(workers=2)
    text = {"type": "string", "maxLength": 60}
    schema = {"type": "object", "properties": {"title": text, "pages": {"type": "array", "items": text, "minItems": 6}},
              "required": ["title", "pages"], "additionalProperties": False}
    options = {"max_tokens": 400, "temperature": 1, "seed": 3,
               "response_format": {"type": "json_schema", "json_schema": {"name": "book", "schema": schema}}}
    expected = "".join(cluster.stream("Tell me a long story.", **options).texts())
    wait_until(lambda: len(workers_in_table(cluster)) == 2, 20, "both are attached")
    with cluster.stream("Tell me a long story.", **options) as stream:
        texts = stream.texts()
        text = "".join(next(texts) for _ in range(20))
        os.kill(worker_pid(cluster, stream.headers["x-argosy-worker"]), signal.SIGKILL)
        text += "".join(texts)
        assert stream.done
    assert text == expected
    assert len(text) > 100


def answer_of(stream):
    """{choice: [text, reason, log probabilities]} of a stream, read to its end."""
    found = {}
    for event in stream:
        event = json.loads(event)
        assert "error" not in event, event
        for c in event["choices"]:
            text, _, logprobs = found.setdefault(c["index"], ["", None, []])
            found[c["index"]][0] = text + (c["delta"].get("content") or "")
            found[c["index"]][1] = c["finish_reason"] or found[c["index"]][1]
            logprobs += (c.get("logprobs") or {}).get("content") or []
    assert stream.done
    return found


def test_every_kind_of_request_goes_on_when_a_worker_is_killed(start_cluster):
    cluster = start_cluster(workers=2)
    schema = {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 8, "maxItems": 8}
    kinds = [
        {"temperature": 0, "max_tokens": 60, "ignore_eos": True},
        {"temperature": 1, "seed": 5, "top_p": 0.9, "presence_penalty": 0.5, "max_tokens": 60, "ignore_eos": True},
        {"temperature": 0.7, "seed": 6, "logprobs": True, "top_logprobs": 3, "max_tokens": 60, "ignore_eos": True},
        {"temperature": 1, "seed": 7, "n": 2, "max_tokens": 60, "ignore_eos": True},
        {"temperature": 0, "stop": ["ing"], "max_tokens": 120},
        {"temperature": 1, "seed": 8, "max_tokens": 200,
         "response_format": {"type": "json_schema", "json_schema": {"name": "list", "schema": schema}}},
    ]  # fmt: skip

    def ask(options):
        with cluster.stream("Tell me a long story.", **options) as stream:
            return answer_of(stream)

    expected = [ask(k) for k in kinds]
    wait_until(lambda: len(workers_in_table(cluster)) == 2, 20, "both are attached")
    got = [None] * len(kinds)

    def run(i):
        got[i] = ask(kinds[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(kinds))]
    with cluster.stream("Tell me a long story.", max_tokens=60, ignore_eos=True) as first:
        for t in threads:
            t.start()
        texts = first.texts()
        for _ in range(10):
            next(texts)
        os.kill(worker_pid(cluster, first.headers["x-argosy-worker"]), signal.SIGKILL)
        for _ in texts:
            pass
    for t in threads:
        t.join(60)
    assert got == expected


def test_a_stream_goes_on_when_its_worker_is_stopped(start_cluster):
    cluster = start_cluster(workers=2)
    options = {"max_tokens": 60, "ignore_eos": True}
    expected = "".join(cluster.stream("Tell me a long story.", **options).texts())
    wait_until(lambda: len(workers_in_table(cluster)) == 2, 20, "both are attached")
    with cluster.stream("Tell me a long story.", **options) as stream:
        texts = stream.texts()
        text = "".join(next(texts) for _ in range(20))
        pid = worker_pid(cluster, stream.headers["x-argosy-worker"])
        os.kill(pid, signal.SIGSTOP)
        try:
            text += "".join(texts)
            assert stream.done
        finally:
            os.kill(pid, signal.SIGCONT)
    assert text == expected
    assert cluster.ask(QUESTION) == cluster.ask(QUESTION)


def test_redis_lost_and_back(start_cluster):
    cluster = start_cluster(workers=2)
    wait_until(lambda: len(workers_in_table(cluster)) == 2, 10, "the load table has both workers")
    table = workers_in_table(cluster)
    before = cluster.ask(QUESTION)
    pid = cluster.pid("redis-server")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), 5, "Redis is gone")
    assert cluster.ask(QUESTION) == before
    wait_until(lambda: cluster.pids("redis-server"), 10, "Redis runs again")
    wait_until(lambda: workers_in_table(cluster) == table, 20, "the load table is rebuilt")
    assert cluster.ask(QUESTION) == before


def test_a_worker_joins_while_requests_run(start_cluster, build_dir):
    cluster = start_cluster(workers=1, args=("--threads", "1"))
    before = cluster.ask(QUESTION)
    rpc = "unix:" + str(next(cluster.tmp.glob("argosy-*/rpc.sock")))
    seen, stop, wrong = set(), threading.Event(), []

    def load():
        while not stop.is_set():
            with cluster.stream(QUESTION, max_tokens=16) as stream:
                text = "".join(stream.texts())
                seen.add(stream.headers["x-argosy-worker"])
            if text != before:
                wrong.append(text)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for t in threads:
        t.start()
    model = "smollm2-135m=models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
    command = [build_dir / "argosy-worker", "--routers", rpc, "--id", "guest", "--model", model]
    guest = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "guest" in seen, 30, "the guest gets requests")
        guest.send_signal(signal.SIGTERM)
        assert guest.wait(40) == 0
        time.sleep(0.5)
    finally:
        stop.set()
        for t in threads:
            t.join(60)
        if guest.poll() is None:
            guest.kill()
            guest.wait()
    assert wrong == []
    assert cluster.ask(QUESTION) == before


def test_a_client_that_leaves_frees_its_place(start_cluster):
    cluster = start_cluster(workers=1)
    with cluster.stream("Tell me a long story.", max_tokens=4000, ignore_eos=True) as stream:
        next(stream.texts())

    def idle():
        _, text = cluster.request("GET", "/metrics")
        values = [
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("vllm:num_requests_running")
        ]
        return values and sum(values) == 0

    wait_until(idle, 5, "no request runs")


def test_the_stream_ends_with_usage_and_done(cluster):
    options = {"stream_options": {"include_usage": True}, "max_tokens": 8}
    with cluster.stream(QUESTION, **options) as stream:
        events = [json.loads(e) for e in stream]
        assert stream.done
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 8
