"""Streams of answers by hash workers, read raw, with the time of each piece; and what they must be."""

import asyncio
import json
import time

from benchmarks.hash_worker.hash_tokens import first_wrong, text_of

TIMEOUT_S = 100


class Broken(Exception):
    """The stream ended without its last word."""


class Stream:
    """One request. `wish` is what it asks for beyond tokens: plain, logprobs, n2, stop, whole."""

    def __init__(self, port, prompt, seed, n, wish="plain"):
        self.port, self.prompt, self.seed, self.n, self.wish = port, prompt, seed, n, wish
        self.worker = None  # as the header says: who gave the first token
        self.texts = ["", ""]
        self.reasons = [None, None]
        self.logprobs = []
        self.times = []
        self.started = time.monotonic()
        self.ended = None
        self.done = False
        self.error = None
        self.status = None
        self.grown = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    @property
    def text(self):
        return self.texts[0]

    def _body(self):
        body = {"model": "m", "prompt": self.prompt, "seed": self.seed, "max_tokens": self.n}
        body.update(stream=self.wish != "whole", temperature=0.8)
        if self.wish == "logprobs":
            body["logprobs"] = 2
        if self.wish == "n2":
            body["n"] = 2
        if self.wish == "stop":
            body["stop"] = [self.expected_all()[self.n // 2 : self.n // 2 + 3]]
        return json.dumps(body).encode()

    def expected_all(self):
        return text_of(self.prompt, self.seed, self.n)

    async def _run(self):
        try:
            await asyncio.wait_for(self._talk(), TIMEOUT_S)
        finally:
            self.ended = time.monotonic()
            self.grown.set()

    async def _talk(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            body = self._body()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            await self._head(reader)
            if self.wish == "whole" or self.status != 200:
                self._whole((await self._chunks_of(reader, True)).decode())
                return
            rest = b""
            async for piece in self._chunks(reader):
                rest += piece
                while b"\n\n" in rest:
                    event, rest = rest.split(b"\n\n", 1)
                    self._event(event.decode())
        except (ConnectionError, asyncio.IncompleteReadError) as e:
            raise Broken(f"{type(e).__name__} after {len(self.text)} tokens") from e
        finally:
            writer.close()

    async def _head(self, reader):
        self.status = int((await reader.readuntil(b"\r\n")).split()[1])
        self.headers = {}
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode().partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.worker = self.headers.get("x-argosy-worker")

    async def _chunks(self, reader):
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            while piece := await reader.read(65536):
                yield piece
            return
        while n := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(n + 2))[:-2]

    async def _chunks_of(self, reader, whole):
        return b"".join([piece async for piece in self._chunks(reader)])

    def _whole(self, text):
        value = json.loads(text)
        if self.status != 200 or "error" in value:
            self.error = value.get("error", value)
            return
        self.texts[0] = value["choices"][0]["text"]
        self.reasons[0] = value["choices"][0]["finish_reason"]
        self.times.append(time.monotonic())
        self.done = True

    def _event(self, event):
        assert event.startswith("data: "), event
        assert not self.done and not self.error, "an event behind the last one"
        if event == "data: [DONE]":
            self.done = True
            return
        value = json.loads(event[6:])
        if "error" in value:
            self.error = value["error"]
            return
        for choice in value["choices"]:
            i = choice["index"]
            self.texts[i] += choice["text"]
            self.reasons[i] = choice["finish_reason"] or self.reasons[i]
            if choice.get("logprobs"):
                self.logprobs += choice["logprobs"]["token_logprobs"]
        self.times.append(time.monotonic())
        self.grown.set()

    async def until(self, n):
        """n tokens are there, or it has ended."""
        while len(self.text) < n and self.ended is None:
            self.grown.clear()
            await asyncio.wait_for(self.grown.wait(), TIMEOUT_S)

    def check_prefix(self):
        """What came is right as far as it goes."""
        assert self.expected_all().startswith(self.text), (
            f"changed at {next(i for i, c in enumerate(self.text) if self.expected_all()[i : i + 1] != c)}"
        )

    def check(self):
        """All of it came, and nothing else."""
        assert self.error is None, f"an error: {self.error}"
        assert self.done, f"{len(self.text)} tokens without [DONE]"
        expected, reason = self.expected_all(), "length"
        if self.wish == "stop":
            stop = expected[self.n // 2 : self.n // 2 + 3]
            expected, reason = expected[: expected.index(stop)], "stop"
        assert self.text == expected, self.difference(expected)
        assert self.reasons[0] == reason, f"finish_reason {self.reasons[0]}"
        if self.wish == "logprobs":
            assert len(self.logprobs) == self.n, f"{len(self.logprobs)} logprobs of {self.n}"
        if self.wish == "n2":
            assert len(self.texts[1]) == self.n and self.texts[1] != self.texts[0]
            assert first_wrong(self.texts[1]) is None, f"second choice: {first_wrong(self.texts[1])}"

    def difference(self, expected):
        at = next((i for i, (a, b) in enumerate(zip(self.text, expected)) if a != b), -1)
        return f"{len(self.text)} of {len(expected)} tokens, first difference at {at}"

    def gap_after(self, when):
        """The longest time without a token that ended after `when`; before the first token, from there on."""
        times = [max(self.started, when), *self.times]
        return max((b - a for a, b in zip(times, times[1:]) if b >= when), default=0.0)
