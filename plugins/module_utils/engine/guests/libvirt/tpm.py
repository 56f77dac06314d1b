# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a domain's emulated TPM: where libvirt keeps it, and how a restored one gets there.

It is a secret. What is made here is open to root alone; at each start libvirt gives the folder of a domain's state and
the files in it to the user of swtpm (``qemuTPMEmulatorCreateStorage`` in its ``qemu_tpm.c``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Mapping

from ...settings.domain_xml import Domain, DomainTpm
from ...system.files import fsync_dir, write_atomic
from ...system.undo import Handler
from .connection import LibvirtSettings
from .definition import named_files

STATE = "libvirt.tpm"
"""Undo kind: a restored state that goes to its place with the restored definition: ``uri``, ``uuid``, ``folder`` (its
place), ``disks`` (paths that only the restored definition names)."""

_NAMES = {"1.2": ("tpm1.2", "tpm-00.permall"), "2.0": ("tpm2", "tpm2-00.permall")}
"""Folder and file of each version."""


def tpm_folder(settings: LibvirtSettings, uuid: str) -> str:
    """Where libvirt keeps the state of a domain: beside the folder of its QEMU driver."""
    return os.path.join(os.path.dirname(settings.state_folder.rstrip("/")), "swtpm", uuid)


def state_path(settings: LibvirtSettings, domain: Domain, tpm: DomainTpm) -> str:
    """The file with the permanent state, whether it exists or not."""
    folder, name = _NAMES.get(tpm.version, _NAMES["2.0"])
    if not tpm.source:
        return os.path.join(tpm_folder(settings, domain.uuid), folder, name)
    return tpm.source if tpm.source_type == "file" else os.path.join(tpm.source, name)


def prepare_state(folder: str, version: str, state: bytes) -> str:
    """Write what will be a domain's folder, beside its place; returns the path that the state has in the end.

    :param folder: the place.
    """
    new = new_folder(folder)
    below, name = _NAMES.get(version, _NAMES["2.0"])
    os.mkdir(os.path.join(new, below), 0o700)
    write_atomic(os.path.join(new, below, name), state, 0o600)
    # swtpm's user has to get through.
    os.chmod(new, 0o711)
    fsync_dir(new)
    return os.path.join(folder, below, name)


def new_folder(folder: str) -> str:
    """Where the restored state waits, by its place."""
    return f"{folder}.restore"


def make_new_folder(folder: str) -> None:
    """Make that folder afresh."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(new_folder(folder))
    os.makedirs(os.path.dirname(folder), mode=0o711, exist_ok=True)
    os.mkdir(new_folder(folder), 0o700)


def _settle(data: Mapping[str, Any]) -> None:
    """Before the restored definition is in place nobody needs the restored state, after it the old one."""
    named, disks = named_files(str(data["uri"]), str(data["uuid"])), set(map(str, data["disks"]))
    place = str(data["folder"])
    new, old = new_folder(place), f"{place}.old"
    # A domain whose disks are all devices that were there shows nothing by which the definitions differ.
    if not (named & disks if disks else named):
        _remove(new)
        return
    if os.path.isdir(new):
        if os.path.isdir(place):
            _remove(old)
            os.rename(place, old)
        os.rename(new, place)
        fsync_dir(os.path.dirname(place))
    _remove(old)


def _remove(folder: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


UNDO: dict[str, Handler] = {STATE: _settle}
