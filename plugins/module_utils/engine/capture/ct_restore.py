# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpacking container archives, which are hostile input: every header is looked at before tar sees it."""

from __future__ import annotations

import subprocess
import tempfile
from typing import Protocol, Sequence

from ..errors import GuestError, IntegrityError
from ..formats.cttar import FIREWALL_MEMBER, extract_argv
from ..formats.tarscan import ConfigFinder, TarGuard
from ..guests.lxc.idmaps import idmap_hint
from ..stream.pump import feed
from ..system.process import command_env, spawn
from ..system.report import Reporter
from .model import Progress

_CONFIG_WITHIN = 64 << 20
"""Bytes from the start of an archive within which its config must come; it is the first member in all proper ones."""


class Source(Protocol):
    """Reads the uncompressed archive."""

    def read(self, size: int) -> bytes: ...

    def readinto(self, buffer: bytearray) -> int: ...


def read_ct_config(source: Source) -> tuple[str, bytes]:
    """The config in an archive, its first ``etc/vzdump/pct.conf``, and the rules of its firewall, where there are any.

    :raises IntegrityError: it is no tar, or there is no config near its start.
    """
    finder, rules = ConfigFinder(), ConfigFinder(FIREWALL_MEMBER)
    firewall = b""
    done = 0
    while done < _CONFIG_WITHIN:
        part = source.read(1 << 20)
        if not part:
            break
        if not done:
            # They follow the config, which is the first member.
            firewall = rules.take(part) or b""
        done += len(part)
        found = finder.take(part)
        if found is not None:
            return found.decode("utf-8", "surrogateescape"), firewall
    raise IntegrityError(
        "the archive holds no etc/vzdump/pct.conf near its start: it is no container backup",
        hint="restore archives that this collection or Proxmox VE wrote",
    )


class _Salvage:
    """A source that ends where it is damaged."""

    def __init__(self, source: Source, report: Reporter) -> None:
        self._source = source
        self._report = report

    def readinto(self, buffer: bytearray) -> int:
        try:
            return self._source.readinto(buffer)
        except IntegrityError as exc:
            self._report.warn(f"{exc.message}; what comes before that is kept")
            return 0


def extract_ct(
    source: Source,
    rootdir: str,
    *,
    idmaps: Sequence[str],
    unprivileged: bool,
    progress: Progress,
    report: Reporter,
    ignore_unpack_errors: bool = False,
) -> None:
    """Unpack an archive below ``rootdir``, in which all volumes are mounted.

    :param idmaps: by which owners are shifted on disk.
    :param unprivileged: device nodes are refused; with ``ignore_unpack_errors`` they are left out, because the kernel
        makes none in a user namespace.
    :param ignore_unpack_errors: keep what could be unpacked, also of a damaged archive. Hostile members are refused all
        the same.
    :raises IntegrityError: the archive is damaged or holds members that could reach outside.
    :raises GuestError: tar could not write everything.
    """
    reader = _Salvage(source, report) if ignore_unpack_errors else source
    guard = TarGuard(allow_devices=not unprivileged or bool(idmaps and ignore_unpack_errors))
    with tempfile.TemporaryFile() as errors:
        child = spawn(
            extract_argv(".", idmaps=idmaps),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=rootdir,
            env=command_env(),
        )
        try:
            if child.stdin is not None:
                feed(reader, child.stdin.fileno(), progress, inspect=guard.inspect)
                child.stdin.close()
            status = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if status == 0:
            guard.finish()
            return
        errors.seek(0)
        last = errors.read()[-2000:].decode("utf-8", "replace").strip()
    if not ignore_unpack_errors:
        if not source.read(1):
            # tar got all there is: perhaps it complains because that is not all of the archive.
            guard.finish()
        raise GuestError(
            f"cannot unpack the archive to {rootdir}: tar ended with status {status}: {last}",
            hint=idmap_hint(idmaps) or "check space and quota there; ignore_unpack_errors keeps what could be unpacked",
        )
    report.warn(f"tar ended with status {status}, what could be unpacked is kept: {last}")
