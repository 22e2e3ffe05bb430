#!/bin/sh
# The load tools of others, each in a virtual environment of its own: build/peers/{guidellm,aiperf}.
# Does nothing for one that is there.
set -eu

cd "$(dirname "$0")/../.."

for pinned in guidellm==0.8.1 aiperf==0.13.0; do
    venv=build/peers/${pinned%%=*}
    [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$pinned" ] || continue
    echo "benchmarks/clients: installing $pinned into $venv (a minute; once)" >&2
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check -q "$pinned"
    echo "$pinned" >"$venv/.stamp"
done
