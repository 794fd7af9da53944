#!/usr/bin/env bash
# Fetches Debian's kubernetes-client package (kubectl 1.20) without installing it: the oldest client tests use.
set -euo pipefail
out=$(realpath -m "${1:?usage: debian-kubectl.sh FILE}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
apt-get download kubernetes-client >log 2>&1 || { apt-get update >>log 2>&1 && apt-get download kubernetes-client >>log 2>&1; } ||
	{ cat log; echo "cannot fetch Debian's kubernetes-client package"; exit 1; }
dpkg -x kubernetes-client_*.deb tree
install -D -m 755 tree/usr/bin/kubectl "$out"
