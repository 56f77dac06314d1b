# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real servers of NFS and SMB on the node's loopback, and the ways in which they go away."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from helpers.volumes import sh

USER, PASSWORD = "anna", 'sec,ret "word'
SMB_CONF = """\
[global]
    server role = standalone server
    interfaces = lo
    bind interfaces only = yes
    disable netbios = yes
    smb ports = 445
    load printers = no
    log file = /var/log/samba.log
[vm data]
    path = {folder}
    read only = no
    valid users = {user}
    force user = root
"""


class Server:
    """:ivar folder: what it gives away; :ivar section: how a storage of it is declared."""

    port: int
    kind: str
    section: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Let it answer."""
        raise NotImplementedError

    def stop(self) -> None:
        """Let it refuse whatever it is asked."""
        raise NotImplementedError

    def vanish(self) -> None:
        """Let nothing that is sent to it arrive."""
        sh("nft", "add", "table", "inet", "away")
        sh("nft", "add", "chain", "inet", "away", "in", "{ type filter hook input priority 0; }")
        sh("nft", "add", "rule", "inet", "away", "in", "tcp", "dport", str(self.port), "drop")

    def come_back(self) -> None:
        """Undo :meth:`vanish` and :meth:`stop`."""
        subprocess.run(["nft", "delete", "table", "inet", "away"], check=False, capture_output=True)
        self.start()

    def _await(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
                return
            assert time.monotonic() < deadline, f"nobody listens on port {self.port}"
            time.sleep(0.2)


class NfsServer(Server):
    """The kernel's server, version 4 only."""

    port, kind = 2049, "nfs"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Less patience than by default, for the sake of the tests' time.
        options = "vers=4.2,timeo=30,retrans=1"
        self.section = f"nfs: nas\n\tserver 127.0.0.1\n\texport {folder}\n\toptions {options}\n\tcontent backup\n"

    def start(self) -> None:
        if not os.path.ismount("/proc/fs/nfsd"):
            sh("modprobe", "nfsd")
            sh("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
            Path("/etc/exports").write_text(f"{self.folder} *(rw,no_root_squash,no_subtree_check)\n", encoding="ascii")
            os.makedirs("/run/rpc_pipefs", exist_ok=True)
            sh("rpc.mountd", "--no-nfs-version", "3", "--no-udp")
        if Path("/proc/fs/nfsd/threads").read_text(encoding="ascii") != "0\n":
            return
        sh("exportfs", "-ra")
        sh("rpc.nfsd", "--no-nfs-version", "3", "--nfs-version", "4.2", "4")
        # It would wait a minute and a half for clients of before to claim what they had open.
        Path("/proc/fs/nfsd/v4_end_grace").write_text("Y\n", encoding="ascii")
        self._await()

    def stop(self) -> None:
        sh("rpc.nfsd", "0")

    def forget(self) -> None:
        """Give away another folder of the same name."""
        sh("exportfs", "-ua")
        other = self.folder.with_name("other")
        # Made first: with the same inode it would be taken for the same folder.
        other.mkdir()
        shutil.rmtree(self.folder)
        other.rename(self.folder)
        sh("exportfs", "-ra")
        sh("exportfs", "-f")


class SmbServer(Server):
    """Samba with one user."""

    port, kind = 445, "cifs"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "backups").mkdir(exist_ok=True)
        self.section = (
            f"cifs: nas\n\tserver 127.0.0.1\n\tshare vm data\n\tsubdir /backups\n\tusername {USER}\n"
            "\tsmbversion 3\n\tcontent backup\n"
        )
        self._smbd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._smbd is not None:
            return
        Path("/etc/samba/smb.conf").write_text(SMB_CONF.format(folder=self.folder, user=USER), encoding="ascii")
        subprocess.run(["useradd", "--no-create-home", USER], check=False, capture_output=True)
        given = f"{PASSWORD}\n{PASSWORD}\n".encode()
        subprocess.run(["smbpasswd", "-s", "-a", USER], input=given, check=True, capture_output=True)
        # A session of its own, so that all its processes can be killed.
        self._smbd = subprocess.Popen(["smbd", "--foreground", "--no-process-group"], start_new_session=True)
        self._await()

    def stop(self) -> None:
        if self._smbd is not None:
            os.killpg(self._smbd.pid, 9)
            self._smbd.wait()
            self._smbd = None
