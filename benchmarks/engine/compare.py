#!/usr/bin/env python3
"""The engine beside llama.cpp on this machine, as a table: `make bench-engine`.

Same files, same number of threads, runs in turn (ours, theirs, ours, …); what is printed as it comes
is the best of the runs and, in brackets, the median. Ours goes through engine.h with a sampler and
all; theirs is llama-batched-bench, which samples nothing. benchmarks/peers/setup.sh builds it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "build/peers"
BIN = ROOT / "build/release/benchmarks/engine"
SMOL = ROOT / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA = ROOT / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf"
COPIES = PEERS / "models"

MODELS = {
    "smollm2-q4_1": SMOL,
    "gemma3-q4_k_m": GEMMA,
    "smollm2-q4_0": COPIES / f"{SMOL.stem}-as-Q4_0.gguf",
    "smollm2-q8_0": COPIES / f"{SMOL.stem}-as-Q8_0.gguf",
    "gemma3-q6_k": COPIES / f"{GEMMA.stem}-as-Q6_K.gguf",
    "smollm2-q6_k": COPIES / f"{SMOL.stem}-as-Q6_K.gguf",
    "gemma3-q4_0": COPIES / f"{GEMMA.stem}-as-Q4_0.gguf",
    "gemma3-q8_0": COPIES / f"{GEMMA.stem}-as-Q8_0.gguf",
}
DEFAULT_MODELS = ["smollm2-q4_1", "gemma3-q4_k_m", "smollm2-q4_0", "smollm2-q8_0", "gemma3-q6_k"]

# The aims: times llama.cpp.
AIMS = {
    ("smollm2-q4_1", "decode 1"): 2.2,
    ("smollm2-q4_1", "decode 8"): 6,
    ("smollm2-q4_1", "decode 32"): 6,
    ("smollm2-q4_1", "prefill 512"): 6,
    ("smollm2-q4_1", "decode 1 at 4096"): 2.5,
    ("gemma3-q4_k_m", "decode 1"): 1.3,
    ("gemma3-q4_k_m", "decode 8"): 3,
    ("gemma3-q4_k_m", "prefill 512"): 2.5,
    ("smollm2-q4_0", "decode 1"): 1.3,
    ("smollm2-q4_0", "prefill 512"): 2,
    ("smollm2-q8_0", "decode 1"): 1.15,
    ("smollm2-q8_0", "prefill 512"): 2.5,
}
AIM_AVX2 = 1.2

# What one run of each does: the name of a cell, ours, and theirs as (prompt, tokens, streams).
SHORT = [
    ("decode 1", "decode:1:16:32", (16, 32, 1)),
    ("decode 8", "decode:8:16:32", (16, 32, 8)),
    ("decode 32", "decode:32:16:32", (16, 32, 32)),
    ("prefill 512", "prefill:512", (512, 1, 1)),
]
LONG = [
    ("prefill 4096", "prefill:4096", (4096, 24, 1)),
    ("decode 1 at 4096", "decode:1:4096:24", (4096, 24, 1)),
]


def die(what):
    sys.exit(f"compare.py: {what}")


def run(command, env=None):
    """Its stdout."""
    process = subprocess.Popen(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    out, err = process.communicate(timeout=600)
    if process.returncode != 0:
        die(f"{command[0]} ended with {process.returncode}:\n{err[-2000:]}")
    return out


class Ours:
    name = "argosy"

    def __init__(self, isa, threads, env):
        self.isa, self.threads, self.env = isa, threads, env

    def lines(self, model, cells):
        out = run([BIN / "bench_engine", model, self.isa, self.threads, *cells], self.env)
        return {k: float(v) for k, v in (line.split(" ") for line in out.splitlines())}

    def measure(self, model, cells):
        # The first cell warms up: pages are touched, threads are there.
        lines = self.lines(model, ["prefill:64"] + [ours for _, ours, _ in cells])
        return {name: lines[ours] for name, ours, _ in cells}


class Theirs:
    name = "llama.cpp"

    def __init__(self, isa, threads, env):
        self.threads = threads
        self.env = dict(env)
        # Where the loader looks first: before the program's own run path.
        folders = ("native",) if isa == "auto" else (isa, "native")
        self.env["LD_LIBRARY_PATH"] = ":".join(str(PEERS / f / "bin") for f in folders)

    def bench(self, model, prompt, tokens, streams):
        """Tokens a second of (prompt, decode) for each number of streams."""
        room = max(streams) * (prompt + tokens)
        command = [PEERS / "native/bin/llama-batched-bench", "-m", model, "-c", room, "-b", 2048]
        command += ["-ub", 512, "-npp", prompt, "-ntg", tokens]
        command += ["-npl", ",".join(map(str, streams)), "-t", self.threads, "-tb", self.threads]
        out = run([*command, "--output-format", "jsonl"], self.env)
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return {r["pl"]: (r["speed_pp"], r["speed_tg"]) for r in rows}

    def measure(self, model, cells):
        found, groups = {}, {}
        for name, _, (prompt, tokens, streams) in cells:
            groups.setdefault((prompt, tokens), []).append((name, streams))
        for (prompt, tokens), wanted in groups.items():
            speeds = self.bench(model, prompt, tokens, sorted({s for _, s in wanted}))
            for name, streams in wanted:
                found[name] = speeds[streams][0 if name.startswith("prefill") else 1]
        return found


def limits(threads, model):
    mib = max(1, model.stat().st_size >> 20)
    out = run([BIN / "bench_limits", threads, mib])
    return {k: float(v) for k, v in (line.split(" ") for line in out.splitlines())}


def share(cell, speed, cost, limit, isa):
    """Of what the machine can do: of the bandwidth at batch 1, of the multiply-adds elsewhere."""
    if cell == "decode 1":
        return f"{100 * speed * cost['read_bytes'] / 1e9 / limit['read_gbs']:.0f}% of the bandwidth"
    if cell == "decode 1 at 4096":
        return ""
    macs = cost["macs"] + (cost["head_macs"] if cell.startswith("decode") else 0)
    if isa == "avx2" or "vnni_gmacs" not in limit:
        kinds = ["avx2"]
    else:
        kinds = ["vnni"] if isa == "avx512" else ["vnni", "amx"]
    shares = [
        f"{100 * speed * macs / 1e9 / limit[f'{kind}_gmacs']:.0f}% of the {kind} peak"
        for kind in kinds
        if f"{kind}_gmacs" in limit
    ]
    return ", ".join(shares)


def figure(values):
    return f"{max(values):9.1f} ({statistics.median(values):.1f})"


def verdict(key, ratio, avx2):
    aim = AIM_AVX2 if avx2 else AIMS.get(key)
    return "" if aim is None else f"  aim {aim}: {'met' if ratio >= aim else 'missed'}"


def report(model_name, cells, found, cost, limit, args):
    for cell, _, _ in cells:
        ours, theirs = ([f[cell] for f in found[who]] for who in ("argosy", "llama.cpp"))
        ratio = max(ours) / max(theirs)
        print(
            f"{model_name:14} {cell:17} {figure(ours):20} {figure(theirs):20} {ratio:5.2f}"
            f"  {share(cell, max(ours), cost, limit, args.isa):38}"
            f"{verdict((model_name, cell), ratio, args.isa == 'avx2')}",
            flush=True,
        )


def compare(model_name, model, ours, theirs, args):
    limit = limits(args.threads, model)
    print(
        f"# {model_name}: {model.stat().st_size / 1e6:.0f} MB; limits: "
        + ", ".join(f"{k} {v:g}" for k, v in limit.items()),
        flush=True,
    )
    costs = [ours.lines(model, ["load"]) for _ in range(3)]
    for cells, rounds in ((SHORT, args.rounds), (LONG, args.long_rounds)):
        found = {ours.name: [], theirs.name: []}
        for _ in range(rounds):
            for who in (ours, theirs):
                found[who.name].append(who.measure(model, cells))
        if rounds > 0:
            report(model_name, cells, found, costs[0], limit, args)
    file_bytes = costs[0]["file_bytes"]
    print(
        f"{model_name:14} load: {min(c['open_ms'] for c in costs):.0f} ms with a warm page cache "
        f"(aim 1000); peak {max(c['peak_bytes'] for c in costs) / file_bytes:.2f}, weights "
        f"{costs[0]['weight_bytes'] / file_bytes:.2f} times the file (aim 1.3)",
        flush=True,
    )


def cpu_clock_env():
    """The environment in which one thread's clock is its processor time (peers/cpu_clock)."""
    source, library = ROOT / "benchmarks/peers/cpu_clock/cpu_clock.c", PEERS / "cpu_clock.so"
    run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source])
    return {**os.environ, "LD_PRELOAD": str(library)}


def machine():
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    load = os.getloadavg()[0]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores, load {load:.1f}"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--models", default=",".join(DEFAULT_MODELS), help=f"of {', '.join(MODELS)}")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--long-rounds", type=int, default=2, help="of the cells at 4,096 tokens")
    p.add_argument("--isa", default="auto", choices=("auto", "avx2", "avx512"), help="both are held to it")
    p.add_argument(
        "--cpu-time", action="store_true", help="by processor time, of one thread: for a shared machine"
    )
    args = p.parse_args()
    if args.cpu_time and args.threads != 1:
        die("--cpu-time counts all threads' time as one: it needs --threads 1")
    env = cpu_clock_env() if args.cpu_time else os.environ
    ours = Ours(args.isa, args.threads, env)
    theirs = Theirs(args.isa, args.threads, env)
    print(f"# {machine()}, {args.threads} threads, isa {args.isa}")
    print(f"# tokens a second{' of processor time' if args.cpu_time else ''}, best run (median)")
    print(f"# {'model':12} {'what':17} {'argosy':20} {'llama.cpp':20} ratio  share of the limit")
    for name in args.models.split(","):
        if name not in MODELS:
            die(f"model '{name}': wanted of {', '.join(MODELS)}")
        compare(name, MODELS[name], ours, theirs, args)


if __name__ == "__main__":
    main()
