"""`argosy key` with a file, and what it says when something is wrong. With Redis: tests/api/test_keys.py."""

import re
import stat
import subprocess

import pytest


@pytest.fixture
def key(build_dir, tmp_path):
    """key(*args) -> the finished process; the keys are in a file of the test's own."""
    def run(*args, where=(f"--keys={tmp_path}/keys",)):
        command = [str(build_dir / "argosy"), "key", *args, *where]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)
    run.file = tmp_path / "keys"
    return run


def test_key_is_shown_once_and_kept_as_a_hash(key):
    made = key("create", "--name=alice", "--requests=60", "--tokens=1000", "--concurrency=2",
               "--priority=-3", "--pool=trust=gold")
    assert made.returncode == 0 and re.fullmatch(r"ak-[0-9a-f]{64}\n", made.stdout)
    text = key.file.read_text()
    assert made.stdout.strip() not in text and made.stdout[3:67] not in text
    assert " name=alice requests=60 tokens=1000 concurrency=2 priority=-3 pool=trust=gold" in text
    assert stat.S_IMODE(key.file.stat().st_mode) == 0o600
    listed = key("list").stdout.splitlines()
    assert len(listed) == 2 and "alice" in listed[1] and "trust=gold" in listed[1]


def test_key_is_revoked_by_name_or_id(key):
    for name in ("alice", "bob", "bob"):
        assert key("create", f"--name={name}").returncode == 0
    assert key("revoke", "alice").returncode == 0
    assert "alice" not in key.file.read_text()
    twice = key("revoke", "bob")
    assert twice.returncode == 1 and "several keys" in twice.stderr
    first = key.file.read_text()[:16]
    assert key("revoke", first).returncode == 0
    assert key("revoke", "bob").returncode == 0
    gone = key("revoke", "bob")
    assert gone.returncode == 1 and "no key has the name 'bob'" in gone.stderr


@pytest.mark.parametrize(("args", "says"), [
    ((), "create, list or revoke"),
    (("forge",), "create, list or revoke"),
    (("revoke",), "revoke which"),
    (("create", "alice"), "too much"),
    (("list", "--tokens=5"), "new key alone"),
    (("create", "--tokens=many"), "not a number"),
    (("create", "--priority=1001"), "more than 1000"),
    (("create", "--pool=gold"), "LABEL=VALUE"),
    (("create", "--name=a b"), "visible ASCII"),
    (("create", "--budget=5"), "needs Redis"),
])
def test_key_says_what_is_wrong(key, args, says):
    done = key(*args)
    assert done.returncode != 0 and says in done.stderr and not done.stdout
    assert not key.file.exists()


@pytest.mark.parametrize(("where", "says"), [
    ((), "where the keys are"),
    (("--redis=http://x",), "unix:PATH or redis://"),
    (("--redis=redis://:1",), "unix:PATH or redis://"),
    (("--redis=redis://h:99999",), "unix:PATH or redis://"),
    (("--redis=redis://h:1/x",), "unix:PATH or redis://"),
    (("--redis=unix:/nowhere/redis",), "can't reach Redis"),
    (("--redis=unix:/x", "--keys=/y"), "where the keys are"),
])
def test_key_says_where_it_cannot_go(key, where, says):
    done = key("list", where=where)
    assert done.returncode != 0 and says in done.stderr


def test_key_changes_no_file_that_it_does_not_understand(key):
    key.file.write_text("what is this\n")
    done = key("create")
    assert done.returncode == 1 and "keys:1: " in done.stderr
    assert key.file.read_text() == "what is this\n"
