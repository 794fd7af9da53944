#!/bin/sh
# Builds the runtime bundle (containerd, runc, shim) into the folder given, all static. runc needs gcc, pkg-config and
# libseccomp with its static library (Debian: libseccomp-dev).
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"

if ! pkg-config --exists libseccomp; then
	echo "libseccomp is missing: install gcc, pkg-config and libseccomp-dev" >&2
	exit 1
fi

CGO_ENABLED=0 go build -trimpath \
	-ldflags '-s -w -X github.com/containerd/containerd/v2/version.Version=2.4.2' \
	-tags 'no_btrfs no_devmapper no_zfs urfave_cli_no_docs' \
	-o "$out/containerd" ./cmd/containerd
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -tags no_grpc \
	-o "$out/containerd-shim-slipway-v1" ./cmd/containerd-shim-slipway-v1
# runc starts four times for each container: what it does not link (checkpoints, a writer of manual pages) need not start.
CGO_ENABLED=1 go build -trimpath -ldflags '-s -w -extldflags "-static"' \
	-tags 'seccomp netgo osusergo runc_nocriu urfave_cli_no_docs' \
	-o "$out/runc" github.com/opencontainers/runc
