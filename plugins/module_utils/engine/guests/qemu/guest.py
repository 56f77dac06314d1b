# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM defined in Proxmox VE syntax: its QEMU process, found again by its sockets."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from typing import Any, Iterable, Iterator, Mapping, Sequence

from ...errors import GuestError, ProtocolError
from ...settings.guest_config import GuestConfig
from ...settings.vm_config import Drive, agent_settings, vm_disks
from ...system.host import Host
from ...system.process import run
from ...system.undo import Handler
from ..model import GuestInfo, Resolve, ResolvedVolume
from .agent import AgentClient, thaw_guest
from .blocks import BlockDevice, launched_device
from .launcher import Sockets, qemu_argv
from .qmp import QmpClient, listening
from .tpm import tpm_commands

CONT = "qemu.cont"
"""Undo kind: a VM that ran was paused by us: ``qmp``, ``label``."""
THAW = "qemu.thaw"
"""Undo kind: a guest's file systems may be frozen: ``agent``, ``qmp``, ``label``."""
START = "qemu.start"
"""Undo kind: a VM is shut down and shall run again: ``commands``, ``qmp``, ``pid`` (file), ``label``, ``was`` (pid)."""

SHUTDOWN_SECONDS = 60.0
"""How long clean-up waits for a guest that was asked to power off by a run that is over."""

_ASK_AGAIN_SECONDS = 10.0
"""A guest that still boots hears nobody: it is asked again."""
_START_SECONDS = 60
_STOP_SECONDS = 30


class QemuGuest:
    """One VM."""

    def __init__(self, host: Host, info: GuestInfo, config: GuestConfig, resolve: Resolve) -> None:
        self.info = info
        self.config = config
        self.label = f"VM {info.vmid} ({info.name})"
        self.sockets = Sockets.of(host.paths.qemu_run, info.vmid)
        self.firewall_path = host.paths.firewall(info.vmid)
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
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            self._ask_to_power_off()
            if self._gone(min(left, _ASK_AGAIN_SECONDS)):
                return
            if left <= _ASK_AGAIN_SECONDS:
                raise GuestError(
                    f"{self.label} did not power off within {timeout:g} s",
                    hint="look what keeps the guest from it, or raise stopwait",
                )

    def _ask_to_power_off(self) -> None:
        with contextlib.suppress(ProtocolError):
            agent = self.agent()
            if agent is not None:
                with agent:
                    agent.shutdown()
                    return
        # A QEMU that ended in this moment cannot be asked any more; the caller sees that.
        with contextlib.suppress(ProtocolError), self.qmp() as qmp:
            qmp.execute("system_powerdown")

    def stop(self) -> None:
        """End QEMU at once, as if the power failed."""
        if not listening(self.sockets.qmp):
            return
        with contextlib.suppress(ProtocolError), self.qmp() as qmp:
            qmp.execute("quit", timeout=10)
        if self._gone(_STOP_SECONDS):
            return
        pid = process_of(self.sockets.pid, self.sockets.qmp)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        if not self._gone(_STOP_SECONDS):
            raise GuestError(f"cannot stop {self.label}: QEMU does not end", hint=f"see {self.sockets.pid}")

    @property
    def starts_paused(self) -> bool:
        """Whether it can be started without letting the guest run."""
        return True

    def start_undo(self) -> tuple[str, dict[str, Any]]:
        """The undo entry, kind and data, that starts this VM again."""
        sockets = self.sockets
        return START, {
            "commands": self._commands(),
            "qmp": sockets.qmp,
            "pid": sockets.pid,
            "label": self.label,
            "was": process_of(sockets.pid, sockets.qmp),
        }

    def block_devices(self, qmp: QmpClient, keys: Iterable[str]) -> list[BlockDevice]:
        """Disks as its running QEMU knows them.

        :raises GuestError: one cannot be found there.
        """
        return [launched_device(key) for key in keys]

    @functools.cached_property
    def archived_config(self) -> GuestConfig:
        """The config that goes into archives."""
        return self.config

    def disks(self) -> list[Drive]:
        """All drives of the config."""
        return vm_disks(self.config)

    def resolve(self, volid: str) -> ResolvedVolume:
        """Place of a volume on this node."""
        return self._resolve(volid)

    def _gone(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while listening(self.sockets.qmp) or process_of(self.sockets.pid, self.sockets.qmp) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def process_of(pid_file: str, qmp: str) -> int | None:
    """Pid of a VM's QEMU, told by its pid file; never of another process that got the same number later."""
    try:
        with open(pid_file, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            ours = os.fsencode(qmp) in stream.read()
    except (OSError, ValueError):
        return None
    return pid if ours else None


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
    qmp, pid, was = str(data["qmp"]), str(data["pid"]), data["was"]
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    # The guest may still be on its way down. One that does not end in this time does not want to, and runs on.
    while was is not None and process_of(pid, qmp) == was and time.monotonic() < deadline:
        time.sleep(0.1)
    if not listening(qmp):
        launch([[str(part) for part in argv] for argv in data["commands"]], pid, str(data["label"]))


UNDO: dict[str, Handler] = {CONT: _undo_cont, THAW: _undo_thaw, START: _undo_start}
