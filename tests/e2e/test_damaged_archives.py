# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that are cut short, have a wrong bit, or are no archives at all: a restore of one leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from helpers.archives import flipped, header_size
from helpers.guests import CT, VM, tree
from helpers.node import Node

NEW = 200

Damage = Callable[[bytes], bytes]

EVERYWHERE: dict[str, Damage] = {
    "empty": lambda data: b"",
    "something else": lambda data: b"this is not an archive\n" * 5000,
    "cut in its beginning": lambda data: data[:100],
    "cut in the middle": lambda data: data[: len(data) // 2],
    # What comes behind the last extent of a VMA, and behind the end mark of a tar, is of no account.
    "cut near its end": lambda data: data[: len(data) - 20000],
}
COMPRESSED: dict[str, Damage] = {
    "a bit in the first frame": lambda data: flipped(data, 5000),
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
}
VMA: dict[str, Damage] = {
    "a bit in the magic": lambda data: flipped(data, 1),
    "a bit in the header": lambda data: flipped(data, 40),
    "a bit in the config": lambda data: flipped(data, data.index(b"memory: 32")),
    "a bit in the first extent's header": lambda data: flipped(data, header_size(data) + 70),
    "a bit in a later extent's header": lambda data: flipped(data, data.rindex(b"VMAE") + 100),
    "an extent twice": lambda data: data + data[header_size(data) : data.index(b"VMAE", header_size(data) + 4)],
}
TAR: dict[str, Damage] = {
    "a bit in the first name": lambda data: flipped(data, 3),
    "a bit in a later header": lambda data: flipped(data, data.index(b"./data/random") + 2),
}


@pytest.mark.parametrize(
    ("compress", "damages"),
    [
        ("0", {**EVERYWHERE, **VMA}),
        ("zstd", {**EVERYWHERE, **COMPRESSED}),
        ("gzip", {**EVERYWHERE, **COMPRESSED}),
        ("lzo", {**EVERYWHERE, **COMPRESSED}),
    ],
    ids=["plain", "zstd", "gzip", "lzo"],
)
def test_vm(compress: str, damages: dict[str, Damage], machine: Node) -> None:
    (guest,) = machine.json("run", str(VM), "--storage", "backup", "--compress", compress)["guests"]
    path = Path(guest["path"])
    good = path.read_bytes()
    for what, damage in damages.items():
        path.write_bytes(damage(good))
        complaint = machine.refused("restore", guest["archive"], str(NEW), status=1)
        assert (guest["archive"] in complaint, str(NEW) in complaint) == (True, True), (what, complaint)
        assert not machine.config(NEW, "qemu").exists(), what
        assert not (machine.images / str(NEW)).exists(), what
        assert machine.start("vma", "verify", str(path)).wait().status == 1, what
    path.write_bytes(good)
    machine.call("restore", guest["archive"], str(NEW))


@pytest.mark.parametrize(
    ("compress", "damages"),
    [("0", {**EVERYWHERE, **TAR}), ("zstd", {**EVERYWHERE, **COMPRESSED}), ("gzip", {**EVERYWHERE, **COMPRESSED})],
    ids=["plain", "zstd", "gzip"],
)
def test_ct(compress: str, damages: dict[str, Damage], box: Node) -> None:
    (guest,) = box.json("run", str(CT), "--storage", "backup", "--compress", compress)["guests"]
    path = Path(guest["path"])
    good = path.read_bytes()
    for what, damage in damages.items():
        path.write_bytes(damage(good))
        complaint = box.refused("restore", guest["archive"], str(NEW), status=1)
        assert (guest["archive"] in complaint, str(NEW) in complaint) == (True, True), (what, complaint)
        assert not box.config(NEW, "lxc").exists(), what
        assert not (box.images / str(NEW)).exists(), what
    path.write_bytes(good)
    box.call("restore", guest["archive"], str(NEW))


def test_a_guest_is_not_replaced_by_a_damaged_archive(box: Node) -> None:
    (guest,) = box.json("run", str(CT), "--storage", "backup", "--compress", "zstd")["guests"]
    path = Path(guest["path"])
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size // 2))
    before = tree(box.images / str(CT)), box.config(CT, "lxc").read_text(encoding="utf-8")
    box.refused("restore", guest["archive"], str(CT), "--force", status=1)
    assert (tree(box.images / str(CT)), box.config(CT, "lxc").read_text(encoding="utf-8")) == before


@pytest.mark.parametrize("byte", [-24, -20], ids=["size of a frame", "length of its content"])
def test_a_seek_table_that_is_wrong_harms_nothing(byte: int, machine: Node) -> None:
    (guest,) = machine.json("run", str(VM), "--storage", "backup", "--compress", "zstd")["guests"]
    path = Path(guest["path"])
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size + byte))
    machine.call("restore", guest["archive"], str(NEW))
