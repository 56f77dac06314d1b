# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing the archive of a captured container: the two config members, then the tree, through one tar."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from typing import Any, Sequence

from ..errors import GuestError
from ..formats.cttar import create_argv
from ..guests.lxc.guest import LxcGuest
from ..stream.pump import pump_fd
from ..system.files import write_atomic
from ..system.process import bound, command_env
from .model import Progress, Sink, Timings


@dataclass
class CapturedContainer:
    """A container's trees at one instant.

    :param data_root: folder with the tree; :param sources: what to archive below it.
    :param config_dir: folder with ``etc/vzdump/pct.conf``.
    """

    mode: str
    vmid: int
    timings: Timings
    disks: list[dict[str, Any]]
    config_dir: str
    data_root: str
    sources: Sequence[str]
    excludes: Sequence[str]
    idmaps: Sequence[str]
    size: int = 0
    extension: str = field(default="tar", init=False)

    def write_to(self, sink: Sink, progress: Progress) -> dict[str, Any]:
        """Write the archive.

        :raises GuestError: tar could not read everything; the message has its last lines.
        """
        argv = create_argv(
            config_dir=self.config_dir,
            data_root=self.data_root,
            sources=self.sources,
            excludes=self.excludes,
            idmaps=self.idmaps,
        )
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=command_env(),
                preexec_fn=bound(),
            )
            try:
                if child.stdout is not None:
                    pump_fd(child.stdout.fileno(), sink, progress)
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
                    hint="the files named above could not be read; nothing of this archive is kept",
                )
        return {}


def write_config(guest: LxcGuest, workdir: str) -> str:
    """Put ``etc/vzdump/pct.conf`` and an empty ``pct.fw`` below a folder in ``workdir`` and return that folder.

    The archived config has no lock, no snapshots and no parent, as in Proxmox VE.
    """
    folder = os.path.join(workdir, "config")
    config = replace(guest.config.with_changes({"lock": None, "parent": None}), rest="")
    write_atomic(os.path.join(folder, "etc/vzdump/pct.conf"), config.to_text())
    write_atomic(os.path.join(folder, "etc/vzdump/pct.fw"), "")
    if guest.idmaps():
        # Inside the user namespace even root is somebody else here: it has to get through to the config, and tar opens
        # the folders that it reads from.
        os.chmod(workdir, 0o711)
        for path in (folder, os.path.join(folder, "etc"), os.path.join(folder, "etc/vzdump")):
            os.chmod(path, 0o755)
    return folder
