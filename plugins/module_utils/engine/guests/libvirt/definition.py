# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Defining domains from restored archives."""

from __future__ import annotations

import contextlib
import os
import xml.etree.ElementTree as ET

from ...errors import GuestError, UsageError
from ...settings.domain_xml import Domain, parse_domain
from .connection import connect, find_domain, libvirt_errors, load_libvirt

IMAGES = "/var/lib/libvirt/images"
"""Where libvirt's tools put disks."""


class Definitions:
    """The domains that libvirt knows by name and uuid.

    :param uri: of the connection.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._libvirt = load_libvirt()
        self._connection = connect(uri)

    def check_free(self, name: str, uuid: str) -> None:
        """:raises UsageError: a domain has that name or uuid already."""
        with libvirt_errors(f"list the domains of {self.uri}"):
            for handle in self._connection.listAllDomains():
                if handle.UUIDString() == uuid:
                    raise UsageError(
                        f"cannot restore the domain {name}: the domain {handle.name()} has its uuid {uuid}",
                        hint="give it a new identity (unique), or replace that domain: restore to its id, with force",
                    )
                if handle.name() == name:
                    raise UsageError(
                        f"cannot restore the domain {name}: there is another domain of that name",
                        hint="choose another name: --set name=NAME (overrides in a playbook)",
                    )

    def names(self) -> set[str]:
        """Names of all domains."""
        with libvirt_errors(f"list the domains of {self.uri}"):
            return {str(handle.name()) for handle in self._connection.listAllDomains()}

    def folders(self) -> list[str]:
        """Folders of libvirt's storage pools, and the one where libvirt's tools put disks."""
        found = [IMAGES]
        with contextlib.suppress(self._libvirt.libvirtError):
            for pool in self._connection.listAllStoragePools():
                path = parse_pool(pool.XMLDesc(0))
                if path:
                    found.append(path)
        return [path for path in found if os.path.isdir(path)]

    def has_secret(self, uuid: str) -> bool:
        """Whether libvirt holds a secret of that uuid."""
        try:
            self._connection.secretLookupByUUIDString(uuid)
        except self._libvirt.libvirtError:
            return False
        return True

    def check_replaceable(self, uuid: str) -> Domain:
        """The definition of a domain that is to be replaced.

        :raises GuestError: it has snapshots, which would be those of other disks.
        """
        with libvirt_errors(f"read the definition of the domain {uuid}"):
            handle = self._connection.lookupByUUIDString(uuid)
            if handle.snapshotNum() or handle.listAllCheckpoints():
                raise GuestError(
                    f"cannot replace the domain {handle.name()}: it has snapshots or checkpoints",
                    hint="delete them first: virsh snapshot-delete, virsh checkpoint-delete",
                )
            return parse_domain(handle.XMLDesc(0))

    def define(self, xml: str, uuid: str) -> None:
        """Define a domain, in place of the one of that uuid.

        :raises GuestError: libvirt does not accept it.
        """
        with libvirt_errors("define the restored domain"):
            old = find_domain(self._connection, uuid)
            if old is not None and old.hasManagedSaveImage():
                # Memory of the old domain must never meet the new disks.
                old.managedSaveRemove()
            self._connection.defineXML(xml)


def parse_pool(text: str) -> str:
    """Folder of a storage pool, empty when it has none."""
    root = ET.fromstring(text)
    return (root.findtext("target/path") or "") if root.get("type") in ("dir", "fs", "netfs") else ""


def named_files(uri: str, uuid: str) -> set[str]:
    """Paths of the disks and the UEFI variables that a domain's definition names; none when there is no such domain."""
    handle = find_domain(connect(uri), uuid)
    if handle is None:
        return set()
    with libvirt_errors(f"read the definition of the domain {uuid}"):
        domain = parse_domain(handle.XMLDesc(0))
    return {disk.source for disk in domain.disks} | {domain.nvram}
