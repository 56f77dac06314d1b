# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The TPM of a VM: swtpm, a process beside QEMU that keeps its state in the volume ``tpmstate0``."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ...errors import ConfigError, DependencyError
from ...settings.guest_config import GuestConfig
from ...settings.vm_config import Drive, vm_disks
from ..model import Resolve

if TYPE_CHECKING:
    from .launcher import Sockets


def tpm_device(config: GuestConfig, sockets: Sockets) -> list[str]:
    """QEMU's options for the TPM, none without one."""
    if _state(config) is None:
        return []
    return [
        *("-chardev", f"socket,id=tpmchar,path={sockets.tpm}"),
        *("-tpmdev", "emulator,id=tpmdev,chardev=tpmchar"),
        *("-device", "tpm-tis,tpmdev=tpmdev"),
    ]


def tpm_commands(vmid: int, config: GuestConfig, resolve: Resolve, sockets: Sockets) -> list[list[str]]:
    """What has to run before QEMU starts; it ends with QEMU.

    :raises ConfigError: the state cannot be used; :raises DependencyError: swtpm is not installed.
    """
    drive = _state(config)
    if drive is None:
        return []
    volume = resolve(drive.volid)
    if volume.format != "raw":
        raise ConfigError(f"VM {vmid}: {drive.key} is a {volume.format} volume", hint="swtpm needs a raw one")
    if shutil.which("swtpm") is None:
        raise DependencyError(f"VM {vmid} has a TPM, but swtpm is not installed", hint="install the package swtpm")
    argv = ["swtpm", "socket", "--tpmstate", f"backend-uri=file://{volume.path},mode=0600"]
    argv += ["--ctrl", f"type=unixio,path={sockets.tpm},mode=0600", "--terminate", "--daemon"]
    if drive.options.get("version", "v1.2") == "v2.0":
        argv.append("--tpm2")
    return [argv]


def _state(config: GuestConfig) -> Drive | None:
    return next((drive for drive in vm_disks(config) if drive.interface == "tpmstate"), None)
