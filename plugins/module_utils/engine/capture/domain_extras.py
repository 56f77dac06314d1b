# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a domain has beside its disks, where libvirt's backup job does not reach: UEFI variables, the TPM's state.

Both are small files, copied while the guest does not run. A TPM's state becomes the volume that Proxmox VE has.
"""

from __future__ import annotations

import os
import shutil
from typing import BinaryIO

from ..errors import GuestError, IntegrityError
from ..formats.swtpm import from_image, to_image
from ..guests.libvirt.guest import LibvirtGuest
from ..settings.domain_xml import NVRAM_KEY, TPM_KEY, Domain
from ..system.report import Reporter
from .storage_daemon import Image

_LIMIT = 16 << 20
"""More bytes than this no TPM's state has."""


def extra_keys(guest: LibvirtGuest) -> list[str]:
    """Keys of what a domain has."""
    return [key for key in (NVRAM_KEY, TPM_KEY) if guest.config.get(key)]


def tell_tpm(guest: LibvirtGuest, domain: Domain, report: Reporter) -> None:
    """Say what of a TPM the archive does not hold."""
    if domain.tpm is None:
        return
    lost = "the state of the TPM is not in the archive: "
    if domain.tpm.backend != "emulator":
        report.warn(f"{lost}its backend is {domain.tpm.backend}, whose state libvirt does not keep")
    elif TPM_KEY not in extra_keys(guest):
        report.warn(f"{lost}{guest.tpm_state} does not exist")
    elif domain.tpm.secret:
        report.warn(
            f"the state of the TPM is encrypted with libvirt's secret {domain.tpm.secret}, which is not in the archive:"
            " without it the restored domain does not start"
        )


def copy_extras(guest: LibvirtGuest, domain: Domain, folder: str) -> list[Image]:
    """Copies for root alone in a folder.

    :raises GuestError: a file cannot be read, or holds something else.
    """
    images: list[Image] = []
    for key in extra_keys(guest):
        path = os.path.join(folder, key)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
            if key == NVRAM_KEY:
                with _opened(domain.nvram, guest) as stream:
                    shutil.copyfileobj(stream, copy)
            else:
                copy.write(_tpm_volume(guest, domain))
        images.append((key, path, domain.nvram_format if key == NVRAM_KEY else "raw"))
    return images


def _tpm_volume(guest: LibvirtGuest, domain: Domain) -> bytes:
    with _opened(guest.tpm_state, guest) as stream:
        data = stream.read(_LIMIT)
    try:
        # A file that the definition names is a volume already, of whatever size.
        one = domain.tpm is not None and bool(domain.tpm.source) and domain.tpm.source_type == "file"
        return to_image(from_image(data) if one else data)
    except IntegrityError as exc:
        raise GuestError(
            f"cannot back up {guest.label}: {guest.tpm_state}: {exc.message}", hint="see whether the domain starts"
        ) from exc


def _opened(path: str, guest: LibvirtGuest) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as exc:
        raise GuestError(f"cannot back up {guest.label}: {path}: {exc.strerror}") from exc
