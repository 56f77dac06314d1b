# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar commands of container archives, and what their patterns mean. Pure: nothing is run here.

An archive starts with ``./etc/vzdump/pct.conf`` and ``./etc/vzdump/pct.fw``, then the container's tree follows with
names that start with ``./``. Ids in it are those inside the container.
"""

from __future__ import annotations

from typing import Sequence

from ..rules.excludes import Pattern, tar_options

CONFIG_MEMBER = "./etc/vzdump/pct.conf"
FIREWALL_MEMBER = "./etc/vzdump/pct.fw"
NATIVE_MEMBER = "./etc/vzdump/lxc.conf"
"""LXC's own config of a container that has no Proxmox VE config."""

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


def create_argv(
    *,
    config_dir: str,
    data_root: str,
    members: Sequence[str] = (CONFIG_MEMBER, FIREWALL_MEMBER),
    sources: Sequence[str],
    excludes: Sequence[Pattern] = (),
    exclude_file: str = "",
    apart: Sequence[tuple[str, Sequence[str]]] = (),
    idmaps: Sequence[str] = (),
) -> list[str]:
    """The command that writes an archive to its standard output; it must run in the locale C.

    :param config_dir: folder with the ``members``, which come first.
    :param data_root: folder that holds the container's tree, absolute or as seen from ``config_dir``.
    :param sources: what to archive below it: ``["./"]`` and ``"./data"`` for each mount point, or ``["."]`` for a copy.
    :param excludes: simple patterns.
    :param exclude_file: file with one anchored pattern a line in tar's form.
    :param apart: more folders (absolute, or as seen from the one before) with what to archive below them.
    :param idmaps: of an unprivileged container, see :func:`usernsexec`.
    """
    everywhere = ["--exclude=lost+found"] if idmaps else []
    return [
        *usernsexec(idmaps),
        "tar",
        "cpf",
        "-",
        "--totals",
        *_COMMON,
        f"--directory={config_dir}",
        *members,
        f"--directory={data_root}",
        "--no-anchored",
        *everywhere,
        *tar_options(excludes),
        *([f"--exclude-from={exclude_file}"] if exclude_file else []),
        *sources,
        *(part for folder, below in apart for part in (f"--directory={folder}", *below)),
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
