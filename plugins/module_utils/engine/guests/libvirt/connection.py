# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection to libvirt, and its errors in our terms. Its Python module is loaded here and nowhere else."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Iterator

from ...errors import ConfigError, DependencyError, GuestError
from ...settings.guest_config import GuestConfig
from ...system.files import read_text
from ...system.host import Host, Paths

DEFAULT_URI = "qemu:///system"
_STATE_FOLDER = "/var/lib/libvirt/qemu"
_SOCKETS = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")
_LOCAL = ("qemu:///", "qemu+unix:///")


@dataclass(frozen=True)
class LibvirtSettings:
    """How this node's libvirt is reached.

    :param uri: of a QEMU driver on this machine; :param state_folder: where that driver keeps a folder per running
        domain, in which its QEMU may create sockets.
    """

    uri: str
    state_folder: str = _STATE_FOLDER


def libvirt_settings(host: Host) -> LibvirtSettings | None:
    """The settings in ``libvirt.conf``; without that file the system's libvirt where it runs; ``None``: none is used.

    :raises ConfigError: the file cannot be understood.
    """
    path = host.paths.libvirt_conf
    text = read_text(path)
    if text is None:
        # A tree of state folders elsewhere (a test, a chroot) has nothing to do with this machine's domains.
        here = host.paths == Paths() and any(map(os.path.exists, _SOCKETS))
        return LibvirtSettings(DEFAULT_URI) if here else None
    config = GuestConfig.parse(text, path)
    unknown = [key for key, _value in config.items() if key not in ("uri", "state-folder")]
    if unknown:
        raise ConfigError(f"{path}: there is no setting {unknown[0]!r}", hint="known are uri and state-folder")
    uri = config.get("uri") or DEFAULT_URI
    if uri == "none":
        return None
    if not uri.startswith(_LOCAL):
        raise ConfigError(
            f"{path}: the uri {uri!r} is not that of a QEMU driver on this machine: disks are read here",
            hint=f"write a uri that begins with {' or '.join(_LOCAL)}, or `uri: none`",
        )
    return LibvirtSettings(uri, config.get("state-folder") or _STATE_FOLDER)


def load_libvirt() -> Any:
    """The Python module.

    :raises DependencyError: it is not installed.
    """
    try:
        import libvirt
    except ImportError as exc:
        raise DependencyError(
            "cannot look for libvirt domains: libvirt's Python module is not installed",
            hint="install the package python3-libvirt, or write `uri: none` to /etc/holdfast/libvirt.conf"
            " if this node's domains are not to be backed up",
        ) from exc
    # What it would print is also raised.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def connect(uri: str) -> Any:
    """A connection, closed when nobody refers to it any more.

    :raises GuestError: libvirt does not answer.
    """
    libvirt = load_libvirt()
    with libvirt_errors(f"connect to {uri}", hint="is libvirtd or virtqemud running? `virsh -c URI list` must work"):
        return libvirt.open(uri)


@contextlib.contextmanager
def libvirt_errors(what: str, hint: str = "") -> Iterator[None]:
    """Turn libvirt's errors into ours.

    :param what: completes "cannot ...". :raises GuestError: with libvirt's own words.
    """
    libvirt = load_libvirt()
    try:
        yield
    except libvirt.libvirtError as exc:
        raise GuestError(f"cannot {what}: libvirt says: {exc}", hint=hint) from exc


def find_domain(connection: Any, uuid: str) -> Any:
    """The domain of that uuid, ``None`` when there is none."""
    libvirt = load_libvirt()
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise GuestError(f"cannot look for the domain {uuid}: libvirt says: {exc}") from exc
