# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether KVM is good for anything here: a device that opens is no proof, so a kernel has to boot."""

from __future__ import annotations

import os
import subprocess

from .guest import BOOTED
from .image import CACHE, boot_files

SECONDS = 20


def usable() -> bool:
    """Whether the laboratory's kernel boots under KVM; tried once per boot of this machine."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        note = os.path.join(CACHE, f"kvm-{stream.read().strip()}")
    if not os.path.exists(note):
        answer = "yes" if _boots() else "no"
        os.makedirs(CACHE, exist_ok=True)
        with open(note, "w", encoding="ascii") as stream:
            stream.write(answer)
    with open(note, encoding="ascii") as stream:
        return stream.read() == "yes"


def _boots() -> bool:
    kernel, initrd = boot_files()
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-m", "128", "-nodefaults", "-no-reboot", "-display", "none"]
    argv += ["-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet lab=probe", "-serial", "stdio"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        return False
    return BOOTED in done.stdout
