# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing the archive of a captured container: the two config members, then the tree, through one tar."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import Any, Sequence

from ..errors import GuestError
from ..formats.cttar import CONFIG_MEMBER, FIREWALL_MEMBER, NATIVE_MEMBER, create_argv
from ..guests.lxc.guest import LxcGuest
from ..guests.lxc.idmaps import idmap_hint
from ..rules.excludes import Pattern
from ..stream.pump import pump_fd
from ..system.files import write_atomic
from ..system.process import command_env, spawn
from .ct_excludes import write_found
from .ct_trees import Trees
from .model import Progress, Sink, Timings, Written


@dataclass
class CapturedContainer:
    """A container's trees at one instant.

    :param disks: every volume, whether it is included, and why. :param workdir: scratch folder with ``config`` and the
        folders that ``trees`` names. :param members: what comes first, below ``config``.
    :param patterns: what to leave out. :param idmaps: by which owners are shifted in the trees.
    """

    mode: str
    vmid: int
    timings: Timings
    disks: list[dict[str, Any]]
    workdir: str
    members: Sequence[str]
    patterns: Sequence[Pattern]
    idmaps: Sequence[str]
    trees: Trees = field(default_factory=lambda: Trees([]))
    size: int = 0
    extension: str = field(default="tar", init=False)

    def write_to(self, sink: Sink, progress: Progress) -> Written:
        """Write the archive.

        :raises GuestError: tar could not read everything; the message has its last lines.
        """
        simple = [pattern for pattern in self.patterns if pattern.is_simple]
        others = [pattern for pattern in self.patterns if not pattern.is_simple]
        # All names are relative to the scratch folder: inside a user namespace the folders above it may be closed.
        argv = create_argv(
            config_dir="config",
            members=self.members,
            data_root="../root",
            sources=self.trees.sources,
            excludes=simple,
            exclude_file=write_found(self.workdir, self.trees, others) if others else "",
            apart=[(f"../{folder}", [name]) for folder, name in self.trees.apart],
            idmaps=self.idmaps,
        )
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as errors:
            child = spawn(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self.workdir,
                env=command_env({"LC_ALL": "C"}),
            )
            try:
                if child.stdout is not None:
                    pump_fd(child.stdout.fileno(), sink, progress, digest.update)
                status = child.wait()
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
                if child.stdout is not None:
                    child.stdout.close()
            if status:
                errors.seek(0)
                last = errors.read()[-2000:].decode("utf-8", "replace").strip()
                raise GuestError(
                    f"cannot archive container {self.vmid}: tar ended with status {status}: {last}",
                    hint=idmap_hint(self.idmaps)
                    or "the files named above could not be read; nothing of this archive is kept",
                )
        return Written(digests={"tar": digest.hexdigest()})


def write_config(guest: LxcGuest, workdir: str) -> list[str]:
    """Put the config members of an archive into the folder ``config`` and return their names."""
    folder = os.path.join(workdir, "config")
    texts = {CONFIG_MEMBER: guest.archived_config().to_text(), FIREWALL_MEMBER: guest.firewall}
    if guest.native_config is not None:
        texts[NATIVE_MEMBER] = guest.native_config
    for name, text in texts.items():
        write_atomic(os.path.join(folder, name), text)
    if guest.idmaps():
        # Inside the user namespace even root is somebody else here: it has to get through to the config, and tar opens
        # the folders that it reads from.
        os.chmod(workdir, 0o711)
        for path in (folder, os.path.join(folder, "etc"), os.path.join(folder, "etc/vzdump")):
            os.chmod(path, 0o755)
    return list(texts)
