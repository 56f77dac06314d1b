# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container config in Proxmox VE syntax becomes a native LXC config."""

from __future__ import annotations

import os
import re
import shlex
from typing import Iterable

from ...errors import ConfigError, GuestError
from ...settings.ct_config import Mount, ct_mounts, ct_nets, is_unprivileged
from ...settings.guest_config import GuestConfig
from ..model import Resolve

DEFAULT_IDMAPS = ("u:0:100000:65536", "g:0:100000:65536")
_IGNORED = frozenset(
    [
        "arch",
        "cmode",
        "console",
        "cpulimit",
        "cpuunits",
        "debug",
        "description",
        "features",
        "hookscript",
        "hostname",
        "lock",
        "memory",
        "cores",
        "nameserver",
        "onboot",
        "ostype",
        "pool",
        "protection",
        "searchdomain",
        "startup",
        "swap",
        "tags",
        "template",
        "timezone",
        "tty",
        "unprivileged",
    ]
)
_INCLUDE = "/usr/share/lxc/config/common.conf"
_UNPRIVILEGED_INCLUDE = "/usr/share/lxc/config/userns.conf"


def idmaps(config: GuestConfig) -> tuple[str, ...]:
    """User and group maps of a container as ``u:0:100000:65536``; none for a privileged one.

    :raises ConfigError: an ``lxc.idmap`` line that is not one.
    """
    maps = []
    for key, value in config.raw:
        if key == "lxc.idmap":
            if not re.fullmatch(r"[ug](?:\s+[0-9]{1,10}){3}", value):
                raise ConfigError(f"failed to parse lxc.idmap: {value!r}", hint="write 'u 0 100000 65536'")
            maps.append(":".join(value.split()))
    if maps:
        return tuple(maps)
    return DEFAULT_IDMAPS if is_unprivileged(config) else ()


def shift(config: GuestConfig) -> tuple[str, ...]:
    """The maps by which files are shifted on disk: none where LXC maps the root file system when it mounts it."""
    mapped = any(key == "lxc.rootfs.options" and "idmap=" in value for key, value in config.raw)
    return () if mapped else idmaps(config)


def render(folder: str, vmid: int, config: GuestConfig, resolve: Resolve) -> str:
    """The native config of a container.

    :param folder: its folder in LXC's path.
    :raises ConfigError: a key that would be silently without effect, or an impossible value.
    :raises GuestError: a volume of a kind that LXC cannot start from, or a bridge that does not exist.
    """
    known = re.compile(r"rootfs|mp\d+|net\d+|dev\d+|unused\d+")
    for key, _value in config.items():
        if key not in _IGNORED and not known.fullmatch(key):
            raise ConfigError(f"container {vmid}: the key {key!r} is not supported", hint="remove it from its config")
    mounts = ct_mounts(config)
    root = place(folder, mounts[0], resolve)
    maps = idmaps(config)
    lines = [f"lxc.include = {path}" for path in _includes(bool(maps))]
    lines += [
        f"lxc.uts.name = {config.get('hostname') or f'CT{vmid}'}",
        f"lxc.rootfs.path = dir:{root}",
        *(["lxc.rootfs.options = ro"] if mounts[0].read_only and not _has_raw(config, "lxc.rootfs.options") else []),
        "lxc.tty.max = 2",
        "lxc.pty.max = 1024",
        f"lxc.apparmor.profile = {_apparmor()}",
        *_halt_signal(root),
        *(f"lxc.idmap = {one.replace(':', ' ')}" for one in maps if not _has_raw(config, "lxc.idmap")),
        *_limits(config),
        *_network(vmid, config),
        *(line for mount in mounts if mounted(mount, resolve) for line in _hooks(folder, mount, resolve)),
        *(_mount_entry(mount, place(folder, mount, resolve)) for mount in outer_first(mounts[1:])),
        *(f"{key} = {value}" for key, value in config.raw),
    ]
    return "".join(f"{line}\n" for line in lines)


def outer_first(mounts: Iterable[Mount]) -> list[Mount]:
    """Mount points in the order in which they can be mounted: one that lies in another comes after it."""
    return sorted(mounts, key=lambda mount: len([part for part in mount.mountpoint.split("/") if part]))


def source(mount: Mount, resolve: Resolve) -> str:
    """What holds a mount's files: a folder, an image, or a block device."""
    return resolve(mount.volume).path if mount.type == "volume" else mount.volume


def mounted(mount: Mount, resolve: Resolve) -> bool:
    """Whether the volume must be mounted before the container can have it: an image or a block device."""
    if mount.type == "volume":
        return resolve(mount.volume).format != "subvol"
    return mount.type == "device"


def place(folder: str, mount: Mount, resolve: Resolve) -> str:
    """Host folder with a mount's files.

    :raises GuestError: the volume is an image in a form that cannot be mounted.
    """
    if not mounted(mount, resolve):
        return source(mount, resolve)
    if mount.type == "volume" and resolve(mount.volume).format != "raw":
        raise GuestError(
            f"{mount.key} ({mount.volume}) is an image of a form that containers cannot use",
            hint="convert it to raw, or move it to a folder",
        )
    return os.path.join(folder, "mounts", mount.key)


def _includes(unprivileged: bool) -> list[str]:
    wanted = [_INCLUDE, *([_UNPRIVILEGED_INCLUDE] if unprivileged else [])]
    return [path for path in wanted if os.path.exists(path)]


def _has_raw(config: GuestConfig, key: str) -> bool:
    return any(name == key for name, _value in config.raw)


def _apparmor() -> str:
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as stream:
            return "generated" if stream.read().strip() == "Y" else "unconfined"
    except OSError:
        return "unconfined"


def _halt_signal(root: str) -> list[str]:
    """Busybox's init powers off on SIGUSR2; systemd and sysvinit understand LXC's default."""
    init = os.path.join(root, "sbin/init")
    if os.path.islink(init):
        busybox = os.path.basename(os.readlink(init)) == "busybox"
    else:
        # Some templates hard-link or copy it. The file is the guest's: it is compared, never run or followed.
        busybox = _same_size(init, os.path.join(root, "bin/busybox"))
    return ["lxc.signal.halt = SIGUSR2"] if busybox else []


def _same_size(one: str, other: str) -> bool:
    try:
        return os.lstat(one).st_size == os.lstat(other).st_size
    except OSError:
        return False


def _number(config: GuestConfig, key: str) -> int:
    text = config.get(key) or "0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigError(f"{key}: {text!r} is not a number")
    return int(text)


def _limits(config: GuestConfig) -> list[str]:
    """Limits that this node's cgroups can hold; without the unified hierarchy there are none."""
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return []
    lines = []
    if config.get("memory"):
        lines.append(f"lxc.cgroup2.memory.max = {_number(config, 'memory') << 20}")
    if config.get("cores"):
        lines.append(f"lxc.cgroup2.cpu.max = {_number(config, 'cores') * 100000} 100000")
    return lines


def _network(vmid: int, config: GuestConfig) -> list[str]:
    nets = ct_nets(config)
    if not nets:
        return ["lxc.net.0.type = empty"]
    lines = []
    for key, options in nets:
        prefix = f"lxc.net.{key[3:]}"
        bridge = options.get("bridge")
        if not bridge:
            lines.append(f"{prefix}.type = empty")
            continue
        if not os.path.exists(f"/sys/class/net/{bridge}"):
            raise GuestError(
                f"container {vmid}: {key} wants the bridge {bridge!r}, which does not exist here",
                hint="create the bridge, or change or remove that line",
            )
        lines += [f"{prefix}.type = veth", f"{prefix}.link = {bridge}", f"{prefix}.flags = up"]
        for option, native in (("name", "name"), ("hwaddr", "hwaddr"), ("gw", "ipv4.gateway")):
            if options.get(option):
                lines.append(f"{prefix}.{native} = {options[option]}")
        if "/" in options.get("ip", ""):
            lines.append(f"{prefix}.ipv4.address = {options['ip']}")
    return lines


def _hooks(folder: str, mount: Mount, resolve: Resolve) -> list[str]:
    """LXC mounts the volume on the host before each start, and unmounts it after the end, also when it reboots itself.

    LXC appends words of its own to a hook's command; ``sh -c`` keeps them from the command.
    """
    where = place(folder, mount, resolve)
    options = ",".join([*(["ro"] if mount.read_only else []), *_mount_options(mount)])
    command = ["mount", *(["-o", options] if options else []), "--", source(mount, resolve), where]
    return [
        f"lxc.hook.pre-start = sh -c {shlex.quote(shlex.join(command))}",
        f"lxc.hook.post-stop = sh -c {shlex.quote(shlex.join(['umount', '--', where]))}",
    ]


def _mount_options(mount: Mount) -> list[str]:
    """The options that Proxmox VE knows, separated by semicolons there."""
    known = ("discard", "lazytime", "noatime", "nodev", "noexec", "nosuid")
    return [option for option in mount.options.get("mountoptions", "").split(";") if option in known]


def _mount_entry(mount: Mount, host_folder: str) -> str:
    restrictions = [option for option in _mount_options(mount) if option in ("nodev", "noexec", "nosuid")]
    flags = ",".join(["bind", "create=dir", *(["ro"] if mount.read_only else []), *restrictions])
    fields = [host_folder, mount.mountpoint.lstrip("/")]
    escaped = (field.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011") for field in fields)
    return f"lxc.mount.entry = {' '.join(escaped)} none {flags} 0 0"
