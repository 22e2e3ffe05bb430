"""The kernels' tests on a GPU, as a table to paste: `make gpu-check`.

Each program compares one operation's kernels with their reference, bit by bit; the probes hold the
layouts of single instructions to the PTX ISA. Where compute-sanitizer is installed, each runs once
more under its memcheck and racecheck. With --emulated the same programs run over the emulator.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.run import count_cmocka

TIMEOUT_S = 900
SANITIZER = shutil.which("compute-sanitizer") or shutil.which(
    "compute-sanitizer", path="/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer"
)


def what_is_here():
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as e:
        return None, f"nvidia-smi: {e}"
    return (done.stdout.strip() or None) if done.returncode == 0 else None, done.stdout.strip() + done.stderr.strip()


def run(command):
    """(tests passed, tests failed, seconds, what it printed)."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        status, output = 1, f"{e.stdout or ''}\nstopped after {TIMEOUT_S} s"
    passed, failed, _ = count_cmocka(status, output, None)
    return passed, failed, time.monotonic() - start, output


def name_of(test):
    probes = {"test_probes": "probes of instructions", "test_mma": "sums of tensor cores"}
    return probes.get(Path(test).name, Path(test).parent.name)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--emulated", action="store_true")
    p.add_argument("build", type=Path)
    p.add_argument("tests", nargs="+")
    args = p.parse_args()

    gpu, said = ("emulated", "") if args.emulated else what_is_here()
    if not gpu:
        sys.exit(f"gpu-check: no NVIDIA GPU answers here: {said or 'no device'} (EMULATED=1: the emulator)")
    tools = [] if args.emulated or not SANITIZER else ["memcheck", "racecheck"]
    print(f"{gpu}\n\n| operation | passed | failed | s |" + "".join(f" {t} |" for t in tools))
    print("|---|---|---|---|" + "---|" * len(tools))
    all_failed, outputs = 0, []
    for test in args.tests:
        program = str(args.build / test)
        passed, failed, seconds, output = run([program])
        row = f"| {name_of(test)} | {passed} | {failed} | {seconds:.1f} |"
        if failed:
            outputs.append(f"---- {program}\n{output}")
        for tool in tools:
            command = [SANITIZER, "--tool", tool, "--error-exitcode", "99", program]
            _, bad, _, output = run(command)
            row += " ok |" if not bad else " FAILED |"
            if bad:
                outputs.append(f"---- {' '.join(command)}\n{output}")
            failed += bad
        print(row, flush=True)
        all_failed += failed
    if tools == [] and not args.emulated:
        print("\ncompute-sanitizer is not installed: memory and races were not checked.")
    print("\n".join(["", *outputs]) if outputs else "\nAll bits are the reference's.")
    sys.exit(1 if all_failed else 0)


if __name__ == "__main__":
    main()
