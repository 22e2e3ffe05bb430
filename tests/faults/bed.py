"""A small cluster to break, and one trial on it: streams that run while something is done to it."""

import asyncio
import time

from tests.faults.parts import HashWorker, Proxy, Redis, Router, until
from tests.faults.streams import Broken, Stream

VOCAB = 40000
WISHES = ("plain", "plain", "logprobs", "n2", "stop", "whole")


class Bed:
    """A router and its workers; what dies is replaced under another name before the next trial."""

    def __init__(self, folder, workers=2, proxied=False, redis=False, router=(), worker=(), routers=1):
        self.folder, self.n, self.proxied, self.with_redis = folder, workers, proxied, redis
        self.router_options, self.worker_options, self.n_routers = list(router), list(worker), routers
        self.workers, self.proxies, self.extra = {}, {}, []
        self.redis = self.redis_proxy = self.router = self.other = None
        self.serial = 0

    async def open(self):
        # A worker that starts on a machine that is busy may take its time.
        options = self.router_options = ["--worker-wait", "60s", *self.router_options]
        if self.with_redis:
            self.redis = Redis(self.folder, "redis")
            await self.redis.start()
            self.redis_proxy = Proxy(self.folder, "redis-proxy")
            await self.redis_proxy.start(f"unix:{self.redis.socket}")
            options += ["--redis", f"redis://127.0.0.1:{self.redis_proxy.port}/0", "--redis-timeout", "300ms"]
        self.router = Router(self.folder, "router")
        await self.router.start(*options)
        if self.n_routers > 1:
            self.other = Router(self.folder, "other")
            await self.other.start()

    async def restart_router(self):
        await self.router.end()
        await self.router.start(*self.router_options)

    async def add(self, name=None, options=(), limits=(), wall_s=0):
        self.serial += 1
        name = name or f"w{self.serial}"
        w = HashWorker(self.folder, name)
        port = self.router.rpc
        if self.proxied:
            self.proxies[name] = Proxy(self.folder, f"{name}-proxy-{self.serial}")
            await self.proxies[name].start(f"127.0.0.1:{self.router.rpc}")
            port = self.proxies[name].port
        if wall_s:
            await w.launch("true", env={})  # makes its shim
            await w.process.wait()
            w.shim.wall(wall_s)
        more = ["--routers", f"127.0.0.1:{self.other.rpc}"] if self.other else []
        await w.start(port, *self.worker_options, *options, *more, limits=limits)
        self.workers[name] = w
        return w

    async def drop(self, name):
        if name not in self.workers:
            return
        await self.workers.pop(name).end()
        if name in self.proxies:
            await self.proxies.pop(name).end()

    async def ready(self, n=None):
        """n workers that live, and no others, are attached."""
        if not self.router.alive:
            await self.restart_router()
        for proxy in self.proxies.values():
            await proxy.do("pass")

        async def all_there():
            for name in [name for name, w in self.workers.items() if not w.alive]:
                await self.drop(name)
            while len(self.workers) < (n or self.n):
                await self.add()
            ids = await self.router.worker_ids()
            return {i for i in ids if not i.startswith("crowd")} == set(self.workers)

        await until(all_there, 20, f"workers {sorted(self.workers)} are attached")

    def processes(self):
        parts = [*self.workers.values(), *self.proxies.values(), *self.extra]
        return parts + [p for p in (self.router, self.other, self.redis, self.redis_proxy) if p]

    async def close(self):
        for p in self.processes():
            await p.end()

    def logs(self):
        return "\n".join(p.tail() for p in self.processes())


class Trial:
    """One run of one kind of fault. `hit` marks when it struck."""

    def __init__(self, bed, rng, run):
        self.bed, self.rng, self.run = bed, rng, run
        self.streams = []
        self.hit_at = None
        self.gaps = []

    @property
    def router(self):
        return self.bed.router

    async def begin(self, n=4, tokens=None, prompt=8, wishes=WISHES):
        """The first one is always plain, for `token` and `victim`."""
        for i in range(n):
            ids = [self.rng.randrange(1000, VOCAB) for _ in range(prompt)]
            size = tokens or self.rng.randrange(30, 90)
            wish = "plain" if i == 0 else self.rng.choice(wishes)
            self.streams.append(Stream(self.router.port, ids, self.rng.randrange(1 << 40), size, wish))

    async def token(self, k=None):
        """Until the first stream has k tokens; returns k."""
        first = self.streams[0]
        k = self.rng.randrange(1, first.n) if k is None else k
        await first.until(k)
        return k

    def victim(self):
        """Who runs the first stream."""
        name = self.streams[0].worker
        return self.bed.workers.get(name) or self.rng.choice(list(self.bed.workers.values()))

    def hit(self):
        self.hit_at = time.monotonic()

    async def kill(self, worker):
        self.hit()
        await worker.end()

    async def over(self):
        return await asyncio.gather(*(s.task for s in self.streams), return_exceptions=True)

    async def finish(self):
        """All streams are whole."""
        results = await self.over()
        for s, result in zip(self.streams, results):
            if isinstance(result, BaseException):
                raise AssertionError(f"{s.wish} stream: {type(result).__name__} {result}") from result
            try:
                s.check()
            except AssertionError as e:
                raise AssertionError(f"{s.wish} stream at {s.worker}: {e}") from e
            if self.hit_at is not None and s.ended > self.hit_at and s.wish != "whole":
                self.gaps.append(s.gap_after(self.hit_at))
        self.streams = []

    async def finish_or_cut(self):
        """The router itself was hit: whole, or a true beginning without [DONE]."""
        for s, result in zip(self.streams, await self.over()):
            if not isinstance(result, BaseException) and s.done:
                s.check()
                continue
            assert result is None or isinstance(result, (Broken, OSError, ValueError)), repr(result)
            assert not s.done
            if s.wish != "stop":
                s.check_prefix()
        self.streams = []

    async def again(self):
        """A few more streams: what was hit serves as before."""
        await self.begin(3)
        await self.finish()

    async def release(self):
        for s in self.streams:
            s.task.cancel()
        await self.over()
