"""The kinds of fault. Each is a function of a trial (bed.py), which begins streams, does something to
the cluster and checks them; its docstring is its name in the table."""

import asyncio
import os
import re
import resource
import signal

from tests.faults.parts import ROOT, HashWorker, Proxy, until

KINDS = {}

# Most tests of lateness do not wait for the default of 5 s.
HASTY = ("--token-timeout", "400ms")
SLOW_PROMPTS = ("--prefill-rate", "500")


def kind(**bed):
    def add(fn):
        KINDS[fn.__name__] = (fn, bed)
        return fn

    return add


# ---- a worker dies ------------------------------------------------------------------------------


@kind(worker=SLOW_PROMPTS)
async def kill_before_first_token(t):
    """kill -9 before the first token"""
    await t.begin(prompt=20)
    await asyncio.sleep(t.rng.uniform(0, 0.1))
    await t.kill(t.rng.choice(list(t.bed.workers.values())))
    await t.finish()


@kind()
async def kill_at_token(t):
    """kill -9 at token k, every k in turn"""
    await t.begin(tokens=50)
    await t.token(1 + t.run % 49)
    await t.kill(t.victim())
    await t.finish()


@kind()
async def kill_at_last_token(t):
    """kill -9 at the last token but one"""
    await t.begin(tokens=40)
    await t.token(39)
    await t.kill(t.victim())
    await t.finish()


@kind(workers=3)
async def kill_two(t):
    """kill -9, then of the one that took over"""
    await t.begin(tokens=80)
    await t.token(t.rng.randrange(1, 50))
    first = t.victim()
    await t.kill(first)
    await asyncio.sleep(t.rng.uniform(0, 0.05))
    await t.rng.choice([w for w in t.bed.workers.values() if w is not first]).end()
    await t.finish()


@kind()
async def kill_all(t):
    """kill -9 of all, another joins after 0.2 s"""
    await t.begin()
    await t.token()
    await asyncio.gather(*(w.end() for w in t.bed.workers.values()))
    await asyncio.sleep(0.2)
    await t.bed.add()
    await t.finish()


@kind()
async def kill_and_restart(t):
    """kill -9, the same id comes back at once"""
    await t.begin(tokens=80)
    await t.token(t.rng.randrange(1, 70))
    victim = t.victim()
    await t.kill(victim)
    await t.bed.add(victim.name)
    await t.finish()


@kind()
async def kill_many_streams(t):
    """kill -9 under 60 streams"""
    await t.begin(60, tokens=60)
    await t.token(t.rng.randrange(1, 50))
    await t.kill(t.victim())
    await t.finish()


# ---- a worker is there and does not get on --------------------------------------------------------


@kind()
async def stop_and_wake(t):
    """SIGSTOP, wakes when it was left"""
    await t.begin(tokens=60)
    await t.token(t.rng.randrange(1, 55))
    victim = t.victim()
    t.hit()
    victim.send(signal.SIGSTOP)
    await t.over()
    victim.send(signal.SIGCONT)
    await t.finish()
    t.hit_at = None
    await t.again()


@kind()
async def stop_within_lease(t):
    """SIGSTOP for 0.3 s: late frames are welcome"""
    await t.begin(tokens=60)
    await t.token()
    victim = t.victim()
    victim.send(signal.SIGSTOP)
    await asyncio.sleep(0.3)
    victim.send(signal.SIGCONT)
    await t.finish()


@kind()
async def stop_about_a_lease(t):
    """SIGSTOP for about a lease: wakes while it is left"""
    await t.begin(tokens=60)
    await t.token()
    victim = t.victim()
    victim.send(signal.SIGSTOP)
    await asyncio.sleep(t.rng.uniform(0.7, 0.95))
    victim.send(signal.SIGCONT)
    await t.finish()
    await t.again()


@kind(worker=SLOW_PROMPTS)
async def stop_before_first_token(t):
    """SIGSTOP before the first token"""
    victim = t.rng.choice(list(t.bed.workers.values()))
    await t.begin(prompt=20)
    await asyncio.sleep(t.rng.uniform(0, 0.1))
    t.hit()
    victim.send(signal.SIGSTOP)
    await t.over()
    victim.send(signal.SIGCONT)
    await t.finish()


@kind()
async def slow(t):
    """10 times slower from token k on"""
    await t.begin(tokens=30)
    await t.token()
    victim = t.victim()
    victim.shim.slower(10)
    await t.finish()
    victim.shim.slower(1)


@kind(router=HASTY)
async def hang(t):
    """the engine hangs, the process reports (token timeout 0.4 s)"""
    await t.begin(tokens=60)
    await t.token(t.rng.randrange(1, 55))
    victim = t.victim()
    t.hit()
    victim.shim.slower(1000000)
    await t.finish()
    await t.bed.drop(victim.name)


@kind(router=HASTY)
async def hang_and_wake(t):
    """the engine hangs and wakes (token timeout 0.4 s)"""
    await t.begin(tokens=60)
    await t.token(t.rng.randrange(1, 55))
    victim = t.victim()
    t.hit()
    victim.shim.slower(1000000)
    await asyncio.sleep(t.rng.uniform(0.3, 0.6))
    victim.shim.slower(1)
    await t.finish()
    t.hit_at = None
    await t.again()


@kind(router=HASTY)
async def hang_before_first_token(t):
    """hung when requests come (token timeout 0.4 s)"""
    await t.again()  # the router knows the workers' speed
    victim = t.rng.choice(list(t.bed.workers.values()))
    victim.shim.slower(1000000)
    await t.begin()
    await t.finish()
    await t.bed.drop(victim.name)


# ---- draining -------------------------------------------------------------------------------------


@kind(worker=("--drain-timeout", "100ms"))
async def drain(t):
    """SIGTERM, streams are given up after 0.1 s"""
    await t.begin(tokens=80)
    await t.token(t.rng.randrange(1, 60))
    victim = t.victim()
    t.hit()
    victim.send(signal.SIGTERM)
    await t.finish()
    await victim.process.wait()


@kind(workers=2, worker=("--drain-timeout", "100ms"))
async def rolling_upgrade(t):
    """every worker replaced in turn under load"""
    await t.begin(8, tokens=120)
    for name in list(t.bed.workers):
        await t.token(1)
        await t.bed.add()
        t.bed.workers[name].send(signal.SIGTERM)
        await t.bed.workers[name].process.wait()
        await t.bed.drop(name)
        await t.begin(2)
    await t.finish()


@kind(worker=("--drain-timeout", "1s"))
async def drain_then_kill(t):
    """SIGTERM, then kill -9"""
    await t.begin(tokens=80)
    await t.token(t.rng.randrange(1, 60))
    victim = t.victim()
    victim.send(signal.SIGTERM)
    await asyncio.sleep(t.rng.uniform(0, 0.1))
    await t.kill(victim)
    await t.finish()


# ---- the network between a worker and its router ---------------------------------------------------


async def network(t, *commands, tokens=60, after=0):
    """Does it to the first stream's worker in the middle; returns its proxy."""
    await t.begin(tokens=tokens)
    await t.token(t.rng.randrange(1, tokens - 5))
    proxy = t.bed.proxies[t.victim().name]
    t.hit()
    for command in commands:
        await proxy.do(command)
    await asyncio.sleep(after)
    return proxy


@kind(proxied=True)
async def net_latency(t):
    """20 ms each way, from token k on"""
    await network(t, "delay 20")
    await t.finish()


@kind(proxied=True)
async def net_spike(t):
    """0.3 s each way for a while"""
    proxy = await network(t, "delay 300", after=0.2)
    await proxy.do("pass")
    await t.finish()


@kind(proxied=True)
async def net_reset(t):
    """RST"""
    await network(t, "reset")
    await t.finish()


@kind(proxied=True)
async def net_close(t):
    """FIN"""
    await network(t, "close")
    await t.finish()


@kind(proxied=True)
async def net_half_open(t):
    """the router's end closes, the worker never hears"""
    await network(t, "half")
    await t.finish()
    for proxy in t.bed.proxies.values():
        await proxy.do("reset")


@kind(proxied=True)
async def net_cut(t):
    """nothing passes either way"""
    proxy = await network(t, "cut both")
    await t.finish()
    await proxy.do("pass")


@kind(proxied=True)
async def net_cut_up(t):
    """one way: the router hears nothing"""
    proxy = await network(t, "cut up")
    await t.finish()
    await proxy.do("pass")


@kind(proxied=True, router=HASTY)
async def net_cut_down(t):
    """one way: the worker hears nothing (token timeout 0.4 s)"""
    proxy = await network(t, "cut down")
    await t.begin(4)
    await t.over()
    await t.finish()
    await proxy.do("pass")
    await proxy.do("reset")


@kind(proxied=True)
async def net_partition_heals(t):
    """cut for 1 to 1.5 s, then what was under way arrives"""
    proxy = await network(t, "cut both", tokens=80, after=t.rng.uniform(1, 1.5))
    await proxy.do("pass")
    await t.finish()
    t.hit_at = None
    await t.again()


@kind(proxied=True)
async def net_slices(t):
    """frames in pieces of a few bytes"""
    for proxy in t.bed.proxies.values():
        await proxy.do(f"slice {t.rng.randrange(1, 8)}")
    await t.begin()
    await t.finish()


@kind(proxied=True)
async def net_refuse(t):
    """RST, and nobody answers for 0.4 s"""
    proxy = await network(t, "reset", "refuse", after=0.4)
    await proxy.do("pass")
    await t.finish()


@kind(proxied=True, router=("--moves-max", "20"))
async def net_flaps(t):
    """RST again and again, of both (moves-max 20)"""
    await t.begin(tokens=80)
    await t.token(1)
    for _ in range(6):
        await t.rng.choice(list(t.bed.proxies.values())).do("reset")
        await asyncio.sleep(t.rng.uniform(0.02, 0.1))
    await t.finish()


# ---- who says that it is who --------------------------------------------------------------------


@kind()
async def duplicate_id(t):
    """a second process with the id of a worker"""
    await t.begin(tokens=80)
    await t.token(t.rng.randrange(1, 70))
    twin = HashWorker(t.bed.folder, t.victim().name)
    t.bed.extra = [twin]
    await twin.start(t.router.rpc)
    await t.finish()
    await t.again()
    await twin.end()
    await t.bed.drop(twin.name)
    t.bed.extra = []


@kind(proxied=True)
async def replayed_hello(t):
    """the first bytes of an attachment once more"""
    await t.begin(tokens=60)
    await t.token()
    name, proxy = t.rng.choice(list(t.bed.proxies.items()))
    said = len(t.router.said())
    await proxy.do("replay")
    await t.finish()
    refusal = f"worker {name} is attached with epoch"
    await until(lambda: refusal in t.router.said()[said:], 5, "the replay is refused")
    await t.bed.drop(name)


@kind(proxied=True)
async def version_skew(t):
    """a Hello of a later protocol"""
    name = t.rng.choice(list(t.bed.proxies))
    await t.begin(tokens=60)
    await t.token()
    said = len(t.router.said())
    header = (ROOT / "runtime/rpc/rpc.h").read_text()
    ours = int(re.search(r"RPC_PROTOCOL_VERSION (\d+)", header)[1])
    # Field 3, protocol, then field 4.
    await t.bed.proxies[name].do(f"replay 18{ours:02x}22 18{ours + 1:02x}22")
    await t.finish()
    refusal = f"protocol {ours} is spoken here, not {ours + 1}"
    await until(lambda: refusal in t.router.said()[said:], 5, "the version is refused")
    await t.bed.drop(name)


CROWD = int(os.environ.get("FAULTS_CROWD", "1000"))


@kind(router=("--workers-max", "4096"))
async def crowd_rejoins(t):
    """1,000 workers lose the router at once and rejoin"""
    if not hasattr(t.bed, "crowd"):
        t.bed.crowd_proxy = Proxy(t.bed.folder, "crowd-proxy")
        await t.bed.crowd_proxy.start(f"127.0.0.1:{t.router.rpc}")
        t.bed.crowd = HashWorker(t.bed.folder, "crowd")
        t.bed.extra = [t.bed.crowd, t.bed.crowd_proxy]
        await t.bed.crowd.start(t.bed.crowd_proxy.port, "--workers", CROWD, "--heartbeat", "500ms", "--backoff-max", "1s")

    async def all_there():
        return await t.router.number("argosy_workers") >= CROWD

    await until(all_there, 60, "the crowd is attached")
    await t.begin(4, tokens=60)
    await t.token(1)
    t.hit()
    await t.bed.crowd_proxy.do("reset")
    await t.finish()
    await until(all_there, 60, "the crowd is back")


# ---- Redis --------------------------------------------------------------------------------------


@kind(redis=True)
async def redis_killed(t):
    """kill -9, and back"""
    await t.begin(tokens=80)
    await t.token()
    t.hit()
    await t.bed.redis.end()
    await t.begin(2)
    await t.finish()
    await t.bed.redis.start()


@kind(redis=True)
async def redis_stopped(t):
    """SIGSTOP, and on"""
    await t.begin(tokens=80)
    await t.token(1)
    t.hit()
    t.bed.redis.send(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    await t.begin(2)
    await t.finish()
    t.bed.redis.send(signal.SIGCONT)


@kind(redis=True)
async def redis_slow(t):
    """0.2 s late"""
    await t.begin(tokens=80)
    await t.token(1)
    t.hit()
    await t.bed.redis_proxy.do("delay 200")
    await asyncio.sleep(0.3)
    await t.begin(2)
    await t.finish()
    await t.bed.redis_proxy.do("pass")


@kind(redis=True)
async def redis_full(t):
    """out of memory: every write is refused"""
    t.bed.redis.command("CONFIG", "SET", "maxmemory", 1)
    await t.begin(tokens=60)
    await t.token()
    await t.kill(t.victim())
    await t.finish()
    t.bed.redis.command("CONFIG", "SET", "maxmemory", 0)


@kind(redis=True)
async def redis_readonly(t):
    """a replica of nobody: writes are refused"""
    t.bed.redis.command("REPLICAOF", "127.0.0.1", 1)
    await t.begin(tokens=60)
    await t.token()
    await t.kill(t.victim())
    await t.finish()
    t.bed.redis.command("REPLICAOF", "NO", "ONE")


# ---- the router itself --------------------------------------------------------------------------


@kind()
async def router_killed(t):
    """kill -9: streams end without [DONE], all of it true; it comes back"""
    await t.begin()
    await t.token()
    await t.router.end()
    await t.finish_or_cut()
    await t.bed.restart_router()
    await t.bed.ready()
    await t.again()


@kind()
async def router_stopped(t):
    """SIGSTOP for 1.2 s: nobody is blamed"""
    await t.begin(tokens=60)
    await t.token()
    moved = await t.router.number("argosy_moves_total")
    t.router.send(signal.SIGSTOP)
    await asyncio.sleep(1.2)
    t.router.send(signal.SIGCONT)
    await t.finish()
    assert await t.router.number("argosy_moves_total") == moved, "streams moved"


@kind(routers=2)
async def other_router_killed(t):
    """kill -9 of another router with the same workers"""
    await t.begin(tokens=60)
    await t.token()
    t.hit()
    await t.bed.other.end()
    await t.finish()
    await t.bed.other.start()


# ---- resources ----------------------------------------------------------------------------------


def bound(part, what, value):
    """Sets the soft limit of a running process; returns what it was."""
    soft, hard = resource.prlimit(part.pid, what)
    resource.prlimit(part.pid, what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    return soft


def fds_of(part):
    return len(os.listdir(f"/proc/{part.pid}/fd"))


def bytes_of(part):
    with open(f"/proc/{part.pid}/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


@kind(proxied=True)
async def worker_without_fds(t):
    """a worker that has lost its router has no descriptor left for a while"""
    await t.begin(tokens=60)
    await t.token()
    victim = t.victim()
    was = bound(victim, resource.RLIMIT_NOFILE, fds_of(victim))
    t.hit()
    await t.bed.proxies[victim.name].do("reset")
    await t.finish()
    bound(victim, resource.RLIMIT_NOFILE, was)


@kind()
async def router_without_fds(t):
    """60 connections too many for the router's descriptors"""
    await t.begin(tokens=60)
    await t.token(1)
    was = bound(t.router, resource.RLIMIT_NOFILE, fds_of(t.router) + 8)
    crowd = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", t.router.port) for _ in range(60)), return_exceptions=True
    )
    await t.finish()
    for c in crowd:
        if not isinstance(c, BaseException):
            c[1].close()
    bound(t.router, resource.RLIMIT_NOFILE, was)
    await t.again()


@kind()
async def worker_without_memory(t):
    """RLIMIT_AS of a worker is what it has"""
    await t.begin(tokens=60)
    await t.token()
    victim = t.victim()
    bound(victim, resource.RLIMIT_AS, bytes_of(victim))
    t.hit()
    await t.begin(4)
    await t.finish()
    await t.bed.drop(victim.name)


@kind()
async def router_without_memory(t):
    """RLIMIT_AS of the router is what it has: true as far as it goes"""
    await t.begin(tokens=60)
    await t.token()
    was = bound(t.router, resource.RLIMIT_AS, bytes_of(t.router))
    await t.begin(4)
    await t.finish_or_cut()
    if t.router.alive:
        bound(t.router, resource.RLIMIT_AS, was)
    await t.bed.ready()
    await t.again()


@kind()
async def worker_failing_allocations(t):
    """one allocation of a worker in so many fails"""
    await t.begin(tokens=60)
    await t.token(t.rng.randrange(1, 50))
    victim = t.victim()
    t.hit()
    victim.shim.failing(t.rng.choice([20, 200, 2000]), t.rng.randrange(1 << 30))
    await t.finish()
    await t.bed.drop(victim.name)


@kind()
async def router_failing_allocations(t):
    """one allocation of the router in so many fails: true as far as it goes"""
    await t.begin(tokens=60)
    await t.token(t.rng.randrange(1, 50))
    t.router.shim.failing(t.rng.choice([200, 2000, 20000]), t.rng.randrange(1 << 30))
    await t.finish_or_cut()
    t.router.shim.failing(0)
    await t.bed.restart_router()
    await t.bed.ready()
    await t.again()


# ---- clocks -------------------------------------------------------------------------------------


async def worker_clock(t, seconds):
    await t.begin(tokens=60)
    await t.token()
    victim = t.victim()
    victim.shim.wall(seconds)
    await t.bed.proxies[victim.name].do("reset")
    await t.finish()
    await t.bed.ready()
    await t.again()
    victim.shim.wall(0)
    await t.bed.drop(victim.name)


@kind(proxied=True)
async def worker_clock_back(t):
    """a worker's clock goes back an hour, then it rejoins"""
    await worker_clock(t, -3600)


@kind(proxied=True)
async def worker_clock_forward(t):
    """a worker's clock goes on an hour, then it rejoins"""
    await worker_clock(t, 3600)


@kind()
async def router_clock(t):
    """the router's clock jumps back and forth"""
    await t.begin(tokens=60)
    await t.token(1)
    for _ in range(4):
        t.router.shim.wall(t.rng.uniform(-1e6, 1e6))
        await asyncio.sleep(0.05)
    await t.finish()
    t.router.shim.wall(0)


@kind()
async def restarted_in_the_past(t):
    """stopped; its successor of the same id has an earlier clock: fenced until the lease is over"""
    await t.begin(tokens=60)
    await t.token(t.rng.randrange(1, 55))
    victim = t.victim()
    t.hit()
    victim.send(signal.SIGSTOP)
    old = t.bed.workers.pop(victim.name)
    try:
        await t.bed.add(victim.name, wall_s=-3600)
        await t.finish()
        t.hit_at = None
        await t.bed.ready()
        await t.again()
    finally:
        await old.end()
        await t.bed.drop(victim.name)


# ---- clients ------------------------------------------------------------------------------------


@kind()
async def clients_leave(t):
    """half of the clients leave in the middle"""
    await t.begin(8, tokens=60)
    await t.token(1)
    leaving = t.streams[1::2]
    t.streams = t.streams[::2]
    for s in leaving:
        s.task.cancel()
    await t.token(t.rng.randrange(1, 50))
    await t.kill(t.victim())
    await t.finish()
    await asyncio.gather(*(s.task for s in leaving), return_exceptions=True)


@kind(workers=1, router=("--worker-wait", "300ms"))
async def nobody_left(t):
    """kill -9 of the only worker: an error, and no [DONE]"""
    await t.begin(3, tokens=60, wishes=("plain", "logprobs", "n2"))
    for s in t.streams:
        await s.until(5)
    await t.kill(t.victim())
    await t.over()
    for s in t.streams:
        if s.n > len(s.text):
            assert s.error and not s.done, f"{len(s.text)} tokens, error {s.error}, done {s.done}"
        s.check_prefix()
    t.streams = []


