# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes for molecule: LXC system containers with systemd, made from Debian packages alone.

They live in a network namespace of their own with the bridge that joins them, so the host's network is not touched and
removing the namespace removes it all. ``up`` writes molecule's instance configuration to standard output. Everything
else is below the folder given, or carries a name made from it, so that checkouts do not disturb each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

BRIDGE = "holdfast0"
NETWORK = "10.177.21"
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "holdfast-lab", "nodes")
# python3-cffi-backend is named because debootstrap does not see packages that are only provided by others.
PACKAGES = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "iproute2",
    "rsync",
    "procps",
    "udev",
    "python3-venv",
    "python3-packaging",
    "python3-cffi-backend",
    "python3-jmespath",
    "python3-zstandard",
    "python3-libnbd",
    "lxc",
    "uidmap",
    "busybox-static",
    "btrfs-progs",
    "zstd",
    "acl",
    "attr",
]
WHEELS = ["qemu.qmp==0.0.6"]
BOOT_SECONDS = 60

CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = overlay:{base}:{own}
lxc.net.0.type = veth
lxc.net.0.link = {bridge}
lxc.net.0.flags = up
lxc.net.0.hwaddr = 02:77:00:00:00:{number:02x}
lxc.net.0.ipv4.address = {address}/24
lxc.mount.auto = cgroup:rw:force proc:rw sys:rw
lxc.cap.drop =
lxc.autodev = 1
lxc.pty.max = 1024
lxc.apparmor.profile = unconfined
lxc.signal.halt = SIGRTMIN+3
lxc.mount.entry = proc dev/.lxc/proc proc create=dir,optional 0 0
lxc.mount.entry = sys dev/.lxc/sys sysfs create=dir,optional 0 0
lxc.mount.entry = {wheels} opt/wheels none bind,ro,create=dir 0 0
"""

# The node's containers need the host's cgroup tree, but /sys must be that of the namespace for LXC to find the bridge.
ENTER = """\
set -e
mkdir -p {run}/cgroup
mount --rbind /sys/fs/cgroup {run}/cgroup
exec nsenter --net=/run/netns/{namespace} sh -c 'mount -t sysfs sysfs /sys
mount --rbind {run}/cgroup /sys/fs/cgroup
exec "$@"' enter "$@"
"""

# Nodes of another checkout may have the same addresses; a connection kept open must not lead to them.
SSH = """\
#!/bin/sh
exec nsenter --net=/run/netns/{namespace} ssh -o ControlPath={run}/%h "$@"
"""


def run(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command; its output goes to standard error, because standard output is ours."""
    return subprocess.run(argv, check=check, text=True, stdout=sys.stderr)


def ask(*argv: str, check: bool = True) -> str:
    """The output of a command."""
    return subprocess.run(argv, check=check, text=True, stdout=subprocess.PIPE).stdout.strip()


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Hold a folder; a process that was interrupted but still works on it is waited for."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def suite() -> str:
    """The Debian or Ubuntu release of this machine."""
    with open("/etc/os-release", encoding="utf-8") as stream:
        release = dict(line.rstrip("\n").split("=", 1) for line in stream if "=" in line)
    return release["VERSION_CODENAME"].strip('"')


def mirror() -> str:
    """The package mirror that this machine uses."""
    sites = ask("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").splitlines()
    return next((site for site in sites if "security" not in site), "http://deb.debian.org/debian")


def cached(name: str, words: list[str]) -> tuple[str, str]:
    """A folder of the cache that is keyed on ``words``, and where to make it when it does not exist."""
    key = hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]
    folder = os.path.join(CACHE, f"{name}-{key}")
    shutil.rmtree(f"{folder}.new", ignore_errors=True)
    return folder, f"{folder}.new"


def base_root() -> str:
    """A root file system with all packages; made once and kept."""
    root, unfinished = cached("root", [suite(), *PACKAGES])
    if os.path.isdir(root):
        return root
    components = "--components=main,universe" if "ubuntu" in mirror() else "--components=main"
    # What debootstrap mounts ends with its mount namespace, also when it is interrupted.
    run(
        *("unshare", "--mount", "--propagation", "private"),
        *("debootstrap", "--variant=minbase", components, f"--include={','.join(PACKAGES)}"),
        *(suite(), unfinished, mirror()),
    )
    for unit in ("lxc.service", "lxc-net.service", "systemd-networkd-wait-online.service"):
        with contextlib.suppress(FileExistsError):
            os.symlink("/dev/null", os.path.join(unfinished, "etc/systemd/system", unit))
    run("chroot", unfinished, "ssh-keygen", "-A")
    run("chroot", unfinished, "apt-get", "clean")
    for needless in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists"):
        shutil.rmtree(os.path.join(unfinished, needless), ignore_errors=True)
    with open(os.path.join(unfinished, "etc/machine-id"), "w", encoding="utf-8"):
        pass
    os.rename(unfinished, root)
    return root


def wheels() -> str:
    """A directory with the Python packages that Debian does not have; the nodes have no way to an index."""
    folder, unfinished = cached("wheels", WHEELS)
    if not os.path.isdir(folder):
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", unfinished, *WHEELS)
        os.rename(unfinished, folder)
    return folder


class Lab:
    """The nodes of one folder."""

    def __init__(self, folder: str) -> None:
        self.nodes = os.path.join(folder, "nodes")
        self.key = os.path.join(folder, "id")
        self.ssh = os.path.join(folder, "ssh")
        self.namespace = f"holdfast-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
        self.run = f"/run/{self.namespace}"

    def inside(self, *argv: str) -> tuple[str, ...]:
        """An LXC command to be run where the nodes live."""
        script = ENTER.format(namespace=self.namespace, run=self.run)
        return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "inside", *argv)

    def up(self, names: list[str]) -> list[dict[str, str | int]]:
        """Start nodes, and wait until they answer."""
        self.down()
        os.makedirs(CACHE, exist_ok=True)
        with alone(CACHE):
            base, packages = base_root(), wheels()
        os.makedirs(self.nodes)
        os.makedirs(self.run, mode=0o700)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        with open(self.ssh, "w", encoding="utf-8") as stream:
            stream.write(SSH.format(namespace=self.namespace, run=self.run))
        os.chmod(self.ssh, 0o755)
        self._make_network()
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=11)}
        for name, address in addresses.items():
            self._start(name, address, base, packages)
        for address in addresses.values():
            self._wait(address)
        return [
            {"instance": name, "address": address, "user": "root", "port": 22, "identity_file": self.key}
            for name, address in addresses.items()
        ]

    def _make_network(self) -> None:
        """The namespace with the bridge; this machine's end of the bridge has address 1."""
        run("ip", "netns", "add", self.namespace)
        for command in (
            f"link add {BRIDGE} address 02:77:00:00:00:fe type bridge",
            f"address add {NETWORK}.1/24 dev {BRIDGE}",
            f"link set {BRIDGE} up",
            "link set lo up",
        ):
            run("ip", "-n", self.namespace, *command.split())

    def _start(self, name: str, address: str, base: str, packages: str) -> None:
        folder = os.path.join(self.nodes, name)
        # What the node has besides the base root, and what it will write.
        own = os.path.join(folder, "own")
        os.makedirs(os.path.join(own, "etc"))
        os.makedirs(os.path.join(own, "root/.ssh"))
        os.chmod(os.path.join(own, "root"), 0o700)
        shutil.copy(f"{self.key}.pub", os.path.join(own, "root/.ssh/authorized_keys"))
        number = int(address.rpartition(".")[2])
        texts = {
            os.path.join(own, "etc/hostname"): f"{name}\n",
            os.path.join(folder, "config"): CONFIG.format(
                name=name, base=base, own=own, bridge=BRIDGE, number=number, address=address, wheels=packages
            ),
        }
        for path, text in texts.items():
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        run(*self.inside("lxc-start", "-P", self.nodes, "-n", name, "-o", os.path.join(folder, "log")))

    def _wait(self, address: str) -> None:
        """Until systemd on the node says that it has started."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=2", "LogLevel=ERROR")
        login = [self.ssh, "-i", self.key, *(f"-o{option}" for option in options), f"root@{address}"]
        deadline = time.monotonic() + BOOT_SECONDS
        state = ""
        while state not in ("running", "degraded"):
            if time.monotonic() > deadline:
                sys.exit(f"node {address} did not start within {BOOT_SECONDS} s; its state is {state or 'unknown'}")
            state = ask("timeout", "5", *login, "systemctl is-system-running --wait", check=False)
            time.sleep(0.3)

    def down(self) -> None:
        """Stop the nodes and remove what ``up`` made, whatever of it there is."""
        if os.path.exists(f"/run/netns/{self.namespace}"):
            for name in os.listdir(self.nodes) if os.path.isdir(self.nodes) else ():
                if os.path.isfile(os.path.join(self.nodes, name, "config")):
                    self._stop(name)
            # Connections that Ansible keeps open.
            for pid in ask("ip", "netns", "pids", self.namespace).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "delete", self.namespace)
        for folder in (self.nodes, self.run, f"/run/lxc/lock{self.nodes}"):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.key, f"{self.key}.pub", self.ssh):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _stop(self, name: str) -> None:
        node = ("-P", self.nodes, "-n", name)
        run("timeout", "60", *self.inside("lxc-stop", *node, "--kill"), check=False)
        state = ask("timeout", "30", *self.inside("lxc-info", *node, "--state", "--no-humanize"), check=False)
        if state != "STOPPED":
            sys.exit(f"node {name} does not stop, its state is {state or 'unknown'}; see {self.nodes}/{name}/log")


def main() -> None:
    verb, folder, *names = sys.argv[1:]
    lab = Lab(folder)
    with alone(folder):
        if verb == "up":
            sys.stdout.write(json.dumps(lab.up(names)))
        else:
            lab.down()


if __name__ == "__main__":
    main()
