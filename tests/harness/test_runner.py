"""tests/run.py counts what it is given, and nothing passes by being absent."""

import subprocess
import sys

import pytest


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def run(tmp_path, request):
    def call(*args):
        command = [sys.executable, str(request.config.rootpath / "tests/run.py"), *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.splitlines()

    return call


def test_runner_adds_up_cmocka(run, tmp_path):
    one, two, three = (f"echo '[  PASSED  ] {n} test(s).'; " for n in (1, 2, 3))
    good = program(tmp_path, "good", three + two)
    bad = program(tmp_path, "bad", one + "echo '[  FAILED  ] 2 test(s)'; exit 2")
    skip = program(tmp_path, "skip", one + "echo '[  SKIPPED ] 4 test(s)'")
    assert run("--cmocka", good)[0] == 0
    status, lines = run("--cmocka", good, bad, skip)
    assert status == 1 and lines[-1] == "7 passed, 2 failed, 4 skipped"
    assert sum(line.startswith("FAILED") for line in lines) == 1


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",  # ran no test
        "kill -SEGV $$",
        "echo '[  PASSED  ] 3 test(s).'; exit 1",  # a leak, found at the end
    ],
)
def test_runner_fails_a_program_that_only_looks_well(run, tmp_path, script):
    status, lines = run("--cmocka", program(tmp_path, "p", script))
    assert status == 1 and lines[-1].endswith("passed, 1 failed")


def test_runner_fails_what_did_not_build(run):
    status, lines = run("--cmocka", "build/none", "--fuzz", "build/none_either")
    assert status == 1 and lines[-1] == "0 passed, 2 failed"


def test_runner_fails_when_there_is_nothing(run):
    assert run()[0] == 1


def test_runner_counts_pytest(run, tmp_path):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_x.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 0, 'the reason'\n"
        "@pytest.mark.skip(reason='no such CPU')\n"
        "def test_c(): pass\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_d(broken): pass\n"
    )
    (tmp_path / "empty").mkdir()
    status, lines = run("--pytest", "suite", "--pytest-alone", "empty")
    assert status == 1 and lines[-1] == "1 passed, 3 failed, 1 skipped"
    assert any("the reason" in line for line in lines)


def test_runner_says_what_was_skipped_and_why(run, tmp_path):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_x.py").write_text(
        "import pytest\n@pytest.mark.skip(reason='no such CPU')\ndef test_c(): pass\n"
    )
    status, lines = run("--pytest", "suite")
    assert any("no such CPU" in line for line in lines)
    assert status == 0 and lines[-1] == "0 passed, 0 failed, 1 skipped"
