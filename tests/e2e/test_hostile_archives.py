# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that want to reach out of the guest that is made of them."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Callable

import pytest
from helpers.archives import CT_CONFIG, config, header_size, member, outside, renamed, tar_archive, untouched
from helpers.guests import VM
from helpers.node import Node

Members = list[tuple[tarfile.TarInfo, bytes]]

LNK, SYM, BLK, CHR, DIR = tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.BLKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE
FILE = b"from the archive"
VMID = "301"

REFUSED: dict[str, tuple[Callable[[Path], Members], str]] = {
    "a name with ..": (lambda out: [member("./../../../outside/x", data=FILE)], "leaves the container"),
    "a hidden ..": (lambda out: [member("./etc/../../../x", data=FILE)], "leaves the container"),
    "below an absolute link": (
        lambda out: [member("./link", SYM, str(out)), member("./link/x", data=FILE)],
        "below the symbolic link 'link'",
    ),
    "below a relative link": (
        lambda out: [member("./a", DIR), member("./a/up", SYM, "../../.."), member("./a/up/x", data=FILE)],
        "below the symbolic link 'up'",
    ),
    "below a chain of links": (
        lambda out: [member("./one", SYM, str(out)), member("./two", SYM, "one"), member("./two/x", data=FILE)],
        "below the symbolic link 'two'",
    ),
    "below a second name of a link": (
        lambda out: [member("./link", SYM, str(out)), member("./again", LNK, "./link"), member("./again/x", data=FILE)],
        "below the symbolic link 'again'",
    ),
    "an absolute hard link": (lambda out: [member("./x", LNK, str(out / "witness"))], "hard link to a file outside"),
    "a hard link with ..": (
        lambda out: [member("./x", LNK, "./../../../outside/witness")],
        "hard link to a file outside",
    ),
    "a hard link through a link": (
        lambda out: [member("./link", SYM, str(out)), member("./x", LNK, "./link/witness")],
        "below the symbolic link 'link'",
    ),
    "a folder that becomes a link": (
        lambda out: [member("./data", DIR), member("./data", SYM, str(out)), member("./data/x", data=FILE)],
        "below the symbolic link 'data'",
    ),
}


def nothing_is_made(node: Node) -> None:
    assert not node.config(int(VMID), "lxc").exists()
    assert not (node.images / VMID).exists()


@pytest.mark.parametrize("case", REFUSED)
def test_ways_out(case: str, node: Node) -> None:
    out = outside(node)
    make, why = REFUSED[case]
    archive = tar_archive(node, [config(CT_CONFIG), *make(out)])
    assert why in node.refused("restore", archive, VMID, status=1)
    nothing_is_made(node)
    untouched(out)


def test_absolute_names_stay_inside(node: Node) -> None:
    out = outside(node)
    archive = tar_archive(node, [config(CT_CONFIG), member(f"{out}/x", data=FILE), member("/abs", SYM, str(out))])
    node.call("restore", archive, VMID)
    root = node.images / VMID / f"subvol-{VMID}-disk-0.subvol"
    assert (root / str(out).lstrip("/") / "x").read_bytes() == FILE
    assert os.readlink(root / "abs") == str(out)
    untouched(out)
    assert node.leftovers() == []


@pytest.mark.parametrize("kind", [BLK, CHR], ids=["block", "character"])
def test_device_nodes_of_an_unprivileged_container(kind: bytes, node: Node) -> None:
    node_of_host = member("./srv/disk", kind)
    node_of_host[0].devmajor, node_of_host[0].devminor = (7, 0) if kind == BLK else (1, 3)
    archive = tar_archive(node, [config(CT_CONFIG + "unprivileged: 1\n"), member("./srv", DIR), node_of_host])
    assert "is a device node and the container is unprivileged" in node.refused("restore", archive, VMID, status=1)
    nothing_is_made(node)
    node.call("restore", archive, VMID, "--unprivileged", "0")
    made = node.images / VMID / f"subvol-{VMID}-disk-0.subvol" / "srv" / "disk"
    assert stat.S_ISBLK(made.lstat().st_mode) == (kind == BLK)


def test_the_first_config_counts_and_reaches_nothing_on_the_host(node: Node) -> None:
    first = CT_CONFIG + (
        "lxc.hook.pre-start: /bin/evil\nlxc.mount.entry: /etc etc none bind 0 0\nhookscript: local:snippets/evil\n"
        "dev0: /dev/sda\nmp3: /etc,mp=/host\nlock: backup\n"
    )
    second = CT_CONFIG.replace("guest", "planted") + "lxc.hook.start: /bin/evil\n"
    result = node.json("restore", tar_archive(node, [config(first), config(second)]), VMID)
    text = node.config(int(VMID), "lxc").read_text(encoding="utf-8")
    assert text.splitlines() == ["hostname: guest", f"rootfs: local:{VMID}/subvol-{VMID}-disk-0.subvol,size=1G"]
    dropped = {line.partition(":")[0] for line in result["dropped"]}
    assert dropped == {"lxc.hook.pre-start", "lxc.mount.entry", "hookscript", "dev0", "mp3"}
    # What the guest finds of it is nothing: it is taken out, whichever was unpacked.
    assert list((node.images / VMID).glob("*/etc/vzdump/*")) == []


CONFIGS: dict[str, tuple[Members, str]] = {
    "none": ([member("./etc/hostname", data=b"guest")], "no etc/vzdump/pct.conf"),
    "a link": ([member("./etc/vzdump/pct.conf", SYM, "/etc/passwd")], "is not a configuration file"),
    "huge": ([config("x" * (2 << 20))], "is not a configuration file"),
    "without root": ([config("hostname: guest\n")], "no rootfs"),
    "root on the host": ([config("rootfs: /etc\n")], "is the host path /etc"),
    "mounted outside": ([config(CT_CONFIG + "mp0: local:300/x,mp=/../../outside,size=1G\n")], "mount point"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_of_containers(case: str, node: Node) -> None:
    members, why = CONFIGS[case]
    assert why in node.refused("restore", tar_archive(node, members), VMID, status=1)
    nothing_is_made(node)


def test_a_link_where_a_volume_is_mounted(node: Node) -> None:
    out = outside(node)
    text = CT_CONFIG + "mp0: local:300/subvol-300-disk-1.subvol,mp=/srv/data,backup=1,size=1G\n"
    archive = tar_archive(node, [config(text), member("./srv", SYM, str(out)), member("./srv/data/x", data=FILE)])
    assert "below the symbolic link 'srv'" in node.refused("restore", archive, VMID, status=1)
    nothing_is_made(node)
    untouched(out)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"qemu-server.conf", b"../server/q.conf"),
        (b"drive-virtio0", b"../../../evil"),
        (b"drive-virtio0", b"/tmp/virtio0x"),
    ],
    ids=["config", "device", "absolute device"],
)
def test_names_in_vm_archives(old: bytes, new: bytes, machine: Node) -> None:
    out = outside(machine)
    (guest,) = machine.json("run", str(VM), "--storage", "backup", "--compress", "0")["guests"]
    path = Path(guest["path"])
    honest = path.read_bytes()
    assert header_size(honest) > 12 << 10
    path.write_bytes(renamed(honest, old, new))
    assert "unsafe name" in machine.refused("restore", guest["archive"], VMID, status=1)
    assert not machine.config(int(VMID), "qemu").exists()
    target = machine.root / "unpacked"
    assert "unsafe name" in machine.call("vma", "extract", str(path), str(target), status=1)
    assert not target.exists()
    untouched(out)


def test_settings_of_vms_that_reach_the_host(machine: Node) -> None:
    config = machine.config(VM, "qemu")
    lines = (
        *("hookscript: local:snippets/evil", "hostpci0: 01:00", "serial1: /dev/ttyS0", "usb0: host=1:2"),
        *("ide2: volume=none,media=cdrom,file=/etc/shadow", f"ide3: local:{VM}/vm-{VM}-disk-1.raw,media=cdrom"),
    )
    plain = config.read_text(encoding="utf-8")
    config.write_text(plain + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    (guest,) = machine.json("run", str(VM), "--storage", "backup", "--compress", "0")["guests"]
    config.write_text(plain, encoding="utf-8")
    result = machine.json("restore", guest["archive"], VMID)
    assert {line.partition(":")[0] for line in result["dropped"]} == {
        "args",
        "hookscript",
        "hostpci0",
        "serial1",
        "usb0",
        "ide2",
        "ide3",
    }
    text = machine.config(int(VMID), "qemu").read_text(encoding="utf-8")
    assert not any(line in text for line in lines)
    machine.call("guest", "start", VMID)
    machine.call("guest", "stop", VMID, "--force")
    config = machine.config(int(VMID), "qemu")
    config.write_text(config.read_text(encoding="utf-8") + "machine: pc,kernel=/etc/shadow\n", encoding="utf-8")
    assert "machine: kernel is not supported" in machine.refused("guest", "start", VMID, status=1)
