# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM defined in Proxmox VE syntax: its QEMU process, found again by its sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Iterator, Mapping, Sequence

from ...errors import GuestError, ProtocolError
from ...settings.guest_config import GuestConfig
from ...settings.vm_config import Drive, agent_settings, vm_disks
from ...system.host import Host
from ...system.locks import is_alive, process_start_time
from ...system.process import run
from ...system.undo import Handler
from ..model import GuestInfo, Resolve, ResolvedVolume
from .agent import AgentClient, thaw_guest
from .launcher import Sockets, qemu_argv
from .qmp import QmpClient, listening
from .tpm import tpm_commands

CONT = "qemu.cont"
"""Undo kind: a VM that ran was paused by us: ``qmp``, ``label``."""
THAW = "qemu.thaw"
"""Undo kind: a guest's file systems may be frozen: ``agent``, ``qmp``, ``label``."""
START = "qemu.start"
"""Undo kind: a VM was asked to shut down and shall run again: ``commands``, ``qmp``, ``pid``, ``label``, and what its
QEMU was (``was``: ``pid`` and ``start``)."""

_START_SECONDS = 60
_SHUTDOWN_SECONDS = 60
"""How long a guest may take to power off that was asked to by a run which is dead now."""
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
        launch(self._commands(paused=paused), self.sockets.pid, self.label)

    def start_data(self) -> dict[str, Any]:
        """What an undo entry needs to start this VM again after it was shut down."""
        pid = self._pid()
        return {
            "commands": self._commands(),
            "qmp": self.sockets.qmp,
            "pid": self.sockets.pid,
            "label": self.label,
            "was": None if pid is None else {"pid": pid, "start": process_start_time(pid)},
        }

    def _commands(self, *, paused: bool = False) -> list[list[str]]:
        """The command lines of what QEMU needs beside it, and of QEMU itself."""
        vmid, config = self.info.vmid, self.config
        helpers = tpm_commands(vmid, config, self._resolve, self.sockets)
        return [*helpers, qemu_argv(vmid, config, self._resolve, self.sockets, paused=paused)]

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

        :param timeout: seconds.
        :raises GuestError: it is paused, so that it cannot answer, or it still runs after that; it is not killed.
        """
        status = self.status()
        if status == "stopped":
            return
        if status == "paused":
            raise GuestError(
                f"{self.label} cannot shut down, because it is paused", hint="let it go on first, or do without that"
            )
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
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        if not self._gone(_STOP_SECONDS):
            raise GuestError(f"cannot stop {self.label}: QEMU does not end", hint=f"see {self.sockets.pid}")

    def disks(self) -> list[Drive]:
        """All drives of the config."""
        return vm_disks(self.config)

    def resolve(self, volid: str) -> ResolvedVolume:
        """Place of a volume on this node."""
        return self._resolve(volid)

    def _pid(self) -> int | None:
        """Pid of its QEMU; never of another process that got the same number later."""
        try:
            with open(self.sockets.pid, encoding="ascii") as stream:
                pid = int(stream.read())
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                ours = os.fsencode(self.sockets.qmp) in stream.read()
        except (OSError, ValueError):
            return None
        return pid if ours else None

    def _gone(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while listening(self.sockets.qmp) or self._pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def launch(commands: Sequence[Sequence[str]], pid: str, label: str) -> None:
    """Start programs that detach themselves, QEMU last.

    Under systemd each gets a unit of its own, so that it outlives the caller's.

    :param pid: QEMU's pid file. :raises GuestError: one of them did not start.
    """
    os.makedirs(os.path.dirname(pid), mode=0o700, exist_ok=True)
    name = os.path.basename(pid).partition(".")[0]
    try:
        for argv in commands:
            qemu = argv is commands[-1]
            if os.path.isdir("/run/systemd/system"):
                unit = f"holdfast-vm-{name}" if qemu else f"holdfast-vm-{name}-{os.path.basename(argv[0])}"
                follow = [f"--property=PIDFile={pid}"] if qemu else []
                argv = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "--service-type=forking",
                        *follow, "--", *argv]  # fmt: skip
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
    if listening(str(data["qmp"])):
        thaw_guest(str(data["agent"]), str(data["label"]))


def _undo_start(data: Mapping[str, Any]) -> None:
    was, deadline = data["was"], time.monotonic() + _SHUTDOWN_SECONDS
    # The QEMU of then may still be about to end.
    while was is not None and is_alive(was) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not listening(str(data["qmp"])):
        launch([[str(part) for part in argv] for argv in data["commands"]], str(data["pid"]), str(data["label"]))


UNDO: dict[str, Handler] = {CONT: _undo_cont, THAW: _undo_thaw, START: _undo_start}
