"""Runs the tests it is given, two at a time, and sums up. `make test` calls it.

A cmocka program and a pytest folder count their own tests; a fuzz target and a check count as one.
A program that is missing (did not build), crashes, runs too long or runs no test is a failure too:
nothing passes by being absent. The output of what failed is shown in full. The last line is
'N passed, N failed', with ', N skipped' behind it where there are any; the status is 1 on failure.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

REPORT = Path("build/report")
PRINTING = threading.Lock()
CMOCKA_TIMEOUT_S = 600
PYTEST_TIMEOUT_S = 1800
CHECK_TIMEOUT_S = 1800
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
    "LSAN_OPTIONS": "suppressions=tests/lsan.supp:print_suppressions=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "suppressions=tests/tsan.supp:exitcode=66:second_deadlock_stack=1",
}


@dataclass
class Job:
    name: str
    command: list
    timeout_s: int
    count: callable  # (status, output, job) -> (passed, failed, skipped)
    needs: Path = None  # must exist
    xml: Path = None
    env: dict = field(default_factory=dict)


def execute(job):
    """Runs one job in a process group of its own: (status, output). Status None: too slow."""
    if job.needs and not job.needs.exists():
        return 127, f"{job.needs} is not there: it did not build\n"
    env = {**os.environ, **SANITIZERS, **job.env}
    child = subprocess.Popen(
        job.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=job.timeout_s)
        return child.returncode, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        return None, output.decode(errors="replace") + f"\nstopped after {job.timeout_s} s\n"


def count_cmocka(status, output, job):
    def total(word):
        return sum(int(n) for n in re.findall(rf"^\[  {word} *\] (\d+) test", output, re.M))

    passed, failed, skipped = total("PASSED"), total("FAILED"), total("SKIPPED")
    # Leaks and races are found after the last test; a crash leaves no summary at all.
    if status != 0 and failed == 0:
        failed = 1
    elif passed + failed + skipped == 0:
        failed = 1
    return passed, failed, skipped


def count_pytest(status, output, job):
    try:
        suite = ElementTree.parse(job.xml).getroot().find("testsuite")
        n, bad, skipped = (
            int(suite.get("tests")),
            int(suite.get("failures")) + int(suite.get("errors")),
            int(suite.get("skipped")),
        )
    except (OSError, ElementTree.ParseError, AttributeError):
        return 0, 1, 0
    return n - bad - skipped, max(bad, 1 if status != 0 else 0), skipped


def count_one(status, output, job):
    return (1, 0, 0) if status == 0 else (0, 1, 0)


def cmocka_job(path):
    return Job(path, [path], CMOCKA_TIMEOUT_S, count_cmocka, needs=Path(path))


def fuzz_job(path, seconds):
    name = Path(path).name
    found = Path("build/fuzz/corpus") / name
    found.mkdir(parents=True, exist_ok=True)
    crashes = Path("build/fuzz/crashes")
    crashes.mkdir(parents=True, exist_ok=True)
    seeds = [str(p) for p in [Path("tests/fuzz/corpus") / name] if p.is_dir()]
    command = [
        *(path, f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=10"),
        *(f"-artifact_prefix={crashes}/{name}-", "-print_final_stats=1", str(found), *seeds),
    ]
    return Job(f"{path} ({seconds} s)", command, seconds + 120, count_one, needs=Path(path))


def pytest_job(what):
    """FOLDER, or FOLDER@VARIANT for the programs of another variant than release."""
    folder, _, variant = what.partition("@")
    xml = REPORT / f"{what.replace('/', '-')}.xml"
    xml.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    command += [f"--junitxml={xml}", folder]
    env = {"ARGOSY_BUILD": variant} if variant else {}
    return Job(what, command, PYTEST_TIMEOUT_S, count_pytest, xml=xml, env=env)


def check_job(name):
    return Job(f"check-{name}", ["make", "-s", f"check-{name}"], CHECK_TIMEOUT_S, count_one)


def run_one(job):
    start = time.monotonic()
    status, output = execute(job)
    passed, failed, skipped = job.count(status, output, job)
    word = "FAILED" if failed else "ok"
    text = f"{word:6} {passed:5} passed"
    text += f", {failed} failed" if failed else ""
    text += f", {skipped} skipped" if skipped else ""
    text += f"  {time.monotonic() - start:6.1f} s  {job.name}"
    if failed:
        how = "" if status is None else f"(status {status})"
        text += f"\n---- {job.name} {how}\n{output.rstrip()}\n----"
    elif skipped:
        reasons = re.findall(r"^(?:SKIPPED|\[  SKIPPED \]) .*", output, re.M)
        text += "".join(f"\n         {line}" for line in reasons if "test(s)" not in line)
    with PRINTING:  # print writes a line and its end apart
        print(text, flush=True)
    return passed, failed, skipped


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in ("cmocka", "fuzz", "pytest", "pytest-alone", "check"):
        ap.add_argument(f"--{kind}", nargs="*", default=[])
    ap.add_argument("--fuzz-seconds", type=int, default=5)
    ap.add_argument("--only", default="", help="run only what has this in its name")
    args = ap.parse_args()
    REPORT.mkdir(parents=True, exist_ok=True)

    side_by_side = [cmocka_job(p) for p in args.cmocka]
    side_by_side += [pytest_job(p) for p in args.pytest] + [check_job(c) for c in args.check]
    side_by_side += [fuzz_job(p, args.fuzz_seconds) for p in args.fuzz]
    alone = [pytest_job(p) for p in args.pytest_alone]

    counts = []
    for jobs, at_once in ((side_by_side, 2), (alone, 1)):
        with ThreadPoolExecutor(at_once) as pool:
            counts += pool.map(run_one, [j for j in jobs if args.only in j.name])
    passed, failed, skipped = (sum(c[i] for c in counts) for i in range(3))
    line = f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    (REPORT / "summary").write_text(line + "\n")
    print(line)
    sys.exit(1 if failed or not counts else 0)


if __name__ == "__main__":
    main()
