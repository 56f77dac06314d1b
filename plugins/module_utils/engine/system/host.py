# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the engine keeps its things on a node."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Paths:
    """The four state directories (absolute paths)."""

    etc: str = "/etc/holdfast"
    lib: str = "/var/lib/holdfast"
    run: str = "/run/holdfast"
    log: str = "/var/log/holdfast"

    @classmethod
    def under(cls, root: str) -> Paths:
        """The same tree below ``root``: a lab, a test, a chroot."""
        base = os.path.abspath(root)
        return cls(*(os.path.join(base, part) for part in ("etc", "lib", "run", "log")))

    @property
    def qemu_configs(self) -> str:
        """Folder of ``<vmid>.conf`` in Proxmox VE VM syntax."""
        return os.path.join(self.etc, "qemu-server")

    @property
    def lxc_configs(self) -> str:
        """Folder of ``<vmid>.conf`` in Proxmox VE container syntax."""
        return os.path.join(self.etc, "lxc")

    @property
    def qemu_run(self) -> str:
        """Sockets and pid files of running VMs: ``<vmid>.qmp``, ``<vmid>.qga``, ``<vmid>.pid``."""
        return os.path.join(self.run, "qemu-server")

    @property
    def lxc_run(self) -> str:
        """Rendered native configs: ``<vmid>/config``; the LXCPATH of managed containers."""
        return os.path.join(self.lib, "lxc")

    @property
    def lxc_native(self) -> str:
        """LXC's own folder of containers: ``<name>/config``."""
        return os.path.join(os.path.dirname(self.lib), "lxc")

    def firewall(self, vmid: int) -> str:
        """Rules of a guest's firewall: nothing reads them here, but they travel with its archives."""
        return os.path.join(self.etc, "firewall", f"{vmid}.fw")

    @property
    def storage_cfg(self) -> str:
        return os.path.join(self.etc, "storage.cfg")

    @property
    def jobs_cfg(self) -> str:
        return os.path.join(self.etc, "jobs.cfg")

    @property
    def vzdump_conf(self) -> str:
        return os.path.join(self.etc, "vzdump.conf")

    @property
    def notifications_cfg(self) -> str:
        """Whom to tell about backup runs."""
        return os.path.join(self.etc, "notifications.cfg")

    def notification_secret(self, target: str) -> str:
        """The password or token of one target of notifications."""
        return os.path.join(self.etc, "priv", "notifications", f"{target}.secret")

    @property
    def libvirt_conf(self) -> str:
        return os.path.join(self.etc, "libvirt.conf")

    @property
    def adopted_guests(self) -> str:
        """Folder of ``<name>.yml``: VMs that somebody else starts."""
        return os.path.join(self.etc, "guests.d")

    def storage_password(self, name: str) -> str:
        """File with the password of a storage's server; as in Proxmox VE, whose folder is ``/etc/pve/priv``."""
        return os.path.join(self.etc, "priv", "storage", f"{name}.pw")

    @property
    def vmids(self) -> str:
        """Ids given to guests that have none of their own."""
        return os.path.join(self.lib, "vmids.json")

    @property
    def runs(self) -> str:
        """Run records: one folder per run, ``<run id>/run.json`` and ``<run id>/<vmid>.journal``."""
        return os.path.join(self.lib, "runs")

    def mount_record(self, name: str) -> str:
        """Tells what this program mounted for a storage; gone after a reboot, as the mount is."""
        return os.path.join(self.run, "mounts", f"{name}.json")

    @property
    def outcomes(self) -> str:
        """How the last run of each job went, for each guest."""
        return os.path.join(self.lib, "outcomes.json")

    @property
    def textfiles(self) -> str:
        """Where Prometheus' node exporter of the distribution looks for metrics in files."""
        return os.path.join(os.path.dirname(self.lib), "prometheus", "node-exporter")

    @property
    def locks(self) -> str:
        return os.path.join(self.run, "locks")


@dataclass(frozen=True)
class Host:
    """The node the engine works on: its name and its paths. Passed down, never looked up."""

    node: str
    paths: Paths
