#!/bin/sh
# What the tests need besides Debian packages: build/venv (tests/requirements.txt) and
# build/fixtures/llama.cpp (vocabularies and chat templates of real models, never committed).
#
# Each has a stamp that names what it was made from: a second run does nothing.
set -eu

cd "$(dirname "$0")/.."
venv=build/venv
fixtures=build/fixtures/llama.cpp
. benchmarks/peers/versions.sh
sdist=$LLAMA_SDIST
sdist_sha256=$LLAMA_SDIST_SHA256

say() { echo "tests/setup: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

requirements_hash=$(sha256sum <tests/requirements.txt)
if [ "$(cat $venv/.stamp 2>/dev/null)" != "$requirements_hash" ]; then
    say "installing tests/requirements.txt into $venv (1 to 3 minutes, 6 GB; once)"
    python3 -m venv --clear $venv || fail "python3 -m venv failed: apt-get install python3-venv"
    $venv/bin/python -m pip install --disable-pip-version-check -q -r tests/requirements.txt ||
        fail "pip could not install the requirements. Is there a network, and 8 GB of disk?"
    echo "$requirements_hash" >$venv/.stamp
fi

if [ "$(cat $fixtures/.stamp 2>/dev/null)" != "$sdist_sha256" ]; then
    say "fetching $sdist for its vocabularies and chat templates (77 MB; once)"
    new=build/fixtures/.new
    rm -rf $new
    mkdir -p $new
    # pip asks the archive for its metadata: scikit-build-core of the venv answers, nothing is built.
    $venv/bin/python -m pip download --disable-pip-version-check -q --no-deps --no-cache-dir \
        --no-binary llama-cpp-python --no-build-isolation --dest $new "$LLAMA_SDIST_REQUIREMENT" ||
        fail "pip could not download $sdist. Is there a network?"
    echo "$sdist_sha256  $new/$sdist.tar.gz" | sha256sum -c --quiet - ||
        fail "$sdist.tar.gz has the wrong SHA-256"
    tar -xzf $new/$sdist.tar.gz -C $new --strip-components=3 --wildcards \
        "$sdist/vendor/llama.cpp/models/ggml-vocab-*" "$sdist/vendor/llama.cpp/models/templates/*"
    rm $new/$sdist.tar.gz
    echo "$sdist_sha256" >$new/.stamp
    rm -rf $fixtures
    mv $new $fixtures
fi
