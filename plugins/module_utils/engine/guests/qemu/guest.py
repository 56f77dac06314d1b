# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM defined in Proxmox VE syntax: its QEMU process, found again by its sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Iterator, Mapping

from ...errors import GuestError, ProtocolError
from ...settings.guest_config import GuestConfig
from ...settings.vm_config import Drive, agent_settings, vm_disks
from ...system.host import Host
from ...system.process import run
from ...system.undo import Handler
from ..model import GuestInfo, Resolve, ResolvedVolume
from .agent import AgentClient
from .launcher import Sockets, qemu_argv
from .qmp import QmpClient, listening

CONT = "qemu.cont"
"""Undo kind: a VM that ran was paused by us: ``qmp``, ``label``."""
THAW = "qemu.thaw"
"""Undo kind: a guest's file systems may be frozen: ``agent``, ``qmp``, ``label``."""
START = "qemu.start"
"""Undo kind: a VM is shut down and shall run again: ``argv``, ``qmp``, ``agent``, ``pid``, ``label``, ``was`` (pid)."""

SHUTDOWN_SECONDS = 60.0
"""How long clean-up waits for a guest that was asked to power off by a run that is over."""

_START_SECONDS = 60
_STOP_SECONDS = 30


class QemuGuest:
    """One VM."""

    def __init__(self, host: Host, info: GuestInfo, config: GuestConfig, resolve: Resolve) -> None:
        self.info = info
        self.config = config
        self.label = f"VM {info.vmid} ({info.name})"
        self.sockets = Sockets.of(host.paths.qemu_run, info.vmid)
        self._resolve = resolve

    def status(self) -> str:
        """``running``, ``paused`` or ``stopped``."""
        if not listening(self.sockets.qmp):
            return "stopped"
        with self.qmp() as qmp:
            return "running" if qmp.execute("query-status")["running"] else "paused"

    def start(self, *, paused: bool = False) -> None:
        """Start QEMU.

        :param paused: the guest does not run until ``cont``.
        :raises GuestError: it runs already, or QEMU refuses to start; the message has its words.
        """
        if listening(self.sockets.qmp):
            raise GuestError(f"cannot start {self.label}: it runs already")
        launch(self.argv(paused=paused), self.sockets, self.label)

    def argv(self, *, paused: bool = False) -> list[str]:
        """The QEMU command line."""
        return qemu_argv(self.info.vmid, self.config, self._resolve, self.sockets, paused=paused)

    def qmp(self) -> QmpClient:
        """A connection to its monitor. :raises ProtocolError: nobody answers there."""
        return QmpClient(self.sockets.qmp, self.label)

    def agent(self) -> AgentClient | None:
        """A connection to its agent, ``None`` when the config has none.

        :raises ProtocolError: the agent does not answer.
        """
        return AgentClient(self.sockets.agent, self.label) if agent_settings(self.config).enabled else None

    def shutdown(self, timeout: float) -> None:
        """Ask the guest to power off, by its agent or else by ACPI, and wait.

        :param timeout: seconds. :raises GuestError: it still runs after that; it is not killed.
        """
        if self.status() == "stopped":
            return
        asked = False
        with contextlib.suppress(ProtocolError):
            agent = self.agent()
            if agent is not None:
                with agent:
                    agent.shutdown()
                    asked = True
        if not asked:
            with self.qmp() as qmp:
                qmp.execute("system_powerdown")
        if not self._gone(timeout):
            raise GuestError(
                f"{self.label} did not power off within {timeout:g} s",
                hint="look what keeps the guest from it, or raise stopwait",
            )

    def stop(self) -> None:
        """End QEMU at once, as if the power failed."""
        if not listening(self.sockets.qmp):
            return
        with contextlib.suppress(ProtocolError), self.qmp() as qmp:
            qmp.execute("quit", timeout=10)
        if self._gone(_STOP_SECONDS):
            return
        pid = process_of(self.sockets)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        if not self._gone(_STOP_SECONDS):
            raise GuestError(f"cannot stop {self.label}: QEMU does not end", hint=f"see {self.sockets.pid}")

    @property
    def undo_start(self) -> dict[str, Any]:
        """What an undo entry needs to start this VM again."""
        sockets = self.sockets
        return {
            "argv": self.argv(),
            "qmp": sockets.qmp,
            "agent": sockets.agent,
            "pid": sockets.pid,
            "label": self.label,
            "was": process_of(sockets),
        }

    def disks(self) -> list[Drive]:
        """All drives of the config."""
        return vm_disks(self.config)

    def resolve(self, volid: str) -> ResolvedVolume:
        """Place of a volume on this node."""
        return self._resolve(volid)

    def _gone(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while listening(self.sockets.qmp) or process_of(self.sockets) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def process_of(sockets: Sockets) -> int | None:
    """Pid of a VM's QEMU; never of another process that got the same number later."""
    try:
        with open(sockets.pid, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            ours = os.fsencode(sockets.qmp) in stream.read()
    except (OSError, ValueError):
        return None
    return pid if ours else None


def launch(argv: list[str], sockets: Sockets, label: str) -> None:
    """Start a QEMU that detaches itself; under systemd in a unit of its own, so that it outlives the caller's.

    :raises GuestError: it did not start.
    """
    folder = os.path.dirname(sockets.qmp)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.path.isdir("/run/systemd/system"):
        unit = f"holdfast-vm-{os.path.basename(sockets.pid).partition('.')[0]}"
        argv = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--service-type=forking",
                f"--property=PIDFile={sockets.pid}", "--", *argv]  # fmt: skip
    try:
        run(argv, timeout=_START_SECONDS, error=GuestError)
    except GuestError as exc:
        raise GuestError(
            f"cannot start {label}: {exc.message}", hint="kvm: 0 in its config runs it without KVM; see also dmesg"
        ) from exc


@contextlib.contextmanager
def _monitor(data: Mapping[str, Any]) -> Iterator[QmpClient | None]:
    """The monitor named by an undo entry, ``None`` when that QEMU is gone and nothing is left to undo in it."""
    if not listening(str(data["qmp"])):
        yield None
        return
    with QmpClient(str(data["qmp"]), str(data["label"])) as qmp:
        yield qmp


def _undo_cont(data: Mapping[str, Any]) -> None:
    with _monitor(data) as qmp:
        if qmp is not None and not qmp.execute("query-status")["running"]:
            qmp.execute("cont")


def _undo_thaw(data: Mapping[str, Any]) -> None:
    if not listening(str(data["qmp"])):
        return
    with AgentClient(str(data["agent"]), str(data["label"])) as agent:
        agent.thaw()


def _undo_start(data: Mapping[str, Any]) -> None:
    sockets = Sockets(str(data["qmp"]), str(data["agent"]), str(data["pid"]), "")
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    # The guest may still be on its way down. One that does not end in this time does not want to, and runs on.
    while data["was"] is not None and process_of(sockets) == data["was"] and time.monotonic() < deadline:
        time.sleep(0.1)
    if not listening(sockets.qmp):
        launch([str(part) for part in data["argv"]], sockets, str(data["label"]))


UNDO: dict[str, Handler] = {CONT: _undo_cont, THAW: _undo_thaw, START: _undo_start}
