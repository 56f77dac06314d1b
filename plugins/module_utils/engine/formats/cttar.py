# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar commands of container archives, and what their patterns mean. Pure: nothing is run here.

An archive starts with ``./etc/vzdump/pct.conf`` and ``./etc/vzdump/pct.fw``, then the container's tree follows with
names that start with ``./``. Ids in it are those inside the container.
"""

from __future__ import annotations

from typing import Iterable, Sequence

CONFIG_MEMBER = "./etc/vzdump/pct.conf"
FIREWALL_MEMBER = "./etc/vzdump/pct.fw"
STANDARD_EXCLUDES = ("/tmp/?*", "/var/tmp/?*", "/var/run/?*.pid")

_COMMON = (
    "--one-file-system",
    "-p",
    "--sparse",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.capability",
    "--warning=no-file-ignored",
    "--warning=no-xattr-write",
)


def usernsexec(idmaps: Sequence[str]) -> list[str]:
    """The command prefix that enters a user namespace; ``idmaps`` like ``u:0:100000:65536``, none: no prefix."""
    if not idmaps:
        return []
    return ["lxc-usernsexec", *(part for idmap in idmaps for part in ("-m", idmap)), "--"]


def exclude_warnings(patterns: Iterable[str]) -> list[str]:
    """What the operator should know about patterns that tar takes literally and that match nothing."""
    return [
        f"tar does not match exclusion with a trailing slash '{pattern}'"
        for pattern in patterns
        if pattern.endswith("/")
    ]


def create_argv(
    *,
    config_dir: str,
    data_root: str,
    sources: Sequence[str],
    excludes: Sequence[str] = (),
    idmaps: Sequence[str] = (),
) -> list[str]:
    """The command that writes an archive to its standard output.

    :param config_dir: folder with ``etc/vzdump/pct.conf`` and ``etc/vzdump/pct.fw``.
    :param data_root: folder that holds the container's tree.
    :param sources: what to archive below it: ``["./"]`` and ``"./data"`` for each mount point, or ``["."]`` for a copy.
    :param excludes: patterns as in vzdump's ``exclude-path``; a leading ``/`` anchors at the container's root.
    :param idmaps: of an unprivileged container, see :func:`usernsexec`.
    """
    floating = ["lost+found"] if idmaps else []
    floating += [pattern for pattern in excludes if not pattern.startswith("/")]
    anchored = [pattern for pattern in excludes if pattern.startswith("/")]
    return [
        *usernsexec(idmaps),
        "tar",
        "cpf",
        "-",
        "--totals",
        *_COMMON,
        "--one-file-system",
        "--warning=no-file-ignored",
        f"--directory={config_dir}",
        CONFIG_MEMBER,
        FIREWALL_MEMBER,
        f"--directory={data_root}",
        "--no-anchored",
        *(f"--exclude={pattern}" for pattern in floating),
        "--anchored",
        *(f"--exclude=.{pattern}" for pattern in anchored),
        *sources,
    ]


def extract_argv(rootdir: str, *, idmaps: Sequence[str] = ()) -> list[str]:
    """The command that unpacks an uncompressed archive from its standard input below ``rootdir``.

    The first of several members with one name wins; nothing below ``./dev`` is made.
    """
    return [
        *usernsexec(idmaps),
        "tar",
        "xpf",
        "-",
        "--totals",
        # Reads of 256 KiB: with tar's own 10 KiB it and whoever fills the pipe switch three times as often.
        "--blocking-factor=512",
        *_COMMON,
        "-C",
        rootdir,
        "--skip-old-files",
        "--anchored",
        "--exclude",
        "./dev/*",
    ]
