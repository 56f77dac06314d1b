# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which capture serves which kind of guest, and how all of them are taken back."""

from __future__ import annotations

from typing import ContextManager

from ..guests.libvirt.guest import LibvirtGuest
from ..guests.lxc.guest import LxcGuest
from ..guests.registry import UNDO as GUEST_UNDO
from ..guests.registry import Guest
from ..system.report import Reporter
from ..system.undo import Handler, UndoStack
from .ct import UNDO as CT_UNDO
from .ct import capture_ct
from .domain import UNDO as DOMAIN_UNDO
from .domain import capture_domain
from .model import Captured, CaptureOptions
from .vm import UNDO as VM_UNDO
from .vm import capture_vm

UNDO: dict[str, Handler] = {**GUEST_UNDO, **CT_UNDO, **VM_UNDO, **DOMAIN_UNDO}


def open_capture(
    guest: Guest, mode: str, options: CaptureOptions, undo: UndoStack, report: Reporter
) -> ContextManager[Captured]:
    """Hold a consistent state of a guest while the block runs; see the captures themselves."""
    if isinstance(guest, LxcGuest):
        return capture_ct(guest, mode, options, undo, report)
    if isinstance(guest, LibvirtGuest):
        return capture_domain(guest, mode, options, undo, report)
    return capture_vm(guest, mode, options, undo, report)
