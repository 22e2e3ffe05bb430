"""A worker on a GPU, which is emulated (kernels/simt): through the router it gives the CPU worker's
tokens, and a stream goes on from either to the other. And what it says of machines that will not do."""

import http.client
import json
import os
import signal
import subprocess

import pytest

from tests.cluster import children_of, wait_until

REQUEST = {"model": "m", "prompt": "Once upon a time,", "max_tokens": 14, "seed": 7, "temperature": 0.8,
           "ignore_eos": True}
SMALL = ("--context-max", "256", "--step-tokens-max", "64", "--speculate", "off", "--die-with-parent")


class Pool:
    """A router, and workers that come and go. Ended by process id."""

    def __init__(self, build_dir, model, folder):
        self.build_dir, self.model, self.socket = build_dir, f"m={model}", f"unix:{folder}/rpc"
        self.log = folder / "router.log"
        self.processes = {}
        with self.log.open("wb") as log:
            self.processes["router"] = subprocess.Popen(
                [build_dir / "argosy-router", "--models", self.model, "--listen", "127.0.0.1:0",
                 "--rpc-listen", self.socket, "--die-with-parent"], stderr=log)
        self.port = int(wait_until(lambda: self.word("port="), 30, "the router is up"))

    def word(self, start):
        return next((w[len(start):] for w in self.log.read_text().split() if w.startswith(start)), None)

    def join(self, name, program, *options, machine="devices=1"):
        self.processes[name] = subprocess.Popen(
            [self.build_dir / program, "--model", self.model, "--routers", self.socket, "--id", name, *SMALL,
             *options], stderr=subprocess.DEVNULL, env={**os.environ, "SIMT_MACHINE": machine})
        joined = f"worker joined id={name} "
        wait_until(lambda: joined in self.log.read_text(), 60, f"{name} is attached")

    def join_cpu(self, name):
        """Slow, so that it can be killed in the middle of an answer."""
        self.join(name, "argosy-worker", "--device", "cpu", "--isa", "ref", "--threads", "1")

    def join_gpu(self, name, *options):
        self.join(name, "argosy-worker-emulated", "--device", "cuda", *options)

    def join_gpus(self, name):
        """Two, a process each."""
        self.join(name, "argosy-worker-emulated", "--device", "cuda", "--tp", "2", machine="devices=2")

    def lose(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def pieces(self):
        """The answer, a piece of text after another."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", "/v1/completions", json.dumps({**REQUEST, "stream": True}))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                if line == b"data: [DONE]\n":
                    return
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    assert "error" not in event, event
                    for choice in event["choices"]:
                        yield choice["text"]
            raise AssertionError("the stream ended early")
        finally:
            connection.close()

    def ask(self, prompt):
        """(text, cached tokens) of a short answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", "/v1/completions", json.dumps({**REQUEST, "prompt": prompt, "max_tokens": 3}))
            response = connection.getresponse()
            body = json.loads(response.read())
            assert response.status == 200, body
            return body["choices"][0]["text"], body["usage"]["prompt_tokens_details"]["cached_tokens"]
        finally:
            connection.close()

    def metric(self, name):
        """Of the only worker."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))

    def left(self):
        """The router's last word about a worker that left."""
        return [line for line in self.log.read_text().splitlines() if "worker left" in line][-1]

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def pool(build_dir, hash_model, tmp_path):
    pool = Pool(build_dir, hash_model, tmp_path)
    yield pool
    pool.close()


def take(pieces, n):
    """The next n pieces that are not empty."""
    text = []
    while len(text) < n:
        piece = next(pieces)
        if piece:
            text.append(piece)
    return "".join(text)


def test_a_stream_goes_on_between_cpu_and_gpu(pool):
    pool.join_gpu("gpu-1")
    expected = "".join(pool.pieces())
    assert len(expected) > 20
    pool.lose("gpu-1")
    pool.join_cpu("cpu-1")
    assert "".join(pool.pieces()) == expected
    # From the CPU to the GPU.
    pieces = pool.pieces()
    text = take(pieces, 3)
    pool.join_gpu("gpu-2")
    pool.lose("cpu-1")
    assert text + "".join(pieces) == expected
    assert "id=cpu-1" in pool.left() and "moved=1" in pool.left()
    # And back.
    pieces = pool.pieces()
    text = take(pieces, 3)
    pool.join_cpu("cpu-2")
    pool.lose("gpu-2")
    assert text + "".join(pieces) == expected
    assert "id=gpu-2" in pool.left() and "moved=1" in pool.left()


def test_a_stream_goes_on_when_one_of_two_gpus_is_lost(pool):
    pool.join_cpu("cpu-1")
    expected = "".join(pool.pieces())
    pool.lose("cpu-1")
    pool.join_gpus("gpus-1")
    assert "".join(pool.pieces()) == expected
    pieces = pool.pieces()
    text = take(pieces, 3)
    pool.join_cpu("cpu-2")
    worker = pool.processes.pop("gpus-1")
    os.kill(children_of(worker.pid)[0], signal.SIGKILL)
    assert text + "".join(pieces) == expected
    assert worker.wait(60) == 1
    assert "id=gpus-1" in pool.left() and "moved=1" in pool.left()


def test_what_the_gpu_has_no_room_for_comes_back_from_the_host(pool):
    """Two pages, which is one prompt: the second one pushes the first out."""
    page = 2 * 30 * 3 * 64 * 2 * 16  # K and V, layers, heads, width, fp16, tokens
    prompts = [[100 * k + i for i in range(18)] for k in (1, 2)]
    pool.join_gpu("gpu", "--context-max", "32", "--kv-bytes", str(2 * page), "--kv-host-bytes", str(20 * page))
    first, second = (pool.ask(p)[0] for p in prompts)
    assert pool.ask(prompts[0]) == (first, 16)
    wait_until(lambda: pool.metric("argosy_worker_kv_pages_in") >= 1, 10, "the router hears of it")
    assert pool.metric("argosy_worker_kv_pages_out") == 2
    assert pool.metric("argosy_worker_kv_host_bytes") == 2 * page
    pool.lose("gpu")
    pool.join_cpu("cpu")
    assert [pool.ask(p)[0] for p in prompts] == [first, second]


@pytest.mark.parametrize(
    ("machine", "options", "words"),
    [
        ("devices=0", (), "there is no GPU on this machine"),
        ("devices=1", ("--device", "cuda:1"), "this machine has 1 GPU, from cuda:0 on"),
        ("capability=75", (), "compute capability 7.5, wanted at least 8.0"),
        ("driver=11080", (), "it serves CUDA 11.8, this program wants 13.0"),
        ("memory=300000000", (), "kv_bytes and context_max make the pages smaller"),
        ("devices=1", ("--tp", "2"), "device=cuda:1: this machine has 1 GPU, from cuda:0 on"),
        ("devices=2", ("--tp", "2", "--unload-after", "10s"), "serves one model, and keeps it loaded"),
        ("fail_malloc=3", (), "out of memory"),
        ("devices=1", ("--kv-host-bytes", "1M", "--prefix-cache=no"), "is for pages of the prefix cache"),
        ("devices=1", ("--kv-host-bytes", "64k"), "kv_host_bytes: no room for a page"),
    ],
)
def test_what_will_not_do_is_told_at_start(build_dir, hash_model, tmp_path, machine, options, words):
    worker = subprocess.run(
        [build_dir / "argosy-worker-emulated", "--model", hash_model, "--routers", f"unix:{tmp_path}/none",
         "--device", "cuda", *SMALL, *options],
        env={**os.environ, "SIMT_MACHINE": machine}, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert worker.returncode == 2
    assert len(worker.stderr.splitlines()) == 1
    assert words in worker.stderr


def test_the_worker_of_a_machine_without_a_gpu_says_so(build_dir, hash_model, tmp_path):
    """The real one: built with CUDA or without, it has no GPU here."""
    worker = subprocess.run(
        [build_dir / "argosy-worker", "--model", hash_model, "--routers", f"unix:{tmp_path}/none", "--device",
         "cuda", *SMALL], stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert worker.returncode == 2
    assert len(worker.stderr.splitlines()) == 1
    assert "device=cuda: " in worker.stderr
