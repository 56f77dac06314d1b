# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a VM's config reaches QEMU's command line, and what must not."""

from __future__ import annotations

import pytest
from engine.errors import ConfigError
from engine.guests.model import ResolvedVolume
from engine.guests.qemu.launcher import Sockets, qemu_argv
from engine.settings.guest_config import GuestConfig


def argv(text: str) -> list[str]:
    config = GuestConfig.parse(text)
    return qemu_argv(100, config, lambda volid: ResolvedVolume(volid, "raw"), Sockets.of("/run/x", 100))


def option(text: str, name: str) -> str:
    found = argv(text)
    return found[found.index(name) + 1]


def test_a_comma_in_the_name_begins_no_option() -> None:
    assert option("name: a,process=b\n", "-name") == "guest=a,,process=b,debug-threads=on"


@pytest.mark.parametrize("machine", ["pc,kernel=/etc/shadow", "q35,initrd=/etc/shadow", "type=pc,firmware=/etc/shadow"])
def test_a_machine_has_a_type_and_nothing_else(machine: str) -> None:
    with pytest.raises(ConfigError, match=r"machine: .* is not supported"):
        argv(f"machine: {machine}\n")
    assert option("machine: type=q35\n", "-machine") == "q35"
    assert option("memory: 64\n", "-machine") == "pc"


@pytest.mark.parametrize("memory", ["²", "٣", "9" * 5000])
def test_memory_is_a_number(memory: str) -> None:
    with pytest.raises(ConfigError, match="is not a number of MiB"):
        argv(f"memory: {memory}\n")


@pytest.mark.parametrize("line", ["cores: ²", "sockets: x", "vcpus: 0", f"cores: {'9' * 5000}", 'args: "open'])
def test_what_is_no_number_or_no_words(line: str) -> None:
    with pytest.raises(ConfigError):
        argv(f"{line}\n")
