# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk image of a node that has what this machine's kernel may lack, made from Debian packages, kept in a cache.

A node runs one job and switches itself off: no network, no services. Its first process is a script of a few lines.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holdfast-lab", "images")
MIRROR = "http://deb.debian.org/debian"

PACKAGES = (
    "acl,attr,btrfs-progs,busybox-static,cifs-utils,e2fsprogs,gcc,initramfs-tools,iproute2,kmod,libcap2-bin,"
    "libvirt-clients,libvirt-daemon-driver-qemu,libvirt-daemon-system,linux-headers-amd64,linux-image-amd64,lvm2,lxc,"
    "make,nfs-kernel-server,nftables,procps,python3,python3-libnbd,python3-libvirt,python3-pytest,python3-zstandard,"
    "qemu-system-common,qemu-system-x86,qemu-utils,rsync,samba,swtpm,swtpm-tools,thin-provisioning-tools,udev,uidmap,"
    "util-linux,xfsprogs,zfs-dkms,zfsutils-linux,zstd"
)
MODULES = "9p\n9pnet_virtio\nvirtio_pci\nvirtio_blk\next4\n"
"""What the initial RAM disk needs."""

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
mount -t 9p -o trans=virtio,version=9p2000.L,ro repository /repository
mount -t 9p -o trans=virtio,version=9p2000.L exchange /exchange
cd /repository
sh /exchange/job >/exchange/log 2>&1
echo $? >/exchange/status
sync
busybox poweroff -f
"""


def image() -> str:
    """Folder with ``root.img``, ``vmlinuz`` and ``initrd``; made in some ten minutes when there is none."""
    key = hashlib.sha256((PACKAGES + INIT + MODULES).encode()).hexdigest()[:12]
    folder = os.path.join(CACHE, key)
    if not os.path.isdir(folder):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            os.chmod(scratch, 0o755)
            made = os.path.join(scratch, "made")
            os.mkdir(made)
            _make(os.path.join(scratch, "root"), made)
            os.rename(made, folder)
    return folder


def _make(root: str, made: str) -> None:
    _run(
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", "--components=main contrib"),
        *('--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *(f"--include={PACKAGES}", "bookworm", root, MIRROR),
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
