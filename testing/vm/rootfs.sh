#!/usr/bin/env bash
# Makes what the virtual machine boots from, out of Debian packages alone: OUT/vmlinuz, OUT/modules (in the order they
# are loaded before the disk can be read) and OUT/root.raw, an ext4 disk with systemd on cgroup v2. Nothing is installed
# on this machine but the tools named below. What is there already is kept: remove OUT to make it anew.
# usage: rootfs.sh OUT
set -euo pipefail
out=$(realpath -m "${1:?usage: rootfs.sh OUT}")
suite=bookworm
mirror=http://deb.debian.org/debian
kernel=linux-image-cloud-amd64
guest=systemd-sysv,udev,kmod
tools=(qemu-system-x86 qemu-utils mmdebstrap e2fsprogs debian-archive-keyring)

if ! dpkg -s "${tools[@]}" >/dev/null 2>&1; then
	echo "installing ${tools[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${tools[@]}" >/dev/null
fi
[ ! -e "$out/root.raw" ] || exit 0

echo "making the virtual machine's disk from Debian $suite (a few minutes, once)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$out" "$work/deb"

# The kernel is fetched and unpacked; its package would make an initrd, which takes longer than all the rest.
cat >"$work/kernel" <<-'HOOK'
	#!/bin/sh
	set -eu
	export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
	cd "$DEBS"
	apt-get download "$(apt-cache depends --important "$KERNEL" | sed -n 's/ *Depends: \(linux-image-.*\)/\1/p')"
HOOK
chmod 755 "$work/kernel" && chmod 777 "$work/deb"
DEBS="$work/deb" KERNEL="$kernel" mmdebstrap --quiet --mode=root --variant=minbase --include="$guest" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--essential-hook="$work/kernel" --format=directory \
	"$suite" "$work/root" "deb $mirror $suite main" "deb $mirror-security $suite-security main"
dpkg-deb -x "$work"/deb/linux-image-*.deb "$work/kernel-tree"

release=$(ls "$work/kernel-tree/lib/modules")
cp "$work/kernel-tree/boot/vmlinuz-$release" "$out/vmlinuz"
mkdir -p "$work/root/lib/modules"
cp -r "$work/kernel-tree/lib/modules/$release" "$work/root/lib/modules/"
chroot "$work/root" depmod "$release"
rm -rf "$out/modules" && mkdir "$out/modules"
chroot "$work/root" modprobe -S "$release" --show-depends virtio_pci >"$work/order"
chroot "$work/root" modprobe -S "$release" --show-depends virtio_blk >>"$work/order"
awk '$1 == "insmod" && !seen[$2]++ {print $2}' "$work/order" | nl -n rz -w 2 | while read -r n module; do
	cp "$work/root$module" "$out/modules/$n-$(basename "$module")"
done

etc=$work/root/etc
echo slipway-vm >"$etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 slipway-vm\n' >"$etc/hosts"
echo 'nameserver 10.0.2.3' >"$etc/resolv.conf"
echo '/dev/vda / ext4 defaults 0 1' >"$etc/fstab"
printf '[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$etc/systemd/network/10-outward.network"
mkdir -p "$etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' >"$etc/systemd/journald.conf.d/volatile.conf"
printf '[Unit]\nDescription=Does what the test asks\n[Service]\nExecStart=/usr/local/bin/guest serve :9000\nRestart=always\nOOMScoreAdjust=-1000\n[Install]\nWantedBy=multi-user.target\n' \
	>"$etc/systemd/system/guest.service"
systemctl --quiet --root="$work/root" enable systemd-networkd systemd-networkd-wait-online guest
systemctl --quiet --root="$work/root" mask getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
systemctl --quiet --root="$work/root" set-default multi-user.target

truncate -s 4G "$work/root.raw"
mke2fs -q -t ext4 -d "$work/root" "$work/root.raw"
mv "$work/root.raw" "$out/root.raw"
