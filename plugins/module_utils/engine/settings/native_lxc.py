# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LXC's own config of a container, and the Proxmox VE config that says the same."""

from __future__ import annotations

import re

from ..errors import ConfigError
from .guest_config import GuestConfig

_ARCHITECTURES = {
    "x86_64": "amd64", "amd64": "amd64", "linux64": "amd64", "i686": "i386", "x86": "i386", "linux32": "i386",
    "aarch64": "arm64", "arm64": "arm64", "armv7l": "armhf", "riscv64": "riscv64",
}  # fmt: skip
_DEFAULT_MAPS = {"u 0 100000 65536", "g 0 100000 65536"}
_FOLDER_PREFIXES = ("dir:", "btrfs:", "lvm:", "loop:")
_SYSTEM = ("/proc", "/sys", "/dev")


def native_keys(text: str) -> list[tuple[str, str]]:
    """The ``lxc.*`` lines; included files are not followed."""
    found = []
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip().startswith("lxc."):
            found.append((key.strip(), value.strip().strip('"')))
    return found


def native_root(text: str) -> str:
    """What holds the root file system: a folder, an image, a block device, a dataset's name, or ``overlay:...``.

    :raises ConfigError: the config does not say.
    """
    root = dict(native_keys(text)).get("lxc.rootfs.path", "")
    if root.startswith(("overlay:", "overlayfs:", "zfs:")):
        return root
    for prefix in _FOLDER_PREFIXES:
        if root.startswith(prefix):
            root = root[len(prefix) :]
    if not root:
        raise ConfigError(
            "the config has no lxc.rootfs.path", hint="containers without a root of their own have no data"
        )
    return root


def config_from_native(name: str, text: str) -> GuestConfig:
    """The Proxmox VE config of a native container.

    Its root is written as a host path. Folders of the host that are mounted into it become bind mount points, which
    backups leave out.
    """
    keys = native_keys(text)
    first = dict(reversed(keys))
    values = {
        "arch": _ARCHITECTURES.get(first.get("lxc.arch", "x86_64"), "amd64"),
        "hostname": re.sub(r"[^A-Za-z0-9.-]", "-", first.get("lxc.uts.name", name)),
        "ostype": "unmanaged",
        "rootfs": native_root(text),
    }
    maps = [value for key, value in keys if key == "lxc.idmap"]
    if maps:
        values["unprivileged"] = "1"
    memory = re.fullmatch(r"(\d+)([KMG]?)", first.get("lxc.cgroup2.memory.max", ""))
    if memory:
        values["memory"] = str(int(memory[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[memory[2]] >> 20)
    for number, (source, target) in enumerate(_bind_mounts(keys)):
        values[f"mp{number}"] = f"{source},mp={target}"
    values.update(_nets(keys))
    raw = [("lxc.idmap", one) for one in maps] if {" ".join(one.split()) for one in maps} - _DEFAULT_MAPS else []
    raw += [(key, value) for key, value in keys if key == "lxc.rootfs.options" and "idmap=" in value]
    return GuestConfig(values=tuple(values.items()), raw=tuple(raw))


def _bind_mounts(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    found = []
    for key, value in keys:
        fields = value.split()
        if key != "lxc.mount.entry" or len(fields) < 4 or "bind" not in fields[3]:
            continue
        source, target = (field.replace("\\040", " ") for field in fields[:2])
        if source.startswith("/") and not source.startswith(_SYSTEM) and "," not in source + target:
            found.append((source, "/" + target.lstrip("/")))
    return found


def _nets(keys: list[tuple[str, str]]) -> dict[str, str]:
    cards: dict[str, dict[str, str]] = {}
    for key, value in keys:
        match = re.fullmatch(r"lxc\.net\.(\d+)\.([a-z0-9.]+)", key)
        if match:
            cards.setdefault(match[1], {}).setdefault(match[2], value)
    nets = {}
    for number, card in cards.items():
        if card.get("type") != "veth":
            continue
        options = {"name": card.get("name", f"eth{number}"), "bridge": card.get("link"), "hwaddr": card.get("hwaddr"),
                   "ip": card.get("ipv4.address"), "gw": card.get("ipv4.gateway"), "type": "veth"}  # fmt: skip
        nets[f"net{number}"] = ",".join(f"{option}={value}" for option, value in options.items() if value)
    return nets
