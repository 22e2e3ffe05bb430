"""`argosy up` with stand-ins for the router and the worker: what it does with its children."""

import os
import signal
import socket
import subprocess
import time

import pytest

from tests.cli.stubs import FAILING, ROUTER, Tree
from tests.cluster import Cluster, children_of, is_alive, wait_until


@pytest.fixture
def start(build_dir, tmp_path):
    """start(router=…, worker=…, **options of Cluster) -> Cluster, ended after the test."""
    started = []

    def make(router=ROUTER, worker=None, **options):
        scripts = {"router": router} | ({"worker": worker} if worker else {})
        tree = Tree(build_dir / "argosy", tmp_path / f"tree{len(started)}", **scripts)
        started.append(Cluster(tree.argosy, tmp_path, model="tiny", **options))
        return started[-1]

    yield make
    for cluster in started:
        cluster.process.kill()
        cluster.process.wait()


def run_up(argosy, *args):
    return subprocess.run([argosy, "up", *args], capture_output=True, text=True, timeout=20)


def test_up_prints_the_endpoint_and_ends_everything_at_ctrl_c(start):
    cluster = start(workers=2)
    cluster.wait_ready()
    assert f"base_url=\"{cluster.url}\"" in cluster.out.read_text()
    pids = children_of(cluster.process.pid)
    assert len(pids) == 4
    assert list(cluster.tmp.iterdir()) != []
    assert cluster.stop() == 0
    assert not any(is_alive(p) for p in pids)
    assert list(cluster.tmp.iterdir()) == []


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_up_ends_cleanly_at_other_signals(start, sig):
    cluster = start()
    cluster.wait_ready()
    pids = children_of(cluster.process.pid)
    assert cluster.stop(sig) == 0
    assert not any(is_alive(p) for p in pids) and list(cluster.tmp.iterdir()) == []


def test_up_leaves_no_child_when_it_is_killed(start):
    cluster = start()
    cluster.wait_ready()
    pids = children_of(cluster.process.pid)
    cluster.process.kill()
    wait_until(lambda: not any(is_alive(p) for p in pids), 5, "the children are gone")


def test_up_kills_what_does_not_end(start):
    cluster = start(worker="import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(99)")
    cluster.wait_ready()
    time.sleep(0.3)
    pids = children_of(cluster.process.pid)
    began = time.monotonic()
    assert cluster.stop() == 0
    assert 4 < time.monotonic() - began < 10
    assert not any(is_alive(p) for p in pids)


def test_up_starts_a_dead_child_again_with_back_off(start):
    cluster = start()
    cluster.wait_ready()
    for n in range(1, 4):
        pid = wait_until(lambda: len(children_of(cluster.process.pid)) == 3, 5, "all run")
        pid = children_of(cluster.process.pid)[-1]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: cluster.err.read_text().count("runs again") == n, 5, f"restart {n}")
    said = cluster.err.read_text()
    assert "worker 1 was killed by signal 9" in said
    assert [f"again in {s} s" in said for s in ("0.2", "0.4", "0.8")] == [True] * 3


def test_up_says_why_a_part_cannot_start(start):
    cluster = start(worker=FAILING)
    assert cluster.process.wait(20) == 1
    said = cluster.err.read_text()
    assert "worker 1 ended with status 3" in said and "the weights are made of cheese" in said
    assert list(cluster.tmp.iterdir()) == []


def test_up_once_gives_the_status_of_the_answer(start):
    # The stub has no /v1/chat/completions: the client fails, and so does up.
    cluster = start(args=("--once", "hello"))
    assert cluster.process.wait(20) == 1
    assert cluster.out.read_text() == ""
    assert list(cluster.tmp.iterdir()) == []


def test_up_once_has_no_key_to_send(build_dir):
    done = run_up(build_dir / "argosy", "--once=hello", "--keys=keys")
    assert done.returncode == 64 and "--once has no API key" in done.stderr


def test_up_hands_its_keys_to_the_router(start, tmp_path):
    cluster = start(args=("--keys", tmp_path / "keys"))
    cluster.wait_ready()
    assert f"--auth keys --keys {tmp_path}/keys" in cluster.err.read_text() + cluster.out.read_text()
    assert "Authorization: Bearer" in cluster.out.read_text()


def test_up_refuses_a_port_that_is_taken(build_dir, tmp_path):
    tree = Tree(build_dir / "argosy", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_up(tree.argosy, "--model", "tiny", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr and "--port N" in done.stderr


def test_up_names_the_models_it_knows(build_dir, tmp_path):
    tree = Tree(build_dir / "argosy", tmp_path)
    done = run_up(tree.argosy, "--model", "nope")
    assert done.returncode == 1 and "there is no model 'nope'. Known: tiny" in done.stderr


def test_up_says_how_to_fetch_weights(build_dir, tmp_path):
    tree = Tree(build_dir / "argosy", tmp_path)
    tree.model("empty", {"file": "x.gguf"})
    done = run_up(tree.argosy, "--model", "empty")
    assert done.returncode == 1 and "models/fetch.py empty" in done.stderr


@pytest.mark.parametrize("description", [{}, {"file": 7}, {"file": "../x"}, {"file": ""}, []])
def test_up_refuses_a_model_json_that_names_no_file(build_dir, tmp_path, description):
    tree = Tree(build_dir / "argosy", tmp_path)
    tree.model("broken", description)
    done = run_up(tree.argosy, "--model", "broken")
    assert done.returncode == 1 and 'names no "file"' in done.stderr


@pytest.mark.parametrize("model", ["", "..", "a b", "/nowhere/x.gguf", "/tmp/", "a=", "x" * 200])
def test_up_refuses_a_model_that_cannot_be(build_dir, tmp_path, model):
    tree = Tree(build_dir / "argosy", tmp_path)
    done = run_up(tree.argosy, "--model", model)
    assert done.returncode == 1 and done.stderr.startswith("argosy: ")


def test_up_refuses_a_folder_that_is_no_model(build_dir, tmp_path):
    tree = Tree(build_dir / "argosy", tmp_path)
    (tmp_path / "folder").mkdir()
    done = run_up(tree.argosy, "--model", f"{tmp_path}/folder/")
    assert done.returncode == 1 and "is no model: config.json: No such file" in done.stderr


@pytest.mark.parametrize("args", ["--workers=0", "--workers=x", "--port=65536", "--threads=0", "x"])
def test_up_refuses_bad_options(build_dir, args):
    assert run_up(build_dir / "argosy", args).returncode == 64


def test_argosy_lists_its_commands(build_dir):
    done = subprocess.run([build_dir / "argosy", "help"], capture_output=True, text=True)
    assert done.returncode == 0 and "up" in done.stdout and "chat" in done.stdout
    bad = subprocess.run([build_dir / "argosy", "sail"], capture_output=True, text=True)
    assert bad.returncode == 2 and "no command 'sail'" in bad.stderr


SAYS = "import sys, time\nprint('argv', *sys.argv[1:], flush=True)\ntime.sleep(600)\n"


def said_argv(cluster, who):
    def look():
        lines = cluster.err.read_text().splitlines()
        return [s.split(" argv ")[1].split() for s in lines if s.startswith(f"{who} | argv ")]

    return wait_until(look, 5, f"{who} speaks")[0]


def test_up_tells_its_children_what_was_asked_for(start):
    args = ["--threads", "3", "--redis", "redis://127.0.0.1:7/1", "--rpc-listen", "127.0.0.1:7777"]
    cluster = start(worker=SAYS, args=["--host", "0.0.0.0", *args])
    cluster.wait_ready()
    worker = said_argv(cluster, "worker 1")
    assert worker[:4] == ["--routers", "127.0.0.1:7777", "--id", "local-1"]
    assert worker[4] == "--model" and worker[5].startswith("tiny=/")
    assert worker[6:] == ["--threads", "3"]
    router = said_argv(cluster, "router")
    assert router[router.index("--listen") + 1] == f"0.0.0.0:{cluster.port}"
    assert router[-2:] == ["--redis", "redis://127.0.0.1:7/1"]
    # Router and worker alone: no Redis of our own.
    assert len(children_of(cluster.process.pid)) == 2


def test_up_shares_the_cores_out(start):
    cluster = start(worker=SAYS, workers=2)
    cluster.wait_ready()
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    for who in ("worker 1", "worker 2"):
        assert said_argv(cluster, who)[-2:] == ["--threads", str(share)]


def test_up_serves_a_file_under_a_name(start, tmp_path):
    file = tmp_path / "w.gguf"
    file.write_bytes(b"GGUF")
    cluster = start(worker=SAYS, args=["--model", f"mine={file}"])
    cluster.wait_ready()
    assert f"mine={file}" in said_argv(cluster, "worker 1")


def test_up_serves_several_models(start, tmp_path):
    file = tmp_path / "w.gguf"
    file.write_bytes(b"GGUF")
    cluster = start(worker=SAYS, args=["--model", f"mine={file}", "--memory", "2G"])
    cluster.wait_ready()
    assert "starting tiny, mine: " in cluster.err.read_text()
    for who, option in (("worker 1", "--model"), ("router", "--models")):
        argv = said_argv(cluster, who)
        models = [value for key, value in zip(argv, argv[1:]) if key == option]
        assert [m.split("=")[0] for m in models] == ["tiny", "mine"]
    argv = said_argv(cluster, "worker 1")
    assert argv[argv.index("--memory") + 1] == "2G"


def test_up_refuses_two_models_of_one_name(build_dir, tmp_path):
    tree = Tree(build_dir / "argosy", tmp_path)
    done = run_up(tree.argosy, "--model", "tiny", "--model", "tiny")
    assert done.returncode == 1 and "two models are called tiny" in done.stderr


@pytest.mark.parametrize("host", ["localhost", "300.1.1.1", ""])
def test_up_refuses_a_host_that_is_no_address(build_dir, tmp_path, host):
    done = run_up(Tree(build_dir / "argosy", tmp_path).argosy, "--model", "tiny", "--host", host)
    assert done.returncode == 1 and "--host is an IP address" in done.stderr


def test_up_refuses_an_rpc_port_that_workers_cannot_know(build_dir, tmp_path):
    argosy = Tree(build_dir / "argosy", tmp_path).argosy
    done = run_up(argosy, "--model", "tiny", "--rpc-listen", "127.0.0.1:0")
    assert done.returncode == 1 and "--rpc-listen needs a port" in done.stderr
