"""Every kind of fault, many times: `make test-faults`, RUNS=50 KINDS=kill SEED=1.

A run that fails prints its kind and seed; --kinds and --seed with --runs 1 repeat it (timing apart).
The table has for each kind the longest wait for a token after the fault, over streams: median, p99.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.bed import Bed, Trial
from tests.faults.kinds import KINDS

RUN_TIMEOUT_S = 120
# Kinds where a worker dies or falls silent: the gap is what the lease and the router make of it.
DEATHS = ("kill", "stop_and", "stop_before", "net_reset", "net_close", "net_half", "net_cut", "drain", "worker_without_memory", "worker_failing")


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p * len(values)))] if values else float("nan")


class Runner:
    def __init__(self, name, keep=False):
        self.name, self.keep = name, keep
        self.fn, self.options = KINDS[name]
        self.folder = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
        self.bed = None
        self.gaps, self.failures, self.runs = [], 0, 0

    async def one(self, seed, run):
        """The reason why it failed, or None."""
        self.runs += 1
        t = None
        try:
            if not self.bed:
                self.bed = Bed(self.folder, **self.options)
                await self.bed.open()
            await self.bed.ready()
            t = Trial(self.bed, random.Random(f"{self.name} {seed}"), run)
            await asyncio.wait_for(self.fn(t), RUN_TIMEOUT_S)
            self.gaps += t.gaps
            return None
        except Exception as e:  # whatever it is, the other kinds go on
            self.failures += 1
            return f"{self.name} seed {seed} run {run}: {type(e).__name__} {e}\n{self.bed.logs()}"
        finally:
            if t:
                await t.release()

    async def close(self):
        if self.bed:
            await self.bed.close()
        self.bed = None

    async def finish(self):
        await self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


async def run_kind(name, runs, seed, until_s):
    runner = Runner(name)
    try:
        for i in range(runs):
            if time.monotonic() > until_s:
                break
            why = await runner.one(seed + i, i)
            if why:
                print(f"FAILED {why}", file=sys.stderr, flush=True)
                await runner.close()
    finally:
        await runner.finish()
    return runner


def line(r):
    text = (KINDS[r.name][0].__doc__ or "").strip()
    gaps = f"{percentile(r.gaps, 0.5) * 1000:7.0f} {percentile(r.gaps, 0.99) * 1000:7.0f}" if r.gaps else f"{'-':>7} {'-':>7}"
    return f"{r.name:28} {r.runs:5} {r.failures:6} {gaps}  {text}"


async def run_all(names, args):
    places = asyncio.Semaphore(args.at_once)
    share_s = args.seconds / len(names) * args.at_once if names else 0

    async def in_turn(name):
        async with places:
            runner = await run_kind(name, args.runs, args.seed, time.monotonic() + share_s)
        print(line(runner), flush=True)
        return runner

    return await asyncio.gather(*(in_turn(name) for name in names))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--runs", type=int, default=50)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--kinds", default="", help="only those with one of these words in their name")
    ap.add_argument("--seconds", type=float, default=86400, help="in all: each kind stops at its share")
    ap.add_argument("--at-once", type=int, default=1, help="kinds side by side, each with its own cluster")
    args = ap.parse_args()
    words = args.kinds.replace(",", " ").split()
    names = [n for n in KINDS if not words or any(w in n for w in words)]
    print(f"{'kind':28} {'runs':>5} {'failed':>6} {'p50 ms':>7} {'p99 ms':>7}  what", flush=True)
    done = asyncio.run(run_all(names, args))
    deaths = [g for r in done if r.name.startswith(DEATHS) for g in r.gaps]
    failures = sum(r.failures for r in done)
    print(
        f"{len(done)} kinds, {sum(r.runs for r in done)} runs, {failures} failed; where a worker died or fell silent: "
        f"p50 {percentile(deaths, 0.5) * 1000:.0f} ms, p99 {percentile(deaths, 0.99) * 1000:.0f} ms over {len(deaths)} streams"
    )
    sys.exit(1 if failures or not done else 0)


if __name__ == "__main__":
    main()
