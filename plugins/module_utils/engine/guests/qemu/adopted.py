# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM whose QEMU somebody else starts: a script or a unit. We only know how to reach it."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
import time
from typing import Any, Iterable, Mapping, Sequence

from ...errors import ConfigError, GuestError, HoldfastError
from ...settings.adopted import Adopted, parse_adopted
from ...settings.guest_config import GuestConfig
from ...system.files import read_text
from ...system.host import Host
from ...system.process import command_env, describe
from ...system.undo import Handler
from ..model import GuestInfo, ResolvedVolume
from ..vmids import placeholder
from .blocks import BlockDevice, find_devices
from .guest import SHUTDOWN_SECONDS, QemuGuest
from .launcher import Sockets
from .qmp import QmpClient, QmpError, listening

RUN = "qemu.adopted.start"
"""Undo kind: an adopted VM is shut down and shall run again: ``command``, ``qmp``, ``label``."""

_START_SECONDS = 120.0
_SCSI = {"virtio-scsi-pci": "virtio-scsi-pci", "lsi53c895a": "lsi", "pvscsi": "pvscsi", "megasas": "megasas"}


def list_adopted(host: Host) -> list[GuestInfo]:
    """Every VM defined in ``guests.d``, by id; a placeholder for a definition that cannot be understood."""
    try:
        names = os.listdir(host.paths.adopted_guests)
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if not name.endswith(".yml") or name.startswith("."):
            continue
        path = os.path.join(host.paths.adopted_guests, name)
        try:
            guest = read_adopted(path)
        except HoldfastError:
            found.append(placeholder("adopted", name[: -len(".yml")], path))
            continue
        tags = tuple(filter(None, re.split(r"[;,\s]+", guest.config.get("tags") or "")))
        pool = guest.config.get("pool") or ""
        found.append(GuestInfo("adopted", guest.vmid, guest.name, tags, pool, False, path))
    return sorted(found, key=lambda info: info.vmid)


def read_adopted(path: str) -> Adopted:
    """The definition in a file.

    :raises GuestError: it is gone; :raises ConfigError: it cannot be understood.
    """
    text = read_text(path)
    if text is None:
        raise GuestError(f"the guest does not exist: {path} is gone")
    return parse_adopted(text, os.path.splitext(os.path.basename(path))[0], path)


class AdoptedGuest(QemuGuest):
    """One adopted VM."""

    def __init__(self, host: Host, info: GuestInfo) -> None:
        self._definition = read_adopted(info.config_path)
        self._formats = {disk.path: disk.format for disk in self._definition.disks}
        super().__init__(host, info, self._definition.config, self._place)
        # QEMU could make its QMP socket in that folder, so it can make the one for the backup there, too.
        base = os.path.join(os.path.dirname(self._definition.qmp), f"holdfast-{info.vmid}")
        self.sockets = Sockets(self._definition.qmp, self._definition.agent, f"{base}.pid", console="", tpm="")

    @property
    def starts_paused(self) -> bool:
        return bool(self._definition.start_paused)

    def start(self, *, paused: bool = False) -> None:
        if listening(self.sockets.qmp):
            raise GuestError(f"cannot start {self.label}: it runs already")
        name = "start_paused" if paused else "start"
        command = self._definition.start_paused if paused else self._definition.start
        if not command:
            raise ConfigError(f"cannot start {self.label}: no command is given", hint=f"add {name} to its definition")
        start_by(command, self.sockets.qmp, self.label)

    def shutdown(self, timeout: float) -> None:
        if not self._definition.stop or self.status() != "running":
            super().shutdown(timeout)
            return
        _call(self._definition.stop, timeout, f"shut down {self.label}")
        if not self._gone(timeout):
            raise GuestError(
                f"{self.label} did not power off within {timeout:g} s",
                hint="look what keeps the guest from it, or raise stopwait",
            )

    def start_undo(self) -> tuple[str, dict[str, Any]]:
        if not self._definition.start:
            raise ConfigError(
                f"cannot shut down {self.label} for a backup: it could not be started again",
                hint="add start to its definition, or choose mode snapshot or suspend",
            )
        return RUN, {"command": list(self._definition.start), "qmp": self.sockets.qmp, "label": self.label}

    def block_devices(self, qmp: QmpClient, keys: Iterable[str]) -> list[BlockDevice]:
        wanted = set(keys)
        return find_devices(qmp, [disk for disk in self._definition.disks if disk.key in wanted])

    @functools.cached_property
    def archived_config(self) -> GuestConfig:
        """The config with what a running QEMU tells about itself, where the definition says nothing."""
        if not listening(self.sockets.qmp):
            return self.config
        with self.qmp() as qmp:
            told = _told(qmp, self.block_devices(qmp, [disk.key for disk in self._definition.disks]))
        missing = {key: value for key, value in told.items() if self.config.get(key) is None}
        config: GuestConfig = self.config.with_changes(missing)
        return config

    def _place(self, volid: str) -> ResolvedVolume:
        return ResolvedVolume(volid, self._formats[volid])


def _told(qmp: QmpClient, devices: Sequence[BlockDevice]) -> dict[str, str | None]:
    """Config lines that follow from what QEMU says."""
    machine = str(qmp.execute("qom-get", {"path": "/machine", "property": "type"})).replace("-machine", "")
    lines: dict[str, str | None] = {
        "memory": str(int(qmp.execute("query-memory-size-summary")["base-memory"]) >> 20),
        "cores": str(len(qmp.execute("query-cpus-fast"))),
        "smbios1": f"uuid={qmp.execute('query-uuid')['UUID']}",
        "kvm": None if qmp.execute("query-kvm")["enabled"] else "0",
        "machine": machine if re.fullmatch(r"(?:pc-i440fx|pc-q35)-[\d.]+", machine) else None,
    }
    for device in devices:
        if device.key.startswith("scsi"):
            lines["scsihw"] = _controller(qmp, device)
    return {key: value for key, value in lines.items() if value is not None}


def _controller(qmp: QmpClient, device: BlockDevice) -> str | None:
    try:
        bus = str(qmp.execute("qom-get", {"path": device.path, "property": "parent_bus"}))
        path = "/".join(bus.split("/")[:4])
        return _SCSI.get(str(qmp.execute("qom-get", {"path": path, "property": "type"})))
    except QmpError:
        return None


def start_by(command: Sequence[str], qmp: str, label: str) -> None:
    """Run a start command and wait for QEMU.

    :raises GuestError: the command failed, or nobody listens afterwards.
    """
    _call(command, _START_SECONDS, f"start {label}")
    deadline = time.monotonic() + _START_SECONDS
    while not listening(qmp):
        if time.monotonic() > deadline:
            raise GuestError(
                f"cannot start {label}: `{describe(command)}` ended, but nobody listens on {qmp}",
                hint="see what the command does, and whether QEMU is started with -qmp unix:...,server=on,wait=off",
            )
        time.sleep(0.1)


def _call(command: Sequence[str], timeout: float, what: str) -> None:
    """Run a command of somebody else's. What it starts may keep its output open, so that goes to a file."""
    with tempfile.TemporaryFile() as output:
        try:
            status = subprocess.run(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout,
                env=command_env(),
                start_new_session=True,
                check=False,
            ).returncode
            why = f"it ended with status {status}"
        except (OSError, subprocess.TimeoutExpired) as exc:
            status, why = -1, str(exc)
        if status:
            output.seek(0)
            said = output.read()[-1000:].decode("utf-8", "replace").strip()
            raise GuestError(f"cannot {what}: `{describe(command)}`: {why}{': ' if said else ''}{said}")


def _undo_run(data: Mapping[str, Any]) -> None:
    qmp = str(data["qmp"])
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    # The guest may still be on its way down. One that does not end in this time does not want to, and runs on.
    while listening(qmp) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not listening(qmp):
        start_by([str(part) for part in data["command"]], qmp, str(data["label"]))


UNDO: dict[str, Handler] = {RUN: _undo_run}
