#!/usr/bin/env bash
# Builds slipway and its runtime for ARCH (amd64, arm64) into OUT, the same bytes from the same sources, and runs each
# once. For the other architecture than this machine's, Debian's cross compiler and emulator are installed.
# usage: build.sh ARCH OUT LDFLAGS
set -euo pipefail
arch=$1 out=$2 ldflags=$3
case $arch in
amd64) triplet=x86_64-linux-gnu compiler=gcc-x86-64-linux-gnu libc=libc6-dev-amd64-cross emulator=qemu-x86_64-static ;;
arm64) triplet=aarch64-linux-gnu compiler=gcc-aarch64-linux-gnu libc=libc6-dev-arm64-cross emulator=qemu-aarch64-static ;;
*) echo "build.sh: $arch is neither amd64 nor arm64" >&2; exit 1 ;;
esac
[ "$arch" != "$(go env GOHOSTARCH)" ] || emulator=

missing() { ! command -v $triplet-gcc || ! [ -e /usr/lib/$triplet/libseccomp.a ] || ! command -v pkg-config || { [ -n "$emulator" ] && ! command -v $emulator; }; }
if missing >/dev/null; then
	echo "installing what $arch is built with"
	packages=(gcc pkg-config "libseccomp-dev:$arch")
	[ -z "$emulator" ] || { dpkg --add-architecture "$arch"; packages+=("$compiler" "$libc" qemu-user-static); }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

mkdir -p "$out/runtime"
export GOARCH=$arch CC=$triplet-gcc PKG_CONFIG_LIBDIR=/usr/lib/$triplet/pkgconfig GOFLAGS="${GOFLAGS:-} -buildvcs=false"
CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$out/slipway" ./cmd/slipway
nodeagent/runtime/bundle/build.sh "$out/runtime"

for program in slipway runtime/containerd runtime/containerd-shim-slipway-v1 runtime/runc; do
	if readelf -lW "$out/$program" | grep -q INTERP; then
		echo "$out/$program needs libraries of the machine it runs on" >&2
		exit 1
	fi
done
$emulator "$out/slipway" version
$emulator "$out/runtime/containerd" --version
$emulator "$out/runtime/containerd-shim-slipway-v1" -v
$emulator "$out/runtime/runc" --version
