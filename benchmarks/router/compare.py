#!/usr/bin/env python3
"""Our router beside nginx, HAProxy, smg, sglang-router and vllm-router: `make bench-router`.

All stand in front of a server that answers as cheaply as possible: theirs over HTTP
(http_backend.c), ours over its own wire (hash_worker). Each scenario runs through all of them in
turn, as often as --rounds says; what is printed is the median. CPU is that of the router's process
and its children, by their CPU clocks.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/release"
PEERS = ROOT / "build/peers"
START_S = 40

SYSTEM = "You are a helpful assistant."
QUESTION = "Why is the sky blue, and why are sunsets red?"


def body(max_tokens, stream=False, pace_us=0):
    # The pace stands in the prompt: some routers drop the fields that they do not know.
    question = f"{QUESTION} @pace {pace_us}" if pace_us else QUESTION
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    fields = {"model": "m", "messages": messages, "max_tokens": max_tokens, "seed": 7}
    if stream:
        fields["stream"] = True
    return json.dumps(fields, separators=(",", ":"))


# What is asked, what the load is told, how our worker steps, and how many of the answers there are.
SCENARIOS = {
    "json": {
        "title": "JSON answers, 32 connections",
        "body": body(16),
        "load": {"connections": 32, "tokens": 16},
        "requests": 4000,
        "worker": {"step-us": 0, "step-tokens": 16},
    },
    "rate": {
        "title": "JSON answers, 1,000 a second",
        "body": body(16),
        "load": {"connections": 64, "tokens": 16, "rate": 1000},
        "requests": 2000,
        "worker": {"step-us": 0, "step-tokens": 16},
    },
    "burst": {
        "title": "streams of 64 tokens at once, 32 connections",
        "body": body(64, stream=True),
        "load": {"connections": 32, "tokens": 64},
        "requests": 1500,
        "worker": {"step-us": 0, "step-tokens": 1},
    },
    "paced256": {
        "title": "256 streams of 64 tokens, 5 ms apart",
        "body": body(64, stream=True, pace_us=5000),
        "load": {"connections": 256, "tokens": 64},
        "requests": 1024,
        "worker": {"step-us": 5000, "step-tokens": 1},
    },
    "paced4000": {
        "title": "4,000 streams of 64 tokens, 5 ms apart",
        "body": body(64, stream=True, pace_us=5000),
        "load": {"connections": 4000, "tokens": 64},
        "requests": 4000,
        "worker": {"step-us": 5000, "step-tokens": 1, "sequences-max": 4096},
    },
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answers(port):
    """Whether a chat answer comes through: the only sign of readiness that all of them have."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/v1/chat/completions", body(16), {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait_until(condition, what, process=None):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process and process.poll() is not None:
            raise RuntimeError(f"{what}: it ended with status {process.returncode}")
        if condition():
            return
        time.sleep(0.05)
    raise RuntimeError(f"not within {START_S} s: {what}")


def tree_of(pid):
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree_of(int(child))
    return found


def cpu_ms(pids):
    """All threads, those that have ended too: the process's CPU clock (clock_getcpuclockid)."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids) / 1e6


def rss_mb(pids):
    kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                kb += int(line.split()[1])
    return kb / 1024


class Process:
    def __init__(self, command, log, env=None):
        self.log = log
        self.process = subprocess.Popen(
            [str(c) for c in command],
            stdin=subprocess.DEVNULL,
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.process.pid

    def stop(self):
        """It and what it started, by process id."""
        pids = tree_of(self.pid) if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in pids[1:]:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass


# ---- who is measured ------------------------------------------------------------------------------


class Contender:
    """A router (or none) that listens on `port`. `why_not`: what kept it from being there."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder
        self.port = free_port()
        self.process = None
        self.why_not = None

    def start(self):
        self.process = Process(self.command(), self.folder / f"{self.name}.log", self.env())
        wait_until(lambda: answers(self.port), f"{self.name} answers", self.process.process)

    def env(self):
        return {}

    def prepare(self, scenario):
        pass

    def finish(self):
        pass

    def stop(self):
        if self.process:
            self.process.stop()


class Direct(Contender):
    """The backend without a router: what latencies are compared with."""

    def command(self):
        return [BUILD / "benchmarks/router/http_backend", self.port]


class Peer(Contender):
    def __init__(self, name, folder, backend_port):
        super().__init__(name, folder)
        self.backend = f"127.0.0.1:{backend_port}"


class Rust(Peer):
    """smg and its relatives: cache_aware, their default; nothing but errors is logged."""

    def command(self):
        launch = [] if self.name == "vllm-router" else ["launch"]
        return [
            *(PEERS / self.name / "bin" / self.name, *launch),
            *("--host", "127.0.0.1", "--port", self.port),
            *("--worker-urls", f"http://{self.backend}", "--policy", "cache_aware"),
            *("--log-level", "error", "--prometheus-port", free_port()),
            *("--max-concurrent-requests", 8192, "--queue-size", 8192),
        ]


class Nginx(Peer):
    def command(self):
        config = self.folder / "nginx.conf"
        config.write_text(f"""
daemon off; master_process off; worker_processes 1; pid {self.folder}/nginx.pid;
error_log stderr error; worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
  fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  keepalive_requests 100000;
  upstream b {{ server {self.backend}; keepalive 512; keepalive_requests 100000; }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; }}
  }}
}}
""")
        return [PEERS / "debian/usr/sbin/nginx", "-e", "stderr", "-p", self.folder, "-c", config]


class Haproxy(Peer):
    def command(self):
        config = self.folder / "haproxy.cfg"
        config.write_text(f"""
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{self.port} backlog 4096
  default_backend b
backend b
  balance leastconn
  server s {self.backend}
""")
        return [PEERS / "debian/usr/sbin/haproxy", "-db", "-f", config]

    def env(self):
        return {"LD_LIBRARY_PATH": str(PEERS / "debian/usr/lib/x86_64-linux-gnu")}


class Ours(Contender):
    def __init__(self, name, folder, model, router, options=()):
        super().__init__(name, folder)
        self.model = f"m={model}"
        self.router = router
        self.options = options
        self.rpc = f"unix:{folder}/{name}.sock"
        self.worker = None

    def command(self):
        return [
            *(self.router, "--listen", f"127.0.0.1:{self.port}", "--rpc-listen", self.rpc),
            *("--models", self.model, "--connections-max", 12000, "--client-connections-max", 12000),
            *("--worker-queue-max", 4096),
            *("--log-level", "error", *self.options),
        ]

    def start(self):
        self.process = Process(self.command(), self.folder / f"{self.name}.log")
        wait_until(self.listens, f"{self.name} listens", self.process.process)

    def listens(self):
        try:
            return get(self.port, "/health")[0] == 200
        except OSError:
            return False

    def is_ready(self, wanted):
        return get(self.port, "/ready")[0] == (200 if wanted else 503)

    def prepare(self, scenario, workers=1):
        """A worker of the scenario's kind."""
        self.finish()
        options = [f"--{k}={v}" for k, v in scenario["worker"].items()]
        self.worker = Process(
            [
                *(BUILD / "benchmarks/hash_worker/hash_worker", "--model", self.model),
                *("--routers", self.rpc, "--workers", workers, "--waiting-max", 4096),
                *("--kv-pages", 1 << 20, *options),
            ],
            self.folder / "hash_worker.log",
        )
        wait_until(lambda: self.is_ready(True), "a worker is attached", self.worker.process)

    def finish(self):
        if self.worker:
            self.worker.stop()
            self.worker = None
            wait_until(lambda: self.is_ready(False), "the worker is gone")

    def stop(self):
        if self.worker:
            self.worker.stop()
        super().stop()


# ---- measuring ------------------------------------------------------------------------------------


def run_load(port, scenario, scale=1.0):
    requests = max(int(scenario["requests"] * scale), scenario["load"]["connections"])
    options = [f"{k}={v}" for k, v in scenario["load"].items()]
    command = [BUILD / "benchmarks/router/load", f"127.0.0.1:{port}", scenario["body"]]
    done = subprocess.run(
        [*map(str, command), f"requests={requests}", *options],
        capture_output=True,
        text=True,
        timeout=180,
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"load: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    if result["bad"]:
        print(f"  wrong: {done.stderr.strip()}", flush=True)
    return result


def measure(contender, scenario, scale):
    contender.prepare(scenario)
    run_load(contender.port, {**scenario, "requests": 1})  # each connection asks once
    pids = tree_of(contender.process.pid)
    before = cpu_ms(pids)
    result = run_load(contender.port, scenario, scale)
    result["cpu_ms"] = cpu_ms(pids) - before
    result["rss_mb"] = rss_mb(pids)
    result["per_1000_ms"] = result["cpu_ms"] * 1000 / result["done"]
    result["per_s"] = result["done"] / result["seconds"]
    contender.finish()
    return result


def run_rounds(contenders, name, rounds, scale):
    scenario = SCENARIOS[name]
    results = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for c in contenders:
            if c.why_not:
                continue
            try:
                results[c.name].append(measure(c, scenario, scale))
            except (RuntimeError, subprocess.TimeoutExpired, OSError) as e:
                c.why_not = f"{name}: {e}"
                print(f"  {c.name} left out: {e}", flush=True)
    return results


def median(results, key):
    return statistics.median(r[key] for r in results)


def print_table(name, results, contenders):
    base = {k: median(results["direct"], k) for k in ("p50_us", "p99_us")}
    print(f"\n{SCENARIOS[name]['title']} (load {os.getloadavg()[0]:.1f})\n")
    print("| | requests/s | CPU ms per 1,000 | p50, p99 µs | added p50, p99 µs | RSS MB | wrong |")
    print("|---|---|---|---|---|---|---|")
    for c in contenders:
        rs = results[c.name]
        if not rs:
            print(f"| {c.name} | {c.why_not or 'not run'} | | | | | |")
            continue
        p50, p99 = median(rs, "p50_us"), median(rs, "p99_us")
        lowest = min(r["per_1000_ms"] for r in rs)
        print(
            f"| {c.name} | {median(rs, 'per_s'):,.0f} "
            f"| {median(rs, 'per_1000_ms'):,.0f} (least {lowest:,.0f}) | {p50:,.0f}, {p99:,.0f} "
            f"| {p50 - base['p50_us']:,.0f}, {p99 - base['p99_us']:,.0f} "
            f"| {median(rs, 'rss_mb'):,.0f} | {sum(r['bad'] for r in rs)} |"
        )
    print(flush=True)


def measure_idle(ours, streams):
    """Memory of a stream that waits for its next token, over what the router had before."""
    scenario = {
        "body": body(64, stream=True),
        "load": {"connections": streams, "tokens": 64, "hold": 1},
        "worker": {"step-us": 3000000, "sequences-max": 4096},
    }
    ours.prepare(scenario, workers=-(-streams // 4000))
    before = rss_mb([ours.process.pid])
    options = [f"{k}={v}" for k, v in scenario["load"].items()]
    command = [BUILD / "benchmarks/router/load", f"127.0.0.1:{ours.port}", scenario["body"]]
    load = subprocess.Popen(
        [*map(str, command), f"requests={streams}", *options], stdout=subprocess.PIPE, text=True
    )
    said = load.stdout.readline().strip()
    after = rss_mb([ours.process.pid])
    load.wait(30)
    ours.finish()
    if said != "holding":
        return f"failed: {said}"
    return f"{(after - before) * 1024 / streams:.1f} KB each ({before:.0f} MB before, {after:.0f} MB with {streams:,})"


def make_contenders(folder, args):
    direct = Direct("direct", folder)
    peers = {"nginx": Nginx, "haproxy": Haproxy, "smg": Rust, "sglang-router": Rust, "vllm-router": Rust}
    found = [direct, Ours("argosy", folder, args.model, BUILD / "argosy-router")]
    if args.other:
        found.append(Ours("other", folder, args.model, Path(args.other)))
    for name in args.peers.split(",") if args.peers else []:
        peer = peers[name](name, folder, direct.port)
        if isinstance(peer, Rust) and not (PEERS / name / "bin" / name).exists():
            peer.why_not = "no wheel for this machine"
        elif not isinstance(peer, Rust) and not (PEERS / "debian/usr/sbin" / name).exists():
            peer.why_not = "no package for this machine"
        found.append(peer)
    return found


def start_all(contenders):
    for c in contenders:
        try:
            if not c.why_not:
                c.start()
        except (RuntimeError, OSError) as e:
            c.why_not = str(e)
            print(f"{c.name} left out: {e} (its words are in {c.folder})", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", required=True, help="a GGUF file: its vocabulary and manifest count")
    p.add_argument("--scenarios", default=",".join(SCENARIOS))
    p.add_argument("--peers", default="nginx,haproxy,smg,sglang-router,vllm-router")
    p.add_argument("--other", help="another build of our router, measured too")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--scale", type=float, default=1.0, help="of the number of requests")
    p.add_argument(
        "--raise-priority",
        action="store_true",
        help="run all of it before others (root): for latencies on a machine that is shared",
    )
    p.add_argument("--idle", type=int, default=10000, help="idle streams; 0: none")
    args = p.parse_args()
    if args.raise_priority:
        os.nice(-15)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with us
    folder = Path(tempfile.mkdtemp(prefix="bench-router-"))
    contenders = make_contenders(folder, args)
    try:
        start_all(contenders)
        for name in args.scenarios.split(",") if args.scenarios else []:
            print_table(name, run_rounds(contenders, name, args.rounds, args.scale), contenders)
        if args.idle:
            for c in contenders:
                if isinstance(c, Ours):
                    print(f"{args.idle:,} idle streams, {c.name}: {measure_idle(c, args.idle)}")
    finally:
        for c in contenders:
            c.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
