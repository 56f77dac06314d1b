# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disk images of nodes that have what this machine's kernel lacks, made from Debian packages and kept in a cache.

A node runs one job and switches itself off: no network, no services. Its first process is a script of a few lines.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holdfast-lab", "images")
UML_MODULES = "/usr/lib/uml/modules"
MIRROR = "http://deb.debian.org/debian"

COMMON = (
    "acl,attr,btrfs-progs,busybox-static,e2fsprogs,iproute2,kmod,libcap2-bin,lxc,procps,python3,"
    "python3-pytest,python3-zstandard,rsync,udev,uidmap,util-linux,zstd"
)
PACKAGES = {
    "uml": f"{COMMON},lvm2,thin-provisioning-tools,xfsprogs",
    "zfs": f"{COMMON},gcc,initramfs-tools,linux-headers-amd64,linux-image-amd64,make,zfs-dkms,zfsutils-linux",
}
MODULES = "9p\n9pnet_virtio\nvirtio_pci\nvirtio_blk\next4\n"
"""What the initial RAM disk of a QEMU node needs."""

INIT = """\
#!/bin/sh
# First process of a node: make the job's surroundings, run it, switch off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
/lib/systemd/systemd-udevd --daemon
udevadm trigger
udevadm settle
ip link set lo up
modprobe loop 2>/dev/null
modprobe fuse 2>/dev/null
if [ -n "$repository" ]; then
    mount -t hostfs -o "$repository" none /repository
    mount -t hostfs -o "$exchange" none /exchange
else
    mount -t 9p -o trans=virtio,version=9p2000.L,ro repository /repository
    mount -t 9p -o trans=virtio,version=9p2000.L exchange /exchange
fi
cd /repository
sh /exchange/job >/exchange/log 2>&1
echo $? >/exchange/status
sync
poweroff -f
"""


def image(kind: str) -> str:
    """Folder with ``root.img``, and for QEMU nodes ``vmlinuz`` and ``initrd``; made when the cache lacks it."""
    key = hashlib.sha256((PACKAGES[kind] + INIT + MODULES).encode()).hexdigest()[:12]
    folder = os.path.join(CACHE, f"{kind}-{key}")
    if not os.path.isdir(folder):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            os.chmod(scratch, 0o755)
            made = os.path.join(scratch, "made")
            os.mkdir(made)
            _make(kind, os.path.join(scratch, "root"), made)
            os.rename(made, folder)
    return folder


def _make(kind: str, root: str, made: str) -> None:
    _run(
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", "--components=main contrib"),
        *('--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *(f"--include={PACKAGES[kind]}", "bookworm", root, MIRROR),
    )
    for name in ("repository", "exchange"):
        os.mkdir(os.path.join(root, name))
    init = os.path.join(root, "node-init")
    with open(init, "w", encoding="ascii") as stream:
        stream.write(INIT)
    os.chmod(init, 0o755)
    for name in ("subuid", "subgid"):
        with open(os.path.join(root, "etc", name), "w", encoding="ascii") as stream:
            stream.write("root:100000:65536\n")
    if kind == "uml":
        for version in os.listdir(UML_MODULES):
            shutil.copytree(os.path.join(UML_MODULES, version), os.path.join(root, "lib/modules", version))
            _run("chroot", root, "depmod", "-a", version)
    else:
        with open(os.path.join(root, "etc/initramfs-tools/modules"), "w", encoding="ascii") as stream:
            stream.write(MODULES)
        _run("chroot", root, "update-initramfs", "-u", "-k", "all")
        boot = os.path.join(root, "boot")
        for start, name in (("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")):
            found = next(entry for entry in sorted(os.listdir(boot)) if entry.startswith(start))
            shutil.copy(os.path.join(boot, found), os.path.join(made, name))
    disk = os.path.join(made, "root.img")
    with open(disk, "wb") as stream:
        stream.truncate(6 << 30)
    _run("mkfs.ext4", "-q", "-F", "-d", root, disk)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed with status {done.returncode}:\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PACKAGES:
        sys.stdout.write(f"{wanted}: {image(wanted)}\n")
