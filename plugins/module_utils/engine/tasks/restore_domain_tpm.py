# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The TPM of a restored domain: its volume in the archive becomes the state that libvirt gives to swtpm."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ..errors import ConfigError, IntegrityError
from ..formats.swtpm import from_image
from ..settings.domain_xml import TPM_KEY, XML_BLOB, Domain, DomainTpm, parse_domain
from ..settings.vm_config import TPM_BYTES
from ..storages.plain import PlainFolder
from ..system.host import Host
from .restore_config import MapLine, disk_map
from .restore_plan import Contents, NewVolume
from .results import PlannedVolume

if TYPE_CHECKING:
    from ..guests.libvirt.definition import Definitions


def place_tpm(host: Host, folder: str, line: MapLine, size: int) -> NewVolume:
    """The volume from the archive, to be unpacked beside the place of the state.

    :param folder: where libvirt keeps the state of that domain.
    :raises IntegrityError: it is larger than such a volume.
    """
    from ..guests.libvirt.tpm import new_folder

    if size > TPM_BYTES:
        raise IntegrityError(f"its volume for a TPM has {size} bytes, more than {TPM_BYTES}")
    storage = PlainFolder(new_folder(folder), host, TPM_KEY)
    path = os.path.join(storage.path, f"{TPM_KEY}.raw")
    return NewVolume(PlannedVolume(TPM_KEY, folder, "raw", size, folder, line.device), storage, path, path, line.device)


def take_state(volume: NewVolume, folder: str, tpm: DomainTpm) -> None:
    """Make the state from the unpacked volume; it waits beside its place.

    :param folder: the place.
    :raises IntegrityError: the volume holds no state.
    """
    from ..guests.libvirt.tpm import prepare_state

    with open(volume.path, "rb") as stream:
        state = from_image(stream.read())
    if not state:
        raise IntegrityError("its volume for a TPM holds no state")
    os.unlink(volume.path)
    volume.volname = prepare_state(folder, tpm.version, state)


def told_of_domain(
    domain: Domain, folder: str, definitions: Definitions, *, archived: bool, replaces: bool
) -> list[str]:
    """What people should know about the TPM of a domain to be restored.

    :param folder: where libvirt keeps its state; :param archived: the archive holds it; :param replaces: a domain that
        is there is replaced.
    """
    tpm, present = domain.emulated_tpm, os.path.isdir(folder)
    if tpm is None:
        return []
    warnings = []
    if archived and present and not replaces:
        warnings.append(f"the state of a TPM that libvirt has kept for this uuid is replaced: {folder}")
    if not archived:
        warnings.append(
            "the archive holds no state of the TPM: "
            + (f"the domain uses the one in {folder}" if present else "the restored domain gets an empty one")
        )
    if tpm.secret and not definitions.has_secret(tpm.secret):
        warnings.append(
            f"the state of the TPM is encrypted with libvirt's secret {tpm.secret}, which is not here: define it before"
            " the domain is started (virsh secret-define, secret-set-value)"
        )
    return warnings


def told_of_vm(contents: Contents) -> list[str]:
    """The same about a managed VM that is made from a domain's archive."""
    if XML_BLOB not in contents.blobs or not any(line.key == TPM_KEY for line in disk_map(contents.config)):
        return []
    domain = None
    # What is wrong with it does not matter to a managed VM.
    with contextlib.suppress(ConfigError):
        domain = parse_domain(contents.blobs[XML_BLOB].decode("utf-8", "replace"))
    if domain is None or domain.tpm is None or not domain.tpm.secret:
        return []
    return [
        f"{TPM_KEY}: the state of the TPM is encrypted with libvirt's secret {domain.tpm.secret}, which only libvirt"
        f" can use: the machine starts when {TPM_KEY} is removed from its config, without that state"
    ]
