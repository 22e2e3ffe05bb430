#!/bin/sh
# Installs the Debian packages that are missing: deploy/setup.sh run|test|bench
#
# Says what it does. Does nothing, and needs neither root nor a network, when all are there.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kind=${1:-run}
case $kind in
run) wanted=$(awk '$1 == "run" {print $2}' "$here/packages.txt") ;;
test) wanted=$(awk '$1 ~ /^(run|test)$/ {print $2}' "$here/packages.txt") ;;
bench) wanted=$(awk '$1 ~ /^(run|test|bench)$/ {print $2}' "$here/packages.txt") ;;
*)
    echo "usage: deploy/setup.sh run|test|bench" >&2
    exit 2
    ;;
esac

say() { echo "setup: $*" >&2; }

if ! command -v dpkg-query >/dev/null; then
    say "this is no Debian system, so nothing is installed here. Needed are your system's names for:"
    say "$(echo $wanted)"
    exit 0
fi

# dpkg-query fails when one is unknown; what it prints of the others still counts.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
    awk '$1 == "installed" {print $2}') || true
missing=$(printf '%s\n' $wanted | grep -vxF "$installed" || true)
[ -n "$missing" ] || exit 0
missing=$(echo $missing)

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif ! command -v sudo >/dev/null; then
    say "these packages are missing: $missing"
    say "You are not root and there is no sudo. As root, type:"
    say "    apt-get install -y --no-install-recommends $missing"
    exit 1
elif [ -t 0 ] || sudo -n true 2>/dev/null; then
    as_root=sudo
else
    say "these packages are missing: $missing"
    say "sudo wants a password and there is no terminal to ask at. Run this in a terminal once."
    exit 1
fi

fail() {
    say "apt-get could not $1 (its words are above)."
    say "Is there a network, and does /etc/apt/sources.list name a mirror of Debian 12?"
    exit 1
}

say "installing Debian packages: $missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q >&2 || fail "read the package lists"
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends $missing >&2 || fail "install them"
say "all packages are there"
