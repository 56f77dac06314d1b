# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A libvirtd of its own for tests.

The daemon runs as the system's would, with QEMU under its own user, but in a mount namespace in which its folders lie
below a scratch folder. The engine and virsh are run in that namespace, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

from helpers.process import wait_for

_CLONE_NEWNS = 0x20000
# KVM that is there but does not work makes libvirtd wait for a minute with each definition.
_DAEMON = r"""
cd "$1"
for folder in etc:/etc/libvirt lib:/var/lib/libvirt run:/run/libvirt log:/var/log/libvirt cache:/var/cache/libvirt \
    tpmlog:/var/log/swtpm tpmca:/var/lib/swtpm-localca; do
    mkdir -p "${folder#*:}"
    mount --bind "${folder%%:*}" "${folder#*:}"
done
[ ! -e /dev/kvm ] || mount --bind kvm /dev/kvm
virtlogd -d -p "$1/run/virtlogd.pid"
exec libvirtd -p "$1/run/libvirtd.pid"
"""
_DAEMON_CONF = """auth_unix_rw = "none"
auth_unix_ro = "none"
"""
_QEMU_CONF = """security_driver = "none"
namespaces = []
cgroup_controllers = []
"""


class Libvirtd:
    """The daemon.

    :param folder: for everything that it keeps; QEMU's user must be able to get there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("etc", "lib/qemu/nvram", "lib/images", "run", "log", "cache", "tpmlog", "tpmca"):
            (folder / name).mkdir(parents=True)
        (folder / "etc" / "libvirtd.conf").write_text(_DAEMON_CONF)
        (folder / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        (folder / "kvm").touch(mode=0o000)
        with contextlib.suppress(LookupError):
            # The user of swtpm makes its certificates there; machines without it have no TPMs.
            shutil.chown(folder / "tpmca", "tss")
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _DAEMON, "libvirtd", str(folder)]
        with (folder / "daemon.log").open("wb") as log:
            self._daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.space = f"/proc/{self._daemon.pid}/ns/mnt"
        wait_for((folder / "run" / "libvirt-sock").exists, "libvirtd", 60)

    def call(self, *argv: str, check: bool = True) -> str:
        """Output of a command that runs where the daemon does."""
        command = ["nsenter", f"--mount={self.space}", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def virsh(self, *args: str, check: bool = True) -> str:
        return self.call("virsh", "-q", "-c", "qemu:///system", *args, check=check).strip()

    def enter(self) -> None:
        """Go where the daemon runs; for processes with one thread."""
        fd = os.open(self.space, os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(fd, _CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        os.close(fd)

    def clear(self) -> None:
        """End and forget all domains."""
        for name in self.virsh("list", "--all", "--name").split():
            self.virsh("destroy", name, check=False)
            self.virsh("undefine", "--nvram", name, check=False)

    def close(self) -> None:
        self.clear()
        self._daemon.terminate()
        self._daemon.wait(30)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.folder / "run" / "virtlogd.pid").read_text()), 15)
