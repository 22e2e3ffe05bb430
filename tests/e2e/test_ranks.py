"""A worker whose model several processes share out, and the loss of one of them."""

import itertools
import os
import signal
import subprocess
import threading

import pytest

from tests.cluster import children_of, is_alive, wait_until

MODEL = "smollm2-135m=models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
STORY = {"max_tokens": 200, "ignore_eos": True}


class Guest:
    """A worker of two ranks that joins a cluster."""

    def __init__(self, build_dir, cluster, folder):
        rpc = "unix:" + str(next(cluster.tmp.glob("argosy-*/rpc.sock")))
        command = [build_dir / "argosy-worker", "--routers", rpc, "--id", "guest"]
        command += ["--model", MODEL, "--tp", "2", "--threads", "1", "--tp-timeout", "5s"]
        self.err = folder / "guest.err"
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(command, stderr=err)

    def rank(self):
        """The process id of rank 1."""
        return wait_until(lambda: children_of(self.process.pid), 30, "rank 1 runs")[0]


@pytest.fixture
def guest(start_cluster, build_dir, tmp_path):
    """(cluster, Guest), the guest ended after the test."""
    cluster = start_cluster(workers=1, args=("--threads", "1"))
    g = Guest(build_dir, cluster, tmp_path)
    yield cluster, g
    if g.process.poll() is None:
        g.process.kill()
    g.process.wait()


def story_on_guest(cluster):
    """(stream, its texts, twenty pieces of them, its prompt) that the guest serves.

    Prompts that nobody has cached, two at a time, so that both workers are busy."""
    prompts = (f"Tell me a long story, number {i}." for i in itertools.count())

    def attempt():
        streams = [(cluster.stream(p, **STORY), p) for p in itertools.islice(prompts, 2)]
        mine = next((s for s in streams if s[0].headers["x-argosy-worker"] == "guest"), (None, None))
        for stream, _ in streams:
            if stream is not mine[0]:
                stream.close()
        return mine[0] and mine

    stream, prompt = wait_until(attempt, 60, "the guest gets a stream")
    texts = stream.texts()
    return stream, texts, "".join(next(texts) for _ in range(20)), prompt


@pytest.mark.parametrize(
    "sig,said",
    [
        (signal.SIGKILL, "rank 1 was killed by signal 9"),
        (signal.SIGSTOP, "rank 1 did not answer within 5000 ms"),
    ],
    ids=["killed", "stopped"],
)
def test_a_stream_goes_on_when_a_rank_is_lost(guest, sig, said):
    cluster, g = guest
    stream, texts, text, prompt = story_on_guest(cluster)
    rank = g.rank()
    os.kill(rank, sig)
    text += "".join(texts)
    assert stream.done
    assert text == "".join(cluster.stream(prompt, **STORY).texts())
    assert g.process.wait(60) == 1
    assert said in g.err.read_text()
    assert not is_alive(rank)


def test_a_rank_lost_in_idleness_is_noticed(guest):
    _, g = guest
    wait_until(lambda: " attached " in g.err.read_text(), 60, "the guest is attached")
    os.kill(g.rank(), signal.SIGKILL)
    assert g.process.wait(60) == 1
    assert "rank 1 was killed by signal 9" in g.err.read_text()


def test_ranks_share_the_memory_and_end_with_their_worker(guest):
    cluster, g = guest
    stream, *_ = story_on_guest(cluster)
    whole = anonymous_bytes(cluster.pid("argosy-worker"))
    parts = [anonymous_bytes(g.process.pid), anonymous_bytes(g.rank())]
    print(f"\nalone {whole >> 20} MiB, two ranks {[p >> 20 for p in parts]} MiB")
    assert all(p < 0.75 * whole for p in parts)
    rank = g.rank()
    stream.close()
    g.process.kill()
    wait_until(lambda: not is_alive(rank), 10, "rank 1 ends with rank 0")


def anonymous_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


def test_ranks_drain_with_their_worker(guest):
    cluster, g = guest
    stream, texts, *_ = story_on_guest(cluster)
    rank = g.rank()
    # As Ctrl-C in a terminal does: to every process at once.
    for pid in (g.process.pid, rank):
        os.kill(pid, signal.SIGINT)
    reader = threading.Thread(target=lambda: "".join(texts))
    reader.start()
    assert g.process.wait(60) == 0
    reader.join(60)
    assert stream.done
    assert not is_alive(rank)


def test_ranks_that_cannot_be_served_are_said_in_one_line(build_dir):
    command = [build_dir / "argosy-worker", "--model", MODEL, "--tp", "4", "--kv-bytes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "kv_bytes: no room for a page" in done.stderr
