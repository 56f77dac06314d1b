# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The config of a restored guest."""

from __future__ import annotations

import re

import pytest
from engine.errors import IntegrityError, UsageError
from engine.settings.sizes import format_size, parse_size
from engine.tasks.restore_config import (
    disk_map,
    get_key,
    macs_in,
    split_volume,
    transform_ct,
    transform_vm,
)

VM = """#web server
#qmdump#map:scsi0:drive-scsi0:local:qcow2:
#qmdump#map:virtio0:drive-virtio0:fast:raw:
#vzdump#backup
agent: 1
args: -kernel /boot/k
boot: order=scsi0
hookscript: local:snippets/x.pl
hostpci0: 0000:01:00.0
ide2: none,media=cdrom
ide3: local:100/vm-100-cloudinit.qcow2,media=cdrom
lock: backup
memory: 512
name: web
net0: virtio=AA:BB:CC:DD:EE:01,bridge=vmbr0,firewall=1
net1: e1000,bridge=vmbr1
parent: snap1
sata0: /dev/sr0,media=cdrom
scsi0: local:100/vm-100-disk-0.qcow2,discard=on,format=qcow2,size=32G
scsi1: local:100/vm-100-disk-1.raw,backup=0,size=1G
serial0: socket
serial1: /dev/ttyS0
smbios1: uuid=11111111-2222-3333-4444-555555555555,manufacturer=x
template: 1
unused0: local:100/vm-100-disk-9.raw
usb0: host=1234:5678
usb1: spice
virtio0: fast:100/vm-100-disk-2.raw,size=2G
vmgenid: 66666666-2222-3333-4444-555555555555

[snap1]
memory: 1
"""

VOLUMES = {"scsi0": ("nas:200/vm-200-disk-0.qcow2", 32 << 30), "virtio0": ("nas:200/vm-200-disk-1.raw", 2 << 30)}


def vm(**wanted: object) -> dict[str, str]:
    arguments = {"unique": False, "trust": False, "overrides": {}, **wanted}
    done = transform_vm(VM, VOLUMES, **arguments)  # type: ignore[arg-type]
    return dict(line.split(": ", 1) for line in done.text.splitlines() if not line.startswith("#"))


def test_map_lines() -> None:
    assert [(line.key, line.device, line.storage, line.format) for line in disk_map(VM)] == [
        ("scsi0", "drive-scsi0", "local", "qcow2"),
        ("virtio0", "drive-virtio0", "fast", "raw"),
    ]


def test_volumes_move_and_keep_their_options() -> None:
    config = vm()
    assert config["scsi0"] == "nas:200/vm-200-disk-0.qcow2,discard=on,size=32G"
    assert config["virtio0"] == "nas:200/vm-200-disk-1.raw,size=2G"
    assert config["ide2"] == "none,media=cdrom"


def test_state_of_the_old_guest_does_not_come_back() -> None:
    config = vm()
    assert not {"lock", "parent", "template", "unused0", "[snap1]"} & set(config)
    assert config["memory"] == "512"


def test_keys_that_reach_into_the_host_are_left_out_and_named() -> None:
    done = transform_vm(VM, VOLUMES, unique=False, trust=False, overrides={})
    assert {line.split(":")[0] for line in done.dropped} == {
        "args",
        "hookscript",
        "hostpci0",
        "sata0",
        "serial1",
        "usb0",
    }
    assert get_key(done.text, "serial0") == "socket"
    assert get_key(done.text, "usb1") == "spice"
    trusted = transform_vm(VM, VOLUMES, unique=False, trust=True, overrides={})
    assert trusted.dropped == []
    assert get_key(trusted.text, "args") == "-kernel /boot/k"


@pytest.mark.parametrize(
    "value",
    [
        "volume=none,media=cdrom,file=/etc/shadow",
        "none,media=cdrom,volume=/etc/shadow",
        "/etc/shadow,media=cdrom",
        "local:100/vm-100-disk-1.raw,media=cdrom",
        "local:iso/../../x.raw,media=cdrom",
        "local:snippets/secret.yml,media=cdrom",
        ",media=cdrom,file=/etc/shadow",
        "cdrom,media=cdrom",
        "cdrom",
    ],
)
def test_cd_drives_with_files_of_the_host_or_disks_of_others(value: str) -> None:
    done = transform_vm(f"ide2: {value}\n", {}, unique=False, trust=False, overrides={})
    assert (done.text, done.dropped) == ("", [f"ide2: {value}"])
    kept = transform_vm("ide2: nas:iso/debian.iso,media=cdrom\n", {}, unique=False, trust=False, overrides={})
    assert (kept.text, kept.dropped) == ("ide2: nas:iso/debian.iso,media=cdrom\n", [])


def test_a_restored_drive_names_nothing_but_its_new_volume() -> None:
    text = "scsi0: volume=local:100/x,file=/dev/sda,media=cdrom,size=1G\n"
    done = transform_vm(text, VOLUMES, unique=False, trust=False, overrides={})
    assert done.text == "scsi0: nas:200/vm-200-disk-0.qcow2,media=cdrom,size=32G\n"
    done = transform_ct("rootfs: x:1,volume=/etc\n", {"rootfs": ("b:2", None)}, unique=False, trust=False, overrides={})
    assert done.text == "rootfs: b:2\n"


@pytest.mark.parametrize(
    "lines",
    [
        "#qmdump#map:args:drive-scsi0:local:raw:\n",
        "#qmdump#map:scsi0:drive-scsi0:local:raw:\n#qmdump#map:scsi0:drive-scsi1:local:raw:\n",
        "#qmdump#map:scsi0:drive-scsi0:local:raw:\n#qmdump#map:scsi1:drive-scsi0:local:raw:\n",
    ],
)
def test_map_lines_that_would_leave_volumes_without_a_name(lines: str) -> None:
    with pytest.raises(IntegrityError):
        disk_map(lines)


def test_drives_without_data_are_commented_out_with_a_warning() -> None:
    done = transform_vm(VM, VOLUMES, unique=False, trust=False, overrides={})
    lines = done.text.splitlines()
    assert lines[0] == "#web server"
    assert "#scsi1: local:100/vm-100-disk-1.raw,backup=0,size=1G" in lines
    assert any(line.startswith("#ide3: ") for line in lines)
    assert not any("qmdump" in line for line in lines)
    assert len(done.warnings) == 2


def test_generation_id_changes_always_and_identity_only_with_unique() -> None:
    plain, unique = vm(), vm(unique=True)
    assert plain["vmgenid"] != "66666666-2222-3333-4444-555555555555"
    assert plain["net0"] == "virtio=AA:BB:CC:DD:EE:01,bridge=vmbr0,firewall=1"
    assert plain["smbios1"].startswith("uuid=11111111-")
    assert re.fullmatch(r"virtio=BC:24:11(:[0-9A-F]{2}){3},bridge=vmbr0,firewall=1", unique["net0"])
    assert unique["net1"] == "e1000,bridge=vmbr1"
    assert not unique["smbios1"].startswith("uuid=11111111-")
    assert unique["smbios1"].endswith(",manufacturer=x")
    zero = transform_vm("vmgenid: 0\n", {}, unique=True, trust=False, overrides={})
    assert zero.text == "vmgenid: 0\n"


def test_overrides() -> None:
    config = vm(overrides={"memory": 1024, "onboot": True, "agent": None})
    assert (config["memory"], config["onboot"]) == ("1024", "1")
    assert "agent" not in config
    for bad in ({"scsi0": "x"}, {"name": "a\nargs: -x"}, {"a b": "c"}):
        with pytest.raises(UsageError):
            vm(overrides=bad)


CT = """#note
arch: amd64
dev0: /dev/dri/card0
features: nesting=1
hostname: web
lxc.apparmor.profile: unconfined
mp0: local:101/subvol-101-disk-1.subvol,mp=/data,backup=1,size=2G
mp1: /srv/share,mp=/share
net0: name=eth0,bridge=vmbr0,hwaddr=AA:BB:CC:DD:EE:02,type=veth
rootfs: local-lvm:vm-101-disk-0,size=8G,acl=1
unprivileged: 1
"""


def test_container() -> None:
    volumes = {
        "rootfs": ("b:201/subvol-201-disk-0.subvol", 8 << 30),
        "mp0": ("b:201/subvol-201-disk-1.subvol", None),
    }
    done = transform_ct(CT, volumes, unique=True, trust=False, overrides={"hostname": "copy"})
    assert get_key(done.text, "rootfs") == "b:201/subvol-201-disk-0.subvol,size=8G,acl=1"
    assert get_key(done.text, "mp0") == "b:201/subvol-201-disk-1.subvol,mp=/data,backup=1,size=2G"
    assert get_key(done.text, "hostname") == "copy"
    assert get_key(done.text, "unprivileged") == "1"
    assert "AA:BB:CC:DD:EE:02" not in done.text
    assert {line.split(":")[0] for line in done.dropped} == {"dev0", "lxc.apparmor.profile", "mp1"}
    trusted = transform_ct(CT, volumes, unique=False, trust=True, overrides={}, unprivileged=False)
    assert trusted.text.splitlines()[-1] == "lxc.apparmor.profile: unconfined"
    assert get_key(trusted.text, "mp1") == "/srv/share,mp=/share"
    assert get_key(trusted.text, "unprivileged") == "0"
    with pytest.raises(UsageError):
        transform_ct(CT, volumes, unique=False, trust=False, overrides={"mp3": "x"})


def test_sizes_and_volumes() -> None:
    assert [format_size(size) for size in (32 << 30, 528 << 10, 3 << 20, 1000)] == ["32G", "528K", "3M", "1000"]
    assert [parse_size(text) for text in ("8G", "528K", "512", "x", "9" * 400, "²", "8G\n")] == [
        *(8 << 30, 528 << 10, 512, None, None, None, None)
    ]
    assert split_volume("file=local:1/x.raw,iothread=1,size=2G") == ("local:1/x.raw", {"iothread": "1", "size": "2G"})
    assert macs_in("net0: virtio=aa:bb:cc:dd:ee:01,bridge=b") == ["AA:BB:CC:DD:EE:01"]
