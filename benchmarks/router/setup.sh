#!/bin/sh
# What `make bench-router` measures beside our router, under build/peers:
#
#     smg/ sglang-router/ vllm-router/    a virtual environment each, from PyPI
#     debian/                             nginx and HAProxy, unpacked from Debian's packages: nothing
#                                         is installed or started
#
# Does nothing for what is there. A peer that cannot be had is said and left out: the table says so.
set -eu

cd "$(dirname "$0")/../.."
peers=build/peers
say() { echo "benchmarks/router/setup: $*" >&2; }
mkdir -p $peers

for pinned in smg==1.13.0 sglang-router==0.3.2 vllm-router==0.1.17; do
    venv=$peers/${pinned%%=*}
    [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$pinned" ] || continue
    say "installing $pinned into $venv"
    python3 -m venv --clear "$venv"
    # Wheels alone: a source package would want a Rust tool chain and half an hour.
    if "$venv/bin/python" -m pip install --disable-pip-version-check -q --only-binary :all: "$pinned"; then
        echo "$pinned" >"$venv/.stamp"
    else
        say "$pinned: no wheel for this machine"
        rm -rf "$venv"
    fi
done

# The libraries beside them are those that this project does not need itself.
debs="nginx haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1"
if [ "$(cat $peers/debian/.stamp 2>/dev/null)" != "$debs" ]; then
    say "fetching Debian's nginx and haproxy into $peers/debian"
    rm -rf $peers/debian
    mkdir -p $peers/debian
    if (cd $peers/debian && apt-get download -q $debs >/dev/null); then
        for deb in $peers/debian/*.deb; do
            dpkg-deb -x "$deb" $peers/debian
        done
        rm -f $peers/debian/*.deb
        echo "$debs" >$peers/debian/.stamp
    else
        say "apt-get could not download them"
    fi
fi
