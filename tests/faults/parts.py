"""The processes under test, each ended by its own id, and what is done to them."""

import asyncio
import ctypes
import mmap
import os
import re
import resource
import signal
import socket
import struct
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / os.environ.get("ARGOSY_BUILD", "release")
MODEL = ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
START_S = 30
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


async def until(condition, timeout_s, what):
    """The first true value of condition(), which may be a coroutine function."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


class Shim:
    """The numbers of tests/faults/shim.c, in a file of their own."""

    def __init__(self, folder, name):
        self.path = folder / f"{name}.shim"
        self.path.write_bytes(bytes(4096))
        with self.path.open("r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)

    def set(self, place, value):
        self.map[place * 8 : place * 8 + 8] = struct.pack("<q", value)

    def wall(self, seconds):
        self.set(0, int(seconds * 1e9))

    def slower(self, times):
        self.set(1, times)

    def failing(self, one_in, seed=0):
        self.set(3, seed)
        self.set(2, one_in)

    def env(self):
        return {"LD_PRELOAD": str(BUILD / "tests/faults/shim.so"), "ARGOSY_SHIM": str(self.path)}


class Part:
    """One process. Its output is in `folder`/NAME.log."""

    def __init__(self, folder, name):
        self.name, self.folder = name, folder
        self.log = folder / f"{name}.log"
        self.process = None
        self.shim = None

    async def launch(self, *command, limits=(), stdin=None, stdout=None, env=None):
        parent = os.getpid()

        def prepare():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for what, value in limits:
                resource.setrlimit(what, (value, value))

        self.shim = self.shim or Shim(self.folder, self.name)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(str(c) for c in command),
                stdin=stdin or asyncio.subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                env={**os.environ, **(env or {}), **(self.shim.env() if env is None else {})},
                preexec_fn=prepare,
                cwd=ROOT,
            )

    @property
    def pid(self):
        return self.process.pid

    @property
    def alive(self):
        return self.process is not None and self.process.returncode is None

    def send(self, sig):
        if self.alive:
            self.process.send_signal(sig)

    async def end(self, sig=signal.SIGKILL, timeout_s=15):
        if self.alive:
            self.send(signal.SIGCONT)
            self.send(sig)
            try:
                await asyncio.wait_for(self.process.wait(), timeout_s)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
                raise AssertionError(f"{self.name} did not end within {timeout_s} s") from None

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, n=12):
        return "\n".join(f"    {self.name}: {line}" for line in self.said().splitlines()[-n:])


class Router(Part):
    async def start(self, *options, limits=()):
        had = len(self.said())
        ports = (self.port, self.rpc) if self.process else (0, 0)
        await self.launch(
            BUILD / "argosy-router", "--models", f"m={MODEL}", "--log-level", "info",
            "--listen", f"127.0.0.1:{ports[0]}", "--rpc-listen", f"127.0.0.1:{ports[1]}", *options,
            limits=limits,
        )  # fmt: skip

        def up():
            assert self.alive, f"the router ended:\n{self.tail()}"
            return re.search(r"router is up http=\S+ port=(\d+) workers=\S+:(\d+)", self.said()[had:])

        found = await until(up, START_S, "the router is up")
        self.port, self.rpc = int(found[1]), int(found[2])

    async def get(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return (await asyncio.wait_for(reader.read(), 10)).decode()
        finally:
            writer.close()

    async def number(self, name):
        found = re.search(rf"^{name} (\S+)$", await self.get("/metrics"), re.M)
        return float(found[1])

    async def worker_ids(self):
        return set(re.findall(r'argosy_worker_running\{worker="([^"]+)"', await self.get("/metrics")))


class HashWorker(Part):
    async def start(self, rpc, *options, limits=()):
        await self.launch(
            BUILD / "benchmarks/hash_worker/hash_worker", "--model", f"m={MODEL}",
            "--routers", f"127.0.0.1:{rpc}", "--id", self.name, "--log-level", "info",
            "--backoff-min", "20ms", "--backoff-max", "300ms", *options,
            limits=limits,
        )  # fmt: skip


class Proxy(Part):
    async def start(self, target):
        await self.launch(
            BUILD / "tests/faults/proxy", target, env={},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.port = int((await self.process.stdout.readline()).split()[1])

    async def do(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        answer = (await asyncio.wait_for(self.process.stdout.readline(), 10)).split()
        assert answer and answer[0] == b"ok", f"{line}: {answer}"
        return int(answer[1]) if len(answer) > 1 else None


class Redis(Part):
    async def start(self):
        self.socket = self.folder / f"{self.name}.sock"
        await self.launch(
            "redis-server", "--port", 0, "--unixsocket", self.socket, "--save", "", "--appendonly", "no",
            "--dir", self.folder, env={},
        )  # fmt: skip

        def answers():
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(str(self.socket))
                    s.sendall(b"PING\r\n")
                    return s.recv(7) == b"+PONG\r\n"
            except OSError:
                return False

        await until(answers, START_S, "Redis answers")

    def command(self, *words):
        """Sent, not waited for."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.socket))
            s.sendall((" ".join(str(w) for w in words) + "\r\n").encode())
            s.settimeout(5)
            return s.recv(65536)
