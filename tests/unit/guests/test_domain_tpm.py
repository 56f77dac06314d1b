# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where libvirt keeps the states of TPMs. What is done with them is tested in ``tests/e2e/test_libvirt_tpm.py``."""

from __future__ import annotations

import pytest
from engine.guests.libvirt.connection import LibvirtSettings
from engine.guests.libvirt.tpm import state_path
from engine.settings.domain_xml import parse_domain

UUID = "7cf798df-7725-443d-a246-a2aa9b6fd781"
SYSTEM, SESSION = "/var/lib/libvirt/qemu", "/home/x/.config/libvirt/qemu/lib/"


@pytest.mark.parametrize(
    ("folder", "backend", "path"),
    [
        (SYSTEM, "version='2.0'/>", f"/var/lib/libvirt/swtpm/{UUID}/tpm2/tpm2-00.permall"),
        (SYSTEM, "version='1.2'/>", f"/var/lib/libvirt/swtpm/{UUID}/tpm1.2/tpm-00.permall"),
        (SESSION, "/>", f"/home/x/.config/libvirt/qemu/swtpm/{UUID}/tpm2/tpm2-00.permall"),
        (SYSTEM, "><source type='dir' path='/tpm/a'/></backend>", "/tpm/a/tpm2-00.permall"),
        (SYSTEM, "><source type='file' path='/tpm/a.raw'/></backend>", "/tpm/a.raw"),
    ],
)
def test_path(folder: str, backend: str, path: str) -> None:
    tpm = f"<devices><tpm><backend type='emulator' {backend}</tpm></devices>"
    domain = parse_domain(f"<domain><uuid>{UUID}</uuid>{tpm}</domain>")
    assert domain.emulated_tpm is not None
    assert state_path(LibvirtSettings("qemu:///system", folder), domain, domain.emulated_tpm) == path
