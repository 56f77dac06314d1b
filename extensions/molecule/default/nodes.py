# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes for molecule: LXC system containers with systemd, made from Debian packages alone.

They live in a network namespace of their own with the bridge that joins them, so the host's network is not touched and
removing the namespace removes it all. ``up`` writes molecule's instance configuration to standard output.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

NAMESPACE = "holdfast-molecule"
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
    "python3-zstandard",
    "python3-libnbd",
    "lxc",
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
lxc.rootfs.path = dir:{root}
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
mkdir -p /run/{namespace}
mount --rbind /sys/fs/cgroup /run/{namespace}
exec nsenter --net=/run/netns/{namespace} sh -c 'mount -t sysfs sysfs /sys
mount --rbind /run/{namespace} /sys/fs/cgroup
exec "$@"' enter "$@"
"""


def run(*argv: str, check: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command; its output goes to standard error, because standard output is ours."""
    return subprocess.run(argv, check=check, text=True, stdout=sys.stderr, **more)  # type: ignore[call-overload]


def inside(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run an LXC command where the nodes live."""
    script = ENTER.format(namespace=NAMESPACE)
    return run("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "inside", *argv, check=check)


def suite() -> str:
    """The Debian or Ubuntu release of this machine."""
    with open("/etc/os-release", encoding="utf-8") as stream:
        release = dict(line.rstrip("\n").split("=", 1) for line in stream if "=" in line)
    return release["VERSION_CODENAME"].strip('"')


def mirror() -> str:
    """The package mirror that this machine uses."""
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        check=True,
        text=True,
        capture_output=True,
    ).stdout.splitlines()
    return next((site for site in sites if "security" not in site), "http://deb.debian.org/debian")


def base_root() -> str:
    """A root file system with all packages; made once and kept."""
    key = hashlib.sha256(" ".join([suite(), *PACKAGES]).encode()).hexdigest()[:12]
    root = os.path.join(CACHE, f"root-{key}")
    if os.path.isdir(root):
        return root
    os.makedirs(CACHE, exist_ok=True)
    unfinished = f"{root}.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    components = "--components=main,universe" if "ubuntu" in mirror() else "--components=main"
    run(
        "debootstrap", "--variant=minbase", components, f"--include={','.join(PACKAGES)}", suite(), unfinished, mirror()
    )
    for unit in ("lxc.service", "lxc-net.service", "systemd-networkd-wait-online.service"):
        path = os.path.join(unfinished, "etc/systemd/system", unit)
        with contextlib.suppress(FileExistsError):
            os.symlink("/dev/null", path)
    run("chroot", unfinished, "ssh-keygen", "-A")
    with open(os.path.join(unfinished, "etc/machine-id"), "w", encoding="utf-8"):
        pass
    os.rename(unfinished, root)
    return root


def wheels() -> str:
    """A directory with the Python packages that Debian does not have; the nodes have no way to an index."""
    folder = os.path.join(CACHE, "wheels")
    if not (os.path.isdir(folder) and os.listdir(folder)):
        environment = os.path.join(CACHE, "venv")
        run("/usr/bin/python3", "-m", "venv", environment)
        run(os.path.join(environment, "bin/pip"), "wheel", "--no-deps", "-q", "-w", folder, *WHEELS)
    return folder


def network() -> None:
    """The namespace with the bridge; this machine's end of the bridge has address 1."""
    run("ip", "netns", "add", NAMESPACE)
    for command in (
        f"link add {BRIDGE} address 02:77:00:00:00:fe type bridge",
        f"address add {NETWORK}.1/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        "link set lo up",
    ):
        run("ip", "-n", NAMESPACE, *command.split())


def up(folder: str, names: list[str]) -> None:
    """Start the nodes and wait until they answer."""
    down(folder, names)
    base, packages = base_root(), wheels()
    nodes = os.path.join(folder, "nodes")
    os.makedirs(nodes)
    key = os.path.join(folder, "id")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    ssh = os.path.join(folder, "ssh")
    with open(ssh, "w", encoding="utf-8") as stream:
        stream.write(f'#!/bin/sh\nexec nsenter --net=/run/netns/{NAMESPACE} ssh "$@"\n')
    os.chmod(ssh, 0o755)
    network()
    instances = []
    for number, name in enumerate(names, start=11):
        address = f"{NETWORK}.{number}"
        root = os.path.join(nodes, name, "rootfs")
        os.makedirs(os.path.dirname(root))
        run("cp", "-a", "--reflink=auto", base, root)
        os.makedirs(os.path.join(root, "root/.ssh"), mode=0o700, exist_ok=True)
        shutil.copy(f"{key}.pub", os.path.join(root, "root/.ssh/authorized_keys"))
        with open(os.path.join(root, "etc/hostname"), "w", encoding="utf-8") as stream:
            stream.write(f"{name}\n")
        with open(os.path.join(nodes, name, "config"), "w", encoding="utf-8") as stream:
            stream.write(
                CONFIG.format(name=name, root=root, bridge=BRIDGE, number=number, address=address, wheels=packages)
            )
        inside("lxc-start", "-P", nodes, "-n", name, "-o", os.path.join(nodes, f"{name}.log"))
        instances.append({"instance": name, "address": address, "user": "root", "port": 22, "identity_file": key})
    for instance in instances:
        wait(ssh, key, str(instance["address"]))
    sys.stdout.write(json.dumps(instances))


def wait(ssh: str, key: str, address: str) -> None:
    """Until systemd on the node says that it has started."""
    deadline = time.monotonic() + BOOT_SECONDS
    options = [
        "-i",
        key,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ConnectTimeout=2",
    ]
    command = ["timeout", "5", ssh, *options, f"root@{address}", "systemctl is-system-running --wait"]
    while time.monotonic() < deadline:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() in ("running", "degraded"):
            return
        time.sleep(0.5)
    sys.exit(f"node {address} did not start within {BOOT_SECONDS} s: {done.stdout}{done.stderr}")


def down(folder: str, names: list[str]) -> None:
    """Stop the nodes and remove what ``up`` made, whatever of it there is."""
    nodes = os.path.join(folder, "nodes")
    if os.path.exists(f"/run/netns/{NAMESPACE}"):
        for name in names:
            if os.path.isfile(os.path.join(nodes, name, "config")):
                inside("lxc-stop", "-P", nodes, "-n", name, "--kill", check=False)
        run("ip", "netns", "delete", NAMESPACE)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(f"/run/{NAMESPACE}")
    shutil.rmtree(nodes, ignore_errors=True)
    for name in ("id", "id.pub", "ssh"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))


def main() -> None:
    verb, folder, *names = sys.argv[1:]
    {"up": up, "down": down}[verb](folder, names)


if __name__ == "__main__":
    main()
