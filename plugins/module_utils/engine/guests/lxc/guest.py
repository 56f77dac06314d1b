# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container defined in Proxmox VE syntax, run by the LXC tools."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ...errors import GuestError
from ...settings.ct_config import Mount, ct_mounts
from ...settings.guest_config import GuestConfig
from ...system.files import write_atomic
from ...system.host import Host
from ...system.process import run
from ..model import GuestInfo, Resolve
from .idmaps import host_owner, idmap_hint
from .render import idmaps, mounted, place, render, shift, source
from .tools import FREEZE_SECONDS, LxcTools


class LxcGuest:
    """One container; its native config is rendered anew at each start."""

    def __init__(self, info: GuestInfo, config: GuestConfig, resolve: Resolve, tools: LxcTools) -> None:
        self.info = info
        self.config = config
        self._resolve = resolve
        self._lxc = tools

    @classmethod
    def managed(cls, host: Host, info: GuestInfo, config: GuestConfig, resolve: Resolve) -> LxcGuest:
        """One that a config in Proxmox VE syntax defines."""
        return cls(info, config, resolve, LxcTools(host.paths.lxc_run, str(info.vmid)))

    @property
    def undo_data(self) -> dict[str, Any]:
        """What an undo entry needs to find this container again."""
        return self._lxc.undo_data

    @property
    def native_config(self) -> str | None:
        """LXC's own config where that defines the container."""
        return None

    def archived_config(self) -> GuestConfig:
        """The config for archives, without lock, snapshots and parent, as in Proxmox VE."""
        return replace(self.config.with_changes({"lock": None, "parent": None}), rest="")

    def status(self) -> str:
        """``running``, ``frozen`` or ``stopped``."""
        return self._lxc.status()

    def start(self) -> None:
        """Start it.

        :raises GuestError: it runs already or does not come up; the message has the last lines of LXC's log.
        """
        if self.status() != "stopped":
            raise GuestError(f"cannot start container {self.info.vmid}: it is {self.status()}")
        self._prepare()
        try:
            self._lxc.start()
        except GuestError as exc:
            raise GuestError(exc.message, hint=idmap_hint(self.idmaps()) or exc.hint) from exc

    def _prepare(self) -> None:
        """Render the native config, with the root at hand because it depends on what init is there."""
        # Images are mounted in the folder: other users of the host must not get to the programs in them.
        os.makedirs(self._lxc.folder, mode=0o700, exist_ok=True)
        os.chmod(self._lxc.folder, 0o700)
        os.chown(self._lxc.folder, host_owner(self.idmaps()), -1)
        mounts = self.mounts()
        for mount in mounts:
            if mounted(mount, self._resolve):
                place = self.place(mount)
                # Left behind when the container ended without LXC's help.
                run(["umount", "--quiet", "--", place], check=False, timeout=60, error=GuestError)
                os.makedirs(place, mode=0o711, exist_ok=True)
        inspected = self.place(mounts[0])
        path = os.path.join(self._lxc.folder, "config")
        if not mounted(mounts[0], self._resolve):
            write_atomic(path, render(self._lxc.folder, self.info.vmid, self.config, self._resolve), 0o600)
            return
        run(["mount", "--", self.source(mounts[0]), inspected], timeout=120, error=GuestError)
        try:
            write_atomic(path, render(self._lxc.folder, self.info.vmid, self.config, self._resolve), 0o600)
        finally:
            run(["umount", "--", inspected], timeout=60, error=GuestError)

    def shutdown(self, timeout: float) -> None:
        """Ask its init to end, and wait.

        :param timeout: seconds. :raises GuestError: it still runs after that; it is not killed.
        """
        self._lxc.shutdown(timeout)

    def stop(self) -> None:
        """Kill all its processes."""
        self._lxc.stop()

    def freeze(self) -> None:
        """Stop its processes from running, at one instant.

        :raises GuestError: that took too long, or failed.
        """
        self._lxc.call("freeze", "lxc-freeze", timeout=FREEZE_SECONDS)

    def thaw(self) -> None:
        """Let its processes run again; harmless when they do."""
        self._lxc.thaw()

    def init_pid(self) -> int:
        """Pid of its init as the host sees it.

        :raises GuestError: it does not run.
        """
        pid = self._lxc.init_pid()
        if pid is None:
            raise GuestError(f"container {self.info.vmid} has no init process: it does not run")
        return pid

    def mounts(self) -> list[Mount]:
        """The root and all mount points."""
        return ct_mounts(self.config)

    def source(self, mount: Mount) -> str:
        """What holds a mount's files: a folder, an image, or a block device."""
        return source(mount, self._resolve)

    def place(self, mount: Mount) -> str:
        """Host folder with a mount's files; that of an image is filled only while the container runs."""
        return place(self._lxc.folder, mount, self._resolve)

    def idmaps(self) -> tuple[str, ...]:
        """User and group maps, ``()`` for a privileged container."""
        return idmaps(self.config)

    def shift(self) -> tuple[str, ...]:
        """The maps by which the owners of files are shifted on disk; ``()`` when the mount maps them."""
        return shift(self.config)
