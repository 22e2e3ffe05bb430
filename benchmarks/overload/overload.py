"""What happens to a full pool when ten times as many requests come as it can serve.

A router and a worker that hashes (benchmarks/hash_worker) as processes of their own on 127.0.0.1, and
a client that asks at a fixed rate (flood.c). Prints a table: peak, 80 % of it, ten times as much, and
80 % again, second by second, until it is as before. Takes 2 minutes with the default SECONDS=60.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = Path("build/release")
MODEL = next(Path("models/smollm2-135m").glob("*.gguf"))
SECONDS = int(os.environ.get("SECONDS", "60"))
# A request takes 32 steps of 5 ms and a prompt; 16 run at once: about 95 a second.
WORKER = ["--sequences-max=16", "--step-us=5000", "--prefill-rate=20000", "--waiting-max=64",
          "--kv-pages=4096"]
ROUTER = os.environ.get("ROUTER", "--queue-wait=60ms").split()
BODY = json.dumps({"model": "m", "prompt": list(range(100, 120)), "max_tokens": 32, "seed": 7,
                   "stream": True})


class Pool:
    def __init__(self, folder):
        self.folder, self.processes = folder, []
        rpc = f"unix:{folder}/rpc"
        self.run("router", BUILD / "argosy-router", "--die-with-parent", "--listen=127.0.0.1:0",
                 f"--rpc-listen={rpc}", f"--models=m={MODEL}", "--log-level=info", *ROUTER)
        self.port = self.wait("router", r"router is up .*port=(\d+)")[1]
        self.run("worker", BUILD / "benchmarks/hash_worker/hash_worker", f"--routers={rpc}",
                 f"--model=m={MODEL}", *WORKER)
        self.wait("router", r"worker joined")

    def run(self, name, *command):
        with (self.folder / name).open("wb") as err:
            self.processes.append(subprocess.Popen([str(c) for c in command], stderr=err))

    def wait(self, name, pattern):
        for _ in range(3000):
            found = re.search(pattern, (self.folder / name).read_text())
            if found:
                return found
            time.sleep(0.01)
        raise SystemExit(f"{name}: {(self.folder / name).read_text()}")

    def flood(self, rate, seconds):
        command = [BUILD / "benchmarks/overload/flood", f"127.0.0.1:{self.port}", BODY,
                   f"rate={rate}", f"seconds={seconds}"]
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True,
                              timeout=seconds + 60)
        return json.loads(done.stdout)

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def row(name, r):
    print(f"{name:<18}{r['rate']:>8.0f}{r['asked']:>8}{r['good_per_s']:>9.1f}{r['refused']:>9}"
          f"{r['bad']:>5}{r['ttft_p50_ms']:>10.1f}{r['ttft_p99_ms']:>10.1f}"
          f"{r['refusal_p50_ms']:>10.2f}{r['refusal_p99_ms']:>10.2f}{r['refusal_max_ms']:>10.2f}"
          f"{'  ' + r['why'] if r['why'] else ''}", flush=True)


def main():
    print(f"load of the machine: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores; router {ROUTER}")
    print(f"{'':<18}{'asked/s':>8}{'asked':>8}{'good/s':>9}{'refused':>9}{'bad':>5}"
          f"{'TTFT p50':>10}{'p99 ms':>10}{'refusal':>10}{'p99 ms':>10}{'max ms':>10}")
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder))
        try:
            pool.flood(50, 3)  # rates and mean times are learnt
            peak = pool.flood(200, 10)
            row("peak", peak)
            most = peak["good_per_s"]
            usual = pool.flood(0.8 * most, max(10, SECONDS // 3))
            row("80 %", usual)
            flood = pool.flood(10 * most, SECONDS)
            row("10 times", flood)
            after = [pool.flood(0.8 * most, 1) for _ in range(5)]
            for i, r in enumerate(after):
                row(f"80 %, second {i + 1}", r)
        finally:
            pool.stop()
    print()
    wanted = [
        ("goodput at 10 times, of peak", flood["good_per_s"] / most, ">=", 0.95),
        ("TTFT p99 at 10 times, of that at 80 %", flood["ttft_p99_ms"] / usual["ttft_p99_ms"], "<=", 2),
        ("refusal p99, ms", flood["refusal_p99_ms"], "<=", 10),
        ("refused in the fifth second after", after[4]["refused"], "<=", 0),
    ]
    for what, got, sign, limit in wanted:
        ok = got >= limit if sign == ">=" else got <= limit
        print(f"{what:<42}{got:>8.2f}  {sign} {limit:<6}{'ok' if ok else 'NOT REACHED'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
