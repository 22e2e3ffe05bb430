"""`make gpu-check` before there is a GPU: the same script over the emulator."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def gpu_check(*args):
    return subprocess.run(
        [sys.executable, "-m", "tests.cuda.gpu_check", *args], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_an_emulated_run_prints_its_table():
    done = gpu_check("--emulated", "build/release", "kernels/softcap/test", "tests/unit/kernels/simt/test_probes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\| softcap \| [1-9]\d* \| 0 \|", done.stdout, re.M)
    assert re.search(r"^\| probes of instructions \| [1-9]\d* \| 0 \|", done.stdout, re.M)
    assert "All bits are the reference's." in done.stdout


def test_a_program_that_is_killed_is_a_failure(tmp_path):
    program = tmp_path / "kernels/none/test"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    done = gpu_check("--emulated", str(tmp_path), "kernels/none/test")
    assert done.returncode == 1 and "| none | 0 | 1 |" in done.stdout


def test_without_a_gpu_it_says_so():
    done = gpu_check("build/release", "kernels/softcap/test")
    if done.returncode == 0:
        return  # there is one
    assert done.stderr.startswith("gpu-check: no NVIDIA GPU answers here")
