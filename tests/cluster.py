"""A cluster as a user gets it: `argosy up` in a process of its own, on a free port.

Everything is found through /proc and ended by process id; nothing by name."""

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path

START_S = 120
END_S = 20
# What a build with a sanitizer prints when it finds something.
SANITIZERS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:")


def children_of(pid):
    """Process ids of the children of a process, whichever of its threads made them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(p) for p in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def rss_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def wait_until(condition, timeout_s, what):
    """The first true value of condition(); an assertion when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Stream:
    """The events of one streamed answer, as text. `done`: [DONE] came."""

    def __init__(self, port, body, timeout_s=60):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        self.connection.request("POST", "/v1/chat/completions", json.dumps(body))
        self.response = self.connection.getresponse()
        self.headers = self.response.headers
        self.done = False
        assert self.response.status == 200, self.response.read()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.connection.close()
        self.response.close()

    def __iter__(self):
        return self

    def __next__(self):
        for line in self.response:
            if line == b"data: [DONE]\n":
                self.done = True
            elif line.startswith(b"data: "):
                return line[6:].decode()
        raise StopIteration

    def texts(self):
        """The pieces of text; an error in the stream is an AssertionError."""
        for event in self:
            event = json.loads(event)
            assert "error" not in event, event
            for choice in event["choices"]:
                if choice["delta"].get("content"):
                    yield choice["delta"]["content"]


class Cluster:
    """`argosy up` and what it started. Its output goes to files in `folder`."""

    def __init__(self, argosy, folder, workers=1, model="smollm2-135m", port=0, args=()):
        self.folder = folder
        # Its sockets go below here: what is left over after the end can be seen.
        self.tmp = folder / "tmp"
        self.tmp.mkdir(exist_ok=True)
        self.out = folder / "up.out"
        self.err = folder / "up.err"
        self.model = model
        self.port = None
        command = [argosy, "up", "--model", model, "--workers", workers, "--port", port]
        command += ["--verbose", *args]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [str(c) for c in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": str(self.tmp)},
            )

    @property
    def url(self):
        """Of the OpenAI API, for openai.OpenAI(base_url=…)."""
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_ready(self):
        def endpoint():
            if self.process.poll() is not None:
                raise AssertionError(f"argosy up ended:\n{self.err.read_text()}")
            line = next((s for s in self.out.read_text().splitlines() if s[:8] == "Endpoint"), None)
            return line and line.split()[1]

        url = wait_until(endpoint, START_S, "the endpoint is printed")
        self.port = int(url.split(":")[2].split("/")[0])

    def pids(self, program):
        """Of the children that run `program`: "argosy-worker", "argosy-router", "redis-server"."""
        found = []
        for pid in children_of(self.process.pid):
            command = command_of(pid)
            if command and Path(command[0].split()[0]).name == program:
                found.append(pid)
        return sorted(found)

    def pid(self, program):
        return self.pids(program)[0]

    def request(self, method, path, body=None, timeout_s=60):
        """(status, body as text) from a path below the root."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def body(self, prompt, **fields):
        system = {"role": "system", "content": "You are a helpful assistant."}
        messages = [system, {"role": "user", "content": prompt}]
        return {
            **{"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 16},
            **fields,
        }

    def stream(self, prompt, **fields):
        """A Stream of one answer, greedy."""
        return Stream(self.port, self.body(prompt, stream=True, **fields))

    def ask(self, prompt, **fields):
        """The text of one answer, greedy."""
        status, text = self.request("POST", "/v1/chat/completions", self.body(prompt, **fields))
        assert status == 200, text
        return json.loads(text)["choices"][0]["message"]["content"]

    def stop(self, sig=signal.SIGINT):
        """Ends it as Ctrl-C does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            # Its children die with it: each asked the kernel for that.
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"argosy up did not end within {END_S} s")
        said = self.err.read_text(errors="replace")
        assert not any(word in said for word in SANITIZERS), said
        return status
