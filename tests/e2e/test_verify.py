# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of real guests note digests, and verifications compare them with the archives and with the disks."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine.formats.disk_digest import DiskDigest
from helpers import guests
from helpers.archives import flipped
from helpers.guests import CT, VM
from helpers.node import Node
from helpers.process import wait_for
from helpers.vms import TWIN, back_up, restored

LEVELS = ["index", "data"]
COMPRESSIONS = ["0", "zstd", "gzip", "lzo"]


def verified(node: Node, *args: str, status: int = 0) -> dict[str, Any]:
    """The only archive of a verification; nothing may be left behind, and the archive is as it was."""
    before = {path: path.read_bytes() for path in node.dump.iterdir() if path.suffix != ".record"}
    ended = node.start("verify", *args, "--json").wait()
    assert ended.status == status, ended.err
    assert node.leftovers() == []
    assert {path: path.read_bytes() for path in node.dump.iterdir() if path.suffix != ".record"} == before
    (archive,) = json.loads(ended.out)["archives"]
    return dict(archive)


def digests(node: Node, vmid: int) -> dict[str, str]:
    """The digests of a VM's disks as they lie on the storage."""
    names = {"scsi0": f"vm-{vmid}-disk-0.qcow2", "virtio0": f"vm-{vmid}-disk-1.raw"}
    return {key: digest_of(node.images / str(vmid) / name) for key, name in names.items()}


def digest_of(path: Path) -> str:
    raw = path.with_suffix(".plain")
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(path), str(raw)], check=True)
    data = raw.read_bytes()
    raw.unlink()
    digest = DiskDigest(len(data))
    digest.add(0, len(data), data)
    return digest.value() or ""


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_stopped_vm(compress: str, machine: Node) -> None:
    guest = back_up(machine, "--compress", compress)
    folder = machine.images / str(VM)
    digests = {
        key: digest_of(folder / name)
        for key, name in (("scsi0", "vm-100-disk-0.qcow2"), ("virtio0", "vm-100-disk-1.raw"))
    }
    assert guest["digests"] == digests
    for level in LEVELS:
        assert verified(machine, guest["archive"], "--level", level)["state"] == "ok"
    path = Path(guest["path"])
    good = path.read_bytes()
    path.write_bytes(flipped(good, good.index(b"HFST") if compress == "0" else len(good) // 2))
    archive = verified(machine, guest["archive"], status=3)
    assert archive["state"] == "damaged"
    assert archive["findings"][0]["cause"]
    path.write_bytes(good[: len(good) // 2])
    assert verified(machine, guest["archive"], "--level", "index", status=3)["state"] == "damaged"


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_container(compress: str, box: Node) -> None:
    (guest,) = box.json("run", str(CT), "--storage", "backup", "--compress", compress)["guests"]
    unpack = {"0": ["cat"], "zstd": ["zstd", "-dc"], "gzip": ["gzip", "-dc"], "lzo": ["lzop", "-dc"]}[compress]
    with open(guest["path"], "rb") as stream:
        tar = subprocess.run(unpack, stdin=stream, check=True, capture_output=True).stdout
    assert guest["digests"] == {"tar": hashlib.sha256(tar).hexdigest()}
    for level in LEVELS:
        assert verified(box, guest["archive"], "--level", level)["state"] == "ok"
    path = Path(guest["path"])
    good = path.read_bytes()
    path.write_bytes(flipped(good, len(good) // 2))
    assert verified(box, guest["archive"], status=3)["state"] == "damaged"
    # What is damaged is no fresh backup, and the listing says so.
    assert box.json("archives")[0]["verified"]["state"] == "damaged"
    assert "damaged (data)" in box.call("archives")
    assert box.json("run", str(CT), "--storage", "backup", "--max-age", "1h")["changed"] is True


def test_a_vm_that_writes(machine: Node) -> None:
    guests.start(machine, VM)
    wait_for(lambda: guests.handle(machine, VM).status() == "running", "the VM to run")
    guest = back_up(machine, "--compress", "zstd")
    assert (guest["mode"], verified(machine, guest["archive"])["state"]) == ("snapshot", "ok")
    restored(machine, guest)
    assert digests(machine, TWIN) == guest["digests"]


def test_what_the_original_would_have_written_is_unknown(machine: Node) -> None:
    guest = back_up(machine, "--compress", "0")
    path = Path(guest["path"])
    subprocess.run(["zstd", "-q", "--rm", str(path)], check=True)
    Path(f"{path}.record").unlink()
    for level, state in (("index", "ok"), ("data", "unknown")):
        archive = verified(machine, "--storage", "backup", "--level", level)
        assert (archive["state"], archive["findings"]) == (state, [])
    assert {volume["recorded"] for volume in archive["volumes"]} == {None}


def test_as_people_call_it(box: Node) -> None:
    (guest,) = box.json("run", str(CT), "--storage", "backup", "--compress", "zstd")["guests"]
    assert "nothing to verify is named" in box.refused("verify", status=2)
    assert "planned" in box.call("verify", "backup:latest/box", "--check")
    assert "ok" in box.call("verify", "--storage", "backup", "--newest")
    assert "fresh" in box.call("verify", "--all", "--vmid", str(CT), "--max-age", "1h")
    assert box.json("status")["runs"][0]["kind"] == "verify"
    path = Path(guest["path"])
    path.write_bytes(path.read_bytes()[:-100])
    complaint = box.refused("verify", "--storage", "backup", status=3)
    assert f"error: {guest['archive']}: it has " in complaint
    path.unlink()
    assert "there is no archive" in box.refused("verify", guest["archive"], status=1)
