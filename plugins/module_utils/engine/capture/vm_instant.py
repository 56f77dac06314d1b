# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The instant at which a VM in QEMU is captured: file systems frozen, processors paused, filters inserted, and on."""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Iterator, Sequence

from ..errors import ProtocolError
from ..guests.qemu.agent import AgentClient
from ..guests.qemu.guest import CONT, THAW, QemuGuest
from ..guests.qemu.qmp import QmpClient
from ..settings.vm_config import agent_settings
from ..system.report import Reporter
from ..system.undo import UndoStack
from .model import Timings
from .vm_filters import Filtered, insert


def take_instant(
    guest: QemuGuest,
    qmp: QmpClient,
    disks: Sequence[Filtered],
    meanwhile: Callable[[], None],
    undo: UndoStack,
    report: Reporter,
    *,
    freeze: bool,
    resume: int | None = None,
) -> Timings:
    """Insert the filters so that all disks share one instant; a guest that did not run before does not run afterwards.

    :param meanwhile: called while nothing in the guest runs.
    :param freeze: ask the agent of a running guest to freeze its file systems.
    :param resume: undo token that lets a guest run which was started paused for this.
    """
    timings = Timings()
    running = bool(qmp.execute("query-status")["running"])
    with contextlib.ExitStack() as stack:
        if running and freeze:
            stack.enter_context(_frozen(guest, undo, report, timings))
        # The guest runs again before it is thawed, also after a failure: its agent has to do that.
        if running or resume is not None:
            stack.enter_context(_paused(guest, qmp, resume, undo, timings))
        insert(qmp, disks)
        meanwhile()
    return timings


@contextlib.contextmanager
def _paused(guest: QemuGuest, qmp: QmpClient, resume: int | None, undo: UndoStack, timings: Timings) -> Iterator[None]:
    """Keep the virtual CPUs from running; ``resume`` is the undo token of a guest that does not run yet."""
    began = time.monotonic()
    token = undo.push(CONT, qmp=guest.sockets.qmp, label=guest.label) if resume is None else resume
    try:
        if resume is None:
            qmp.execute("stop")
        yield
    finally:
        qmp.execute("cont")
        undo.drop(token)
        timings.pause_seconds = time.monotonic() - began


@contextlib.contextmanager
def _frozen(guest: QemuGuest, undo: UndoStack, report: Reporter, timings: Timings) -> Iterator[None]:
    """Keep the guest's file systems from changing, if that is wanted and possible."""
    token = _freeze(guest, undo, report)
    began = time.monotonic()
    try:
        yield
    finally:
        if token is not None:
            timings.guest_frozen = True
            if _thaw(token, undo, report):
                report.info(f"guest file systems were frozen for {time.monotonic() - began:.2f} s")
            timings.freeze_seconds = time.monotonic() - began


def _freeze(guest: QemuGuest, undo: UndoStack, report: Reporter) -> int | None:
    """Freeze the guest's file systems if that is wanted and possible; returns the undo token that thaws them."""
    settings = agent_settings(guest.config)
    if not settings.enabled or not settings.freeze_fs:
        report.info("guest file systems are not frozen: the agent or its freeze option is disabled in the config")
        return None
    token: int | None = None
    try:
        with AgentClient(guest.sockets.agent, guest.label) as agent:
            if agent.frozen():
                report.warn("guest file systems are frozen already, by somebody else: they are left like that")
                return None
            token = undo.push(THAW, agent=guest.sockets.agent, qmp=guest.sockets.qmp, label=guest.label)
            report.info(f"froze {agent.freeze()} file systems of the guest")
    except ProtocolError as exc:
        report.warn(f"guest file systems are not frozen, the backup goes on without: {exc.message}")
        if token is not None:
            # The command may still reach an agent that hangs now.
            _thaw(token, undo, report)
        return None
    return token


def _thaw(token: int, undo: UndoStack, report: Reporter) -> bool:
    """Thaw now; what does not succeed is tried again when the backup ends, and by the next run."""
    try:
        undo.undo(token)
        return True
    except ProtocolError as exc:
        report.warn(f"guest file systems may still be frozen, this is tried again at the end: {exc.message}")
        return False
