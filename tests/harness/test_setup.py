"""deploy/setup.sh with stand-ins for dpkg-query, apt-get, id and sudo."""

import subprocess

import pytest


class Machine:
    def __init__(self, root, folder):
        self.setup = root / "deploy/setup.sh"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.bin.mkdir()
        self.log.write_text("")
        for name in ("sh", "awk", "grep", "dirname", "env"):
            (self.bin / name).symlink_to(f"/usr/bin/{name}")
        self.packages = [
            line.split()[1]
            for line in (root / "deploy/packages.txt").read_text().splitlines()
            if line.startswith("run ")
        ]
        self.installed(self.packages)
        self.program("id", "echo 0")
        self.program("apt-get", f'echo "$@" >>{self.log}')

    def program(self, name, script):
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def installed(self, packages):
        lines = "\n".join(f"installed {p}" for p in packages)
        self.program("dpkg-query", f"printf '%s\\n' '{lines}'; exit 1")

    def run(self, kind="run"):
        return subprocess.run(
            [self.setup, kind],
            env={"PATH": str(self.bin)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
        )


@pytest.fixture
def machine(request, tmp_path):
    return Machine(request.config.rootpath, tmp_path)


def test_setup_does_nothing_when_all_is_there(machine):
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.log.read_text() == ""


def test_setup_installs_only_what_is_missing(machine):
    machine.installed(p for p in machine.packages if p not in ("gcc", "libgrpc-dev"))
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "installing Debian packages: gcc libgrpc-dev" in done.stderr
    update, install = machine.log.read_text().splitlines()
    assert "update" in update and install.endswith("--no-install-recommends gcc libgrpc-dev")


def test_setup_for_tests_wants_more(machine):
    done = machine.run("test")
    assert done.returncode == 0 and "libcmocka-dev" in done.stderr


def test_setup_uses_sudo_when_it_is_not_root(machine):
    machine.installed([])
    machine.program("id", "echo 1000")
    machine.program("sudo", f'echo "sudo $@" >>{machine.log}; [ "$1" = -n ] || exec "$@"')
    assert machine.run().returncode == 0
    assert "sudo apt-get update" in machine.log.read_text()


def test_setup_says_what_to_do_without_root_and_sudo(machine):
    machine.installed([])
    machine.program("id", "echo 1000")
    done = machine.run()
    assert done.returncode == 1 and "there is no sudo" in done.stderr
    assert "apt-get install" in done.stderr and machine.log.read_text() == ""


def test_setup_does_not_wait_for_a_password(machine):
    machine.installed([])
    machine.program("id", "echo 1000")
    machine.program("sudo", "exit 1")
    done = machine.run()
    assert done.returncode == 1 and "sudo wants a password" in done.stderr


def test_setup_says_when_there_is_no_network(machine):
    machine.installed([])
    machine.program("apt-get", "echo 'Temporary failure resolving' >&2; exit 100")
    done = machine.run()
    assert done.returncode == 1 and "Is there a network" in done.stderr


def test_setup_leaves_other_systems_alone(machine):
    (machine.bin / "dpkg-query").unlink()
    done = machine.run()
    assert done.returncode == 0 and "no Debian system" in done.stderr
    assert machine.log.read_text() == ""
