# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How storages of the types ``nfs`` and ``cifs`` are mounted: what ``mount`` is told, from a section of the file.

The mount options that are added to those of the definition keep a backup from waiting for ever for a server that is
gone. Options of the definition come last and win.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Sequence

from ..errors import ConfigError

NETWORK = ("nfs", "cifs")

MOUNT_ROOT = "/mnt/pve"
"""Folder of the mount points of storages whose definition names none, as in Proxmox VE."""

_GUEST_DATA = ("images", "rootdir")
_NFS_BOUNDED = ("soft", "timeo=100", "retrans=2")
"""A request ends with an error 30 s after a server went away (nfs(5)); opening and closing files take several."""
_CIFS_BOUNDED = ("soft", "echo_interval=10")
"""A server that does not answer three echoes counts as gone; accesses end with an error then (mount.cifs(8))."""
_PRIVATE = ("file_mode=0600", "dir_mode=0700")
"""A share has no owners of its own; archives are not for every user of the node."""

_SERVER = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_SMB_VERSIONS = ("default", "2.0", "2.1", "3", "3.0", "3.11")
_OWN_OPTIONS = ("pass", "password", "cred", "credentials", "user", "username", "dom", "domain")
"""Mount options with keys of their own in the definition; a password among the options everybody could read."""


@dataclass(frozen=True)
class MountSpec:
    """:param type: for ``mount -t``; :param server: its name or address.

    :param source: ``server:/export`` or ``//server/share``; :param point: the folder it appears on.
    :param options: later ones win. :param password: whether the file with the password is needed.
    """

    type: str
    server: str
    source: str
    point: str
    options: tuple[str, ...]
    password: bool = False


def default_path(kind: str, name: str) -> str:
    """Mount point of a storage that names none; empty for other types."""
    return f"{MOUNT_ROOT}/{name}" if kind in NETWORK else ""


def network_mount(
    kind: str, path: str, content: Sequence[str], values: Mapping[str, str | None], password_file: str
) -> MountSpec:
    """What a definition means.

    :param values: its keys ``server``, ``export``, ``share``, ``subdir``, ``options``, ``username``, ``domain``,
        ``smbversion``. :param password_file: file with a line ``password=...``, in the form of mount.cifs.
    :raises ConfigError: a value is not possible.
    """
    server = _text(values, "server")
    if not _SERVER.fullmatch(server):
        raise ConfigError(f"server: {server!r} is not a host name or an address")
    host = f"[{server}]" if ":" in server else server
    given = _options(_text(values, "options"))
    if kind == "nfs":
        export = _text(values, "export")
        if not export.startswith("/"):
            raise ConfigError(f"export: {export!r} is not an absolute path")
        # Guests whose volumes lie there must not see errors while a server restarts: they wait, and so does whoever
        # writes archives there.
        bounded = () if any(word in content for word in _GUEST_DATA) else _NFS_BOUNDED
        return MountSpec("nfs", server, f"{host}:{export}", path, (*bounded, "retry=0", *given))
    share, subdir = _text(values, "share"), _text(values, "subdir").rstrip("/")
    if not share or "/" in share or "\\" in share:
        raise ConfigError(f"share: {share!r} is not the name of a share", hint="folders in it go into 'subdir'")
    if subdir and (not subdir.startswith("/") or ".." in subdir.split("/")):
        raise ConfigError(f"subdir: {subdir!r} does not begin with a slash")
    account = _account(values, given, password_file)
    private = _PRIVATE if set(content) <= {"backup"} else ()
    version = _text(values, "smbversion") or "default"
    if version not in _SMB_VERSIONS:
        raise ConfigError(f"smbversion: {version!r} is not one of {', '.join(_SMB_VERSIONS)}")
    return MountSpec(
        "cifs",
        server,
        f"//{server}/{share}{subdir}",
        path,
        (*_CIFS_BOUNDED, *private, *account, f"vers={version}", *given),
        f"credentials={password_file}" in account,
    )


def _text(values: Mapping[str, str | None], key: str) -> str:
    """A value without characters that would mean something else in the mount table or on a line of a file."""
    value = values.get(key) or ""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ConfigError(f"{key}: {value!r} has control characters")
    return value


def _options(text: str) -> tuple[str, ...]:
    if " " in text:
        raise ConfigError(f"options: {text!r} has blanks", hint="mount options are separated by commas, as in fstab(5)")
    given = tuple(option for option in text.split(",") if option)
    for option in given:
        name = option.partition("=")[0]
        if name in _OWN_OPTIONS:
            raise ConfigError(f"options: {name!r} does not belong there", hint="use username, password and domain")
    return given


def _account(values: Mapping[str, str | None], given: Sequence[str], password_file: str) -> tuple[str, ...]:
    """Who mounts the share: a ticket of Kerberos, a user, or a guest."""
    user, domain = _text(values, "username"), _text(values, "domain")
    for key, value in (("username", user), ("domain", domain)):
        if "," in value:
            raise ConfigError(f"{key}: {value!r} has a comma, which mount options cannot carry")
    if any(option.startswith("sec=krb5") for option in given):
        return ()
    if not user:
        return ("guest", "username=guest")
    return (f"username={user}", f"credentials={password_file}", *((f"domain={domain}",) if domain else ()))
