"""Two real models on one worker whose memory holds one of them, or both."""

import json
import os
import shutil
import signal
import subprocess
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import children_of, is_alive, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SMOL, GEMMA = "smollm2-135m", "gemma3-270m"
FILES = {
    SMOL: ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf",
    GEMMA: ROOT / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf",
}
PROMPTS = ["The capital of France is", "Once upon a time", "1, 2, 3,"]
ONE, BOTH = "450M", "2G"

if not FILES[GEMMA].exists():
    warnings.warn(f"{FILES[GEMMA]} is missing: several models are NOT tested", stacklevel=1)
    pytest.skip("run models/fetch.py gemma3-270m", allow_module_level=True)


def complete(cluster, model, prompt, **fields):
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 16, **fields}
    status, text = cluster.request("POST", "/v1/completions", body, timeout_s=120)
    assert status == 200, text
    return json.loads(text)["choices"][0]["text"]


def said(cluster, *words):
    """How many lines of the log have all of the words."""
    lines = cluster.err.read_text().splitlines()
    return sum(all(word in line for word in words) for line in lines)


@pytest.fixture(scope="module")
def alone(build_dir, tmp_path_factory):
    """Answers of workers that have one model: {(model, prompt): text}."""
    from tests.cluster import Cluster

    answers = {}
    for model in FILES:
        cluster = Cluster(build_dir / "argosy", tmp_path_factory.mktemp(model), model=model)
        try:
            cluster.wait_ready()
            for prompt in PROMPTS:
                answers[model, prompt] = complete(cluster, model, prompt)
        finally:
            cluster.stop()
    return answers


def start_both(start_cluster, memory, *args):
    return start_cluster(args=("--model", GEMMA, "--memory", memory, *args))


def test_requests_alternate_in_the_memory_of_one_model(start_cluster, alone):
    cluster = start_both(start_cluster, ONE)
    names = json.loads(cluster.request("GET", "/v1/models")[1])["data"]
    assert [m["id"] for m in names] == [SMOL, GEMMA]
    for prompt in PROMPTS:
        for model in FILES:
            assert complete(cluster, model, prompt) == alone[model, prompt]
    # Every turn but the first was a load, and pushed the other one out.
    assert said(cluster, "model leaves memory", f"name={SMOL}") == 3
    assert said(cluster, "model leaves memory", f"name={GEMMA}") == 2


def test_concurrent_requests_for_both_models(start_cluster, alone):
    for memory in (ONE, BOTH):
        cluster = start_both(start_cluster, memory)
        work = [(model, prompt) for prompt in PROMPTS for model in FILES] * 4
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda w: complete(cluster, *w), work))
        assert texts == [alone[w] for w in work]
        assert (said(cluster, "model leaves memory") > 0) == (memory == ONE)
        assert cluster.stop() == 0


def test_a_stream_goes_on_while_another_model_loads(start_cluster, alone):
    cluster = start_both(start_cluster, BOTH)
    with cluster.stream("Tell me a long story.", max_tokens=300, ignore_eos=True) as stream:
        texts = stream.texts()
        first = next(texts)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(complete, cluster, GEMMA, PROMPTS[0])
            rest = "".join(texts)
            assert other.result() == alone[GEMMA, PROMPTS[0]]
    expected = cluster.ask("Tell me a long story.", max_tokens=300, ignore_eos=True)
    assert first + rest == expected


def test_a_model_that_never_fits_is_refused_at_start(build_dir):
    command = [build_dir / "argosy-worker", "--memory", "300M"]
    for model, file in FILES.items():
        command += ["--model", f"{model}={file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "model gemma3-270m takes" in done.stderr
    assert "MiB more than memory=300M; kv_bytes, context_max" in done.stderr


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_file_that_is_gone_or_changed_takes_its_model_along(
    start_cluster, tmp_path, change, alone
):
    file = tmp_path / "gemma.gguf"
    shutil.copy(FILES[GEMMA], file)
    cluster = start_cluster(args=("--model", f"{GEMMA}={file}", "--memory", BOTH))
    file.rename(tmp_path / "elsewhere")
    if change == "changed":
        shutil.copy(FILES[SMOL], file)
    body = {"model": GEMMA, "prompt": "a", "max_tokens": 1}
    status, text = cluster.request("POST", "/v1/completions", body)
    assert status >= 429, text
    wait_until(lambda: said(cluster, "model is gone", f"name={GEMMA}"), 20, "it is told")
    assert complete(cluster, SMOL, PROMPTS[0]) == alone[SMOL, PROMPTS[0]]
    assert len(cluster.pids("argosy-worker")) == 1
    assert "was killed" not in cluster.err.read_text()


class Guest:
    """A worker of both models beside the cluster's own."""

    def __init__(self, build_dir, cluster, folder, *args):
        rpc = "unix:" + str(next(cluster.tmp.glob("argosy-*/rpc.sock")))
        command = [build_dir / "argosy-worker", "--routers", rpc, "--id", "guest", *args]
        for model, file in FILES.items():
            command += ["--model", f"{model}={file}"]
        self.err = folder / "guest.err"
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(command, stderr=err)

    def wait_said(self, *words):
        def look():
            lines = self.err.read_text().splitlines()
            return any(all(word in line for word in words) for line in lines)

        wait_until(look, 60, " ".join(words))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("sig,status", [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_worker_is_ended_while_it_loads(build_dir, start_cluster, tmp_path, alone, sig, status):
    cluster = start_both(start_cluster, ONE)
    complete(cluster, SMOL, PROMPTS[0])
    guest = Guest(build_dir, cluster, tmp_path)
    try:
        guest.wait_said(" attached ")
        # The cluster's own worker is busy with the first model, so one of these goes to the guest.
        with cluster.stream("Tell me a long story.", max_tokens=400, ignore_eos=True) as stream:
            next(stream.texts())
            with ThreadPoolExecutor(4) as pool:
                others = [pool.submit(complete, cluster, GEMMA, PROMPTS[0]) for _ in range(4)]
                guest.wait_said("model loads", f"name={GEMMA}")
                guest.process.send_signal(sig)
                begun = time.monotonic()
                assert guest.process.wait(60) == status
                print(f"\nended after {time.monotonic() - begun:.2f} s")
                for other in others:
                    assert other.result() == alone[GEMMA, PROMPTS[0]]
    finally:
        guest.close()


def test_ranks_of_several_models(build_dir, start_cluster, tmp_path, alone):
    """Two models of two ranks each; one rank is lost, and its model comes back with new ones."""
    cluster = start_both(start_cluster, BOTH)
    guest = Guest(build_dir, cluster, tmp_path, "--tp", "2", "--threads", "1")
    try:
        guest.wait_said(" attached ")
        os.kill(cluster.pid("argosy-worker"), signal.SIGSTOP)  # all goes to the guest
        wait_until(lambda: said(cluster, "worker left", "id=local-1"), 30, "it is left alone")
        for model in FILES:
            assert complete(cluster, model, PROMPTS[1]) == alone[model, PROMPTS[1]]
        ranks = children_of(guest.process.pid)
        assert len(ranks) == 2
        lost = max(ranks)  # the younger one: the second model's
        os.kill(lost, signal.SIGKILL)
        guest.wait_said("model is lost", f"name={GEMMA}", "killed by signal 9")
        for model in FILES:
            assert complete(cluster, model, PROMPTS[0]) == alone[model, PROMPTS[0]]
        assert len(children_of(guest.process.pid)) == 2
        assert not is_alive(lost)
        ranks = children_of(guest.process.pid)
        guest.process.kill()
        guest.process.wait()
        for rank in ranks:
            wait_until(lambda: not is_alive(rank), 10, "ranks end with their worker")
    finally:
        os.kill(cluster.pid("argosy-worker"), signal.SIGCONT)
        guest.close()


def test_an_idle_model_leaves_the_memory(build_dir, start_cluster, tmp_path):
    cluster = start_cluster()
    guest = Guest(build_dir, cluster, tmp_path, "--unload-after", "300ms")
    try:
        guest.wait_said("model leaves memory", f"name={SMOL}")

        def small():
            status = Path(f"/proc/{guest.process.pid}/status").read_text()
            anonymous = next(s for s in status.splitlines() if s.startswith("RssAnon:"))
            return int(anonymous.split()[1]) < 60 << 10

        wait_until(small, 20, "its memory is given back")
    finally:
        guest.close()
