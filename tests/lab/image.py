# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel and initial RAM disk of the laboratory's VM, made from the distribution's packages and kept in a cache.

The RAM disk holds a static busybox, the guest agent with its libraries, and the kernel modules that the VM's devices
need. There is no other operating system; the disks hold data only.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import stat
import tempfile

from .commands import run
from .guest import INIT, SHUTDOWN, WRITER

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holdfast-lab", "vm")
KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64")
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_console", "ext4", "evdev", "button")
FOLDERS = (
    "bin", "sbin", "dev", "proc", "sys", "etc/acpi/PWRF", "run", "tmp", "var/log", "var/run", "lib", "a", "b",
    "usr/bin", "usr/sbin", "modules",
)  # fmt: skip


def boot_files() -> tuple[str, str]:
    """Paths of kernel and RAM disk; made when the cache does not hold them."""
    key = hashlib.sha256((INIT + SHUTDOWN + WRITER + " ".join(MODULES)).encode()).hexdigest()[:12]
    folder = os.path.join(CACHE, key)
    if not os.path.isdir(folder):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            made = os.path.join(scratch, "made")
            os.makedirs(made)
            _make(scratch, made)
            os.rename(made, folder)
    return os.path.join(folder, "vmlinuz"), os.path.join(folder, "initrd")


def _make(scratch: str, made: str) -> None:
    packages = os.path.join(scratch, "packages")
    for name in [*_kernel_packages(), "qemu-guest-agent"]:
        _unpack(scratch, packages, name)
    boot = os.path.join(packages, "boot")
    kernel = next(name for name in sorted(os.listdir(boot)) if name.startswith("vmlinuz-"))
    shutil.copy(os.path.join(boot, kernel), os.path.join(made, "vmlinuz"))
    root = os.path.join(scratch, "root")
    for name in FOLDERS:
        os.makedirs(os.path.join(root, name))
    _busybox(root)
    _agent(root, packages)
    _modules(root, packages, kernel.split("-", 1)[1])
    for path, text in (("init", INIT), ("sbin/shutdown", SHUTDOWN), ("bin/writer", WRITER)):
        target = os.path.join(root, path)
        with open(target, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(target, 0o755)
    power = os.path.join(root, "etc/acpi/PWRF/00000080")
    shutil.copy(os.path.join(root, "sbin/shutdown"), power)
    _pack(root, os.path.join(made, "initrd"))


def _kernel_packages() -> list[str]:
    """The packages of this distribution's small kernel: image, and modules where those are apart."""
    for meta in KERNELS:
        text = run("apt-cache", "depends", meta, check=False)
        names = re.findall(r"Depends: (linux-(?:image|modules)-\d\S+)", text)
        if names:
            images = [name for name in names if "-image-" in name][:1]
            return [*images, *(name.replace("-image-", "-modules-") for name in images if "virtual" in meta)]
    raise RuntimeError("there is no kernel package for the laboratory's VM")


def _unpack(scratch: str, target: str, name: str) -> None:
    before = set(os.listdir(scratch))
    run("apt-get", "download", "-q", name, cwd=scratch)
    (archive,) = (entry for entry in set(os.listdir(scratch)) - before if entry.endswith(".deb"))
    run("dpkg-deb", "-x", os.path.join(scratch, archive), target)


def _busybox(root: str) -> None:
    busybox = os.path.join(root, "bin", "busybox")
    shutil.copy(shutil.which("busybox") or "/bin/busybox", busybox)
    for applet in run(busybox, "--list").split():
        path = os.path.join(root, "bin", applet)
        if not os.path.lexists(path):
            os.symlink("busybox", path)


def _agent(root: str, packages: str) -> None:
    """The agent and the libraries that it needs, taken from this machine; QEMU needs the same ones."""
    agent = os.path.join(packages, "usr", "sbin", "qemu-ga")
    shutil.copy(agent, os.path.join(root, "usr", "sbin", "qemu-ga"))
    listing = run("ldd", agent)
    missing = re.findall(r"(\S+) => not found", listing)
    if missing:
        raise RuntimeError(f"the guest agent needs libraries that this machine does not have: {', '.join(missing)}")
    for library in re.findall(r"(/\S+) \(0x", listing):
        target = os.path.join(root, library.lstrip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(library, target)


def _modules(root: str, packages: str, version: str) -> None:
    """The modules and what they depend on, numbered in the order of loading; those built in are left out."""
    base = packages if os.path.isdir(os.path.join(packages, "lib", "modules")) else os.path.join(packages, "usr")
    run("depmod", "-b", base, version)
    order: list[str] = []
    for module in MODULES:
        text = run("modprobe", "-d", base, "-S", version, "--show-depends", module, check=False)
        for path in re.findall(r"^insmod (\S+)", text, re.MULTILINE):
            if path not in order:
                order.append(path)
    for number, path in enumerate(order):
        name = os.path.basename(path)
        target = os.path.join(root, "modules", f"{number:02d}-{name}")
        shutil.copy(path, target)
        if name.endswith(".xz"):
            run("xz", "-d", target)
        elif name.endswith(".zst"):
            run("zstd", "-q", "-d", "--rm", target)


def _pack(root: str, target: str) -> None:
    """The folder as a compressed archive in the form that the kernel unpacks (cpio, newc)."""
    with gzip.open(target, "wb", compresslevel=1) as stream:
        number = 1
        for folder, subfolders, names in os.walk(root):
            for name in [*subfolders, *names]:
                path = os.path.join(folder, name)
                stream.write(_cpio_entry(os.path.relpath(path, root), path, number))
                number += 1
        stream.write(_cpio_member("TRAILER!!!", 0, b"", 0))


def _cpio_entry(name: str, path: str, number: int) -> bytes:
    mode = os.lstat(path).st_mode
    data = b""
    if stat.S_ISLNK(mode):
        data = os.fsencode(os.readlink(path))
    elif stat.S_ISREG(mode):
        with open(path, "rb") as stream:
            data = stream.read()
    return _cpio_member(name, mode, data, number)


def _cpio_member(name: str, mode: int, data: bytes, number: int) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
