"""`argosy top` against a router, printed once and live in a terminal."""

import fcntl
import os
import select
import struct
import subprocess
import termios
import time


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(fd, text, timeout_s=20):
    seen, deadline = "", time.monotonic() + timeout_s
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([fd], [], [], left)[0], f"no {text!r} in {seen[-2000:]!r}"
        seen += os.read(fd, 1 << 16).decode(errors="replace")
    return seen


def test_once_prints_the_pool(pool, build_dir):
    done = subprocess.run([build_dir / "argosy", "top", "--once", "--url", pool.url + "/v1"],
                          capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("argosy  router ") and f"{pool.size} workers" in lines[1]
    names = [line.split()[0] for line in lines[6:]]
    assert names == sorted(w["id"] for w in pool.json("/explorer/snapshot")["workers"])
    assert "\033" not in done.stdout


def test_live_in_a_terminal(pool, build_dir, terminal):
    ours, theirs = terminal
    set_size(ours, 24, 80)
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen([build_dir / "argosy", "top", "-u", pool.url, "-i", "0.2"],
                               stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        assert "REGION" not in read_until(ours, "rotterdam-0")
        set_size(ours, 30, 130)
        process.send_signal(28)  # SIGWINCH: it is no session of its own
        read_until(ours, "REGION")
        os.write(ours, b"s")
        read_until(ours, "workers")
        os.write(ours, b"q")
        read_until(ours, "\033[?1049l")
        assert process.wait(20) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()


def test_no_router_and_no_terminal(build_dir):
    nobody = subprocess.run([build_dir / "argosy", "top", "--once", "--url", "http://127.0.0.1:9"],
                            capture_output=True, text=True, timeout=30)
    assert nobody.returncode == 1 and "nothing answers at 127.0.0.1:9" in nobody.stderr
    no_tty = subprocess.run([build_dir / "argosy", "top"], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=30)
    assert no_tty.returncode == 1 and "no terminal" in no_tty.stderr
