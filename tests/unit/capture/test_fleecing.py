# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fleecing images are told to QEMU and to libvirt, and the watch over their room."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from engine.capture.domain_job import Scratch
from engine.capture.fleecing import SpaceWatch, make_image, remove_images
from engine.capture.vm_filters import Filtered, prepare
from engine.errors import ProtocolError, StorageError
from engine.guests.qemu.blocks import launched_device
from engine.storages.registry import UNDO
from engine.storages.scratch import FolderScratch, Gauge, ScratchImage, VolumeScratch
from engine.storages.volumes.lvmthin import LvmThinVolume
from engine.system.undo import UndoStack

MIB = 1 << 20


class Recorder:
    """Stands for a QMP client; keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def execute(self, _command: str, arguments: dict[str, Any]) -> None:
        self.told.append(arguments)


def volumes() -> VolumeScratch:
    taken = ["vm-100-fleece-0", "vm-100-disk-0"]
    return VolumeScratch("storage 'x'", 100, lambda name: LvmThinVolume(f"vg/{name}", "thin"), lambda: taken, list)


def told(image: ScratchImage) -> dict[str, Any]:
    qmp = Recorder()
    prepare(qmp, [Filtered(launched_device("scsi0"), 5 * MIB, image)])  # type: ignore[arg-type]
    (node,) = qmp.told
    return node


def test_a_device_may_be_larger_than_the_disk_and_is_written_past_the_page_cache() -> None:
    node = told(volumes().image())
    assert (node["driver"], node["size"], node["discard"]) == ("raw", 5 * MIB, "unmap")
    assert node["file"] == {
        "driver": "host_device",
        "filename": "/dev/vg/vm-100-fleece-1",
        "cache": {"direct": True},
        "discard": "unmap",
    }


def test_a_file(tmp_path: Path) -> None:
    node = told(FolderScratch("x", 100, str(tmp_path)).image("qcow2"))
    assert (node["driver"], "size" in node, node["file"]["driver"]) == ("qcow2", False, "file")


def test_volumes_are_undone_by_their_marks() -> None:
    space = volumes()
    first, second = space.image(), space.image()
    assert (first.undo[0], first.undo[1]["source"]) == ("storage.scratch", "vg/vm-100-fleece-1")
    assert second.undo[1]["source"] == "vg/vm-100-fleece-2"
    assert first.undo[1]["mark"] != second.undo[1]["mark"]


def test_what_libvirt_is_told(tmp_path: Path) -> None:
    files = FolderScratch("x", 100, str(tmp_path))
    images = {"vda": volumes().image("qcow2"), "vdb": files.image("qcow2")}
    root = ET.fromstring(Scratch("/run/nbd", files, images, ["vdc"], []).to_xml())
    block, file, left_out = root.findall("disks/disk")
    assert (block.get("type"), file.get("type"), left_out.get("backup")) == ("block", "file", "no")
    places = [disk.find("scratch").attrib for disk in (block, file)]  # type: ignore[union-attr]
    assert places == [{"dev": "/dev/vg/vm-100-fleece-1"}, {"file": str(tmp_path / "vm-100-fleece-0.qcow2")}]


def test_an_image_is_journaled_before_it_is_made(tmp_path: Path) -> None:
    undo = UndoStack(str(tmp_path / "journal"), UNDO)
    space = FolderScratch("x", 100, str(tmp_path / "images"))
    image, token = make_image(space, MIB, undo, "raw")
    assert undo.pending == [("storage.volume", {"path": image.path})]
    remove_images([token], undo)
    assert undo.pending == []
    assert not Path(image.path).exists()


class Draining(FolderScratch):
    """Has room until it is told to have none."""

    free = 10

    def gauges(self) -> list[Gauge]:
        return [Gauge("bytes", 100, self.free, 5)]


def test_the_watch_gives_up_once(tmp_path: Path) -> None:
    space = Draining("storage 'x'", 100, str(tmp_path))
    gone = threading.Event()

    def give_up() -> None:
        assert not gone.is_set()
        gone.set()
        raise StorageError("injected by a test")

    def back_up() -> None:
        with SpaceWatch(space, give_up):
            space.free = 4
            assert gone.wait(20)
            raise ProtocolError("the export is gone")

    with pytest.raises(StorageError, match=r"filled storage 'x'.*given up.*only 4 of 100 bytes") as error:
        back_up()
    assert error.value.hint
    with pytest.raises(StorageError, match="cannot make fleecing images on storage 'x': only 4 of 100"):
        make_image(space, 1, UndoStack(None, UNDO))
