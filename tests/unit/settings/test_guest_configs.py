# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guest configs: the text itself, and what it says about volumes, network and agent."""

from __future__ import annotations

import pytest
from engine.errors import ConfigError
from engine.settings.ct_config import ct_mounts, ct_nets, is_unprivileged
from engine.settings.guest_config import GuestConfig
from engine.settings.vm_config import AgentSettings, agent_settings, vm_disks, vm_nics
from hypothesis import given, settings
from hypothesis import strategies as st

VM = """#first line%3A a
# second
agent: 1
boot: order=scsi0;net0
bios: seabios
name: web
scsi0: local:100/vm-100-disk-0.qcow2,size=4G
net0: virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1

[PENDING]
memory: 4096

[before-upgrade]
#snapshot
name: old
"""


def vm(*lines: str) -> GuestConfig:
    return GuestConfig.parse("".join(f"{line}\n" for line in lines))


def test_text_round_trip() -> None:
    config = GuestConfig.parse(VM)
    assert config.to_text() == VM
    assert config.description == "first line: a\n second"
    assert config.get("name") == "web"
    assert config.rest.startswith("[PENDING]\n")
    assert dict(config.items())["boot"] == "order=scsi0;net0"


def test_raw_lines_of_containers_repeat() -> None:
    text = "hostname: ct\nlxc.idmap: u 0 100000 65536\nlxc.idmap = g 0 100000 65536\nlxc.cap.drop:\n"
    config = GuestConfig.parse(text)
    assert config.raw == (("lxc.idmap", "u 0 100000 65536"), ("lxc.idmap", "g 0 100000 65536"), ("lxc.cap.drop", ""))
    assert GuestConfig.parse(config.to_text()) == config


def test_changes() -> None:
    config = vm("#a", "name: web", "lock: backup", "memory: 64")
    changed = config.with_changes({"name": "db", "lock": None, "cores": "2", "parent": None})
    assert changed.to_text() == "#a\nname: db\nmemory: 64\ncores: 2\n"
    for key, value in (("name", "a\nlock: x"), ("a b", "c"), ("lxc.x", "y"), ("", "x")):
        with pytest.raises(ConfigError, match="cannot stand"):
            config.with_changes({key: value})


def test_characters_that_look_like_line_ends() -> None:
    text = "#a\u2028b\x0bc\x85d\nname: x\x0cy\n"
    assert GuestConfig.parse(text).to_text() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name web\n", "line 1: 'name web' is not"),
        ("a: 1\n\na: 2\n", "line 3: 'a' is given twice"),
        ("a = 1\n", "line 1"),
    ],
)
def test_wrong_lines_are_refused_or_left_out(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GuestConfig.parse(text)
    assert GuestConfig.parse(f"{text}cores: 2\n", strict=False).get("cores") == "2"


def test_the_last_line_of_a_key_counts_when_nothing_is_refused() -> None:
    assert GuestConfig.parse("a: 1\na: 2\n", strict=False).get("a") == "2"


@settings(max_examples=80, deadline=None)
@given(st.text("ab:%# \n\r\x0b\u2028\u00fc\udcff", max_size=20))
def test_descriptions_cannot_forge_lines(text: str) -> None:
    config = vm("name: web").with_description(text)
    assert all(line.startswith(("#", "name: ")) for line in config.to_text().split("\n") if line)
    assert not any(line.startswith("qmdump#map:") for line in config.comments)
    assert GuestConfig.parse(config.to_text()).description == text


def test_disks_in_the_order_of_their_interfaces() -> None:
    config = vm(
        "scsi10: local:a", "sata0: local:b", "virtio1: local:c", "scsi2: local:d", "efidisk0: local:e,efitype=4m",
        "ide2: none,media=cdrom", "tpmstate0: local:f", "bios: ovmf", "unused0: local:g", "scsi31: local:h",
    )  # fmt: skip
    assert [drive.key for drive in vm_disks(config)] == [
        "ide2", "scsi2", "scsi10", "virtio1", "sata0", "efidisk0", "tpmstate0"
    ]  # fmt: skip
    scsi = vm_disks(config)[1]
    assert (scsi.interface, scsi.index, scsi.storage, scsi.volid) == ("scsi", 2, "local", "local:d")


@pytest.mark.parametrize(
    ("line", "included", "reason"),
    [
        ("scsi0: local:100/vm-100-disk-0.qcow2,size=4G", True, "disk"),
        ("scsi0: file=local:x,size=4G", True, "disk"),
        ("scsi0: /dev/sdb", True, "disk"),
        ("scsi0: local:x,backup=1", True, "disk"),
        ("scsi0: local:x,backup=0", False, "backup is 0"),
        ("scsi0: local:x,backup=no", False, "backup is 0"),
        ("scsi0: local:iso/debian.iso,media=cdrom", False, "a CD drive"),
        ("ide2: none,media=cdrom", False, "a CD drive"),
        ("ide2: cdrom", False, "a CD drive"),
        ("ide2: local:100/vm-100-cloudinit.qcow2,media=cdrom", False, "made anew from the config"),
        ("ide2: tank:vm-100-cloudinit", False, "made anew from the config"),
        ("ide2: local:cloudinit", False, "made anew from the config"),
        ("scsi0: local:100/vm-100-cloudinit-data.qcow2", True, "disk"),
        ("scsi0: local:100/my-cloudinit.raw", True, "disk"),
        ("efidisk0: local:x,efitype=4m", False, "the bios is not ovmf"),
        ("tpmstate0: local:x,version=v2.0", True, "disk"),
    ],
)
def test_which_disks_a_backup_takes(line: str, included: bool, reason: str) -> None:
    (drive,) = vm_disks(vm(line))
    assert (drive.backup, drive.reason) == (included, reason)


@pytest.mark.parametrize("line", ["scsi0: size=4G", "scsi0: ", "scsi0: local:x,size", "scsi0: local:x,backup=maybe"])
def test_a_drive_that_cannot_be_understood_is_never_left_out_silently(line: str) -> None:
    with pytest.raises(ConfigError):
        vm_disks(vm(line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("name: x", AgentSettings()),
        ("agent: 1", AgentSettings(enabled=True)),
        ("agent: enabled=1,fstrim_cloned_disks=1", AgentSettings(enabled=True)),
        ("agent: 1,type=isa", AgentSettings(enabled=True, type="isa")),
        *((f"agent: 1,{key}=0", AgentSettings(enabled=True, freeze_fs=False))
          for key in ("freeze-fs", "freeze-fs-on-backup", "guest-fsfreeze")),
        ("agent: 0", AgentSettings()),
    ],
)  # fmt: skip
def test_agent(line: str, expected: AgentSettings) -> None:
    assert agent_settings(vm(line)) == expected


def test_network_cards() -> None:
    config = vm(
        "net1: e1000,bridge=vmbr1", "net0: virtio=BC:24:11:00:00:01,bridge=vmbr0", "net2: model=virtio,macaddr=A"
    )
    assert [(nic.key, nic.model, nic.mac, nic.bridge) for nic in vm_nics(config)] == [
        ("net0", "virtio", "BC:24:11:00:00:01", "vmbr0"),
        ("net1", "e1000", "", "vmbr1"),
        ("net2", "virtio", "A", ""),
    ]


@pytest.mark.parametrize(
    ("line", "kind", "included", "reason"),
    [
        ("mp0: local:x,mp=/data,backup=1", "volume", True, "backup=1"),
        ("mp0: local:x,mp=/data,backup=0", "volume", False, "backup is not 1"),
        ("mp0: local:x,mp=/data", "volume", False, "backup is not 1"),
        ("mp0: /mnt/x,mp=/data,backup=1", "bind", False, "bind mount points are never part of a backup"),
        ("mp0: /dev/sdb1,mp=/data,backup=1", "device", False, "device mount points are never part of a backup"),
        ("mp0: volume=local:x,mp=/data,backup=1", "volume", True, "backup=1"),
    ],
)
def test_which_mount_points_a_backup_takes(line: str, kind: str, included: bool, reason: str) -> None:
    root, mount = ct_mounts(vm("rootfs: local:root,size=1G", line))
    assert (root.key, root.mountpoint, root.included) == ("rootfs", "/", True)
    assert (mount.mountpoint, mount.type, mount.included, mount.reason) == ("/data", kind, included, reason)


def test_mount_points_in_the_order_of_their_numbers() -> None:
    config = vm("mp10: local:a,mp=/a", "mp2: local:b,mp=/b", "rootfs: /srv/root", "unused0: local:c")
    assert [mount.key for mount in ct_mounts(config)] == ["rootfs", "mp2", "mp10"]
    assert ct_mounts(config)[0].included


def test_mount_points_of_a_template_are_read_only() -> None:
    lines = ["rootfs: local:r", "mp0: local:a,mp=/a", "mp1: local:b,mp=/b,ro=0", "mp2: local:c,mp=/c,ro=1"]
    assert [mount.read_only for mount in ct_mounts(vm(*lines))] == [False, False, False, True]
    assert [mount.read_only for mount in ct_mounts(vm(*lines, "template: 1"))] == [False, True, False, True]


@pytest.mark.parametrize(
    "lines",
    [
        ["hostname: x"],
        ["rootfs: size=1G"],
        ["rootfs: local:r", "mp0: local:a"],
        ["rootfs: local:r", "mp0: local:a,mp=data"],
        ["rootfs: local:r", "mp0: local:a,mp=/a/../etc"],
        ["rootfs: local:r", "mp0: local:a,mp=/a/./b"],
        ["rootfs: local:r", "mp0: local:a,mp=/a,backup=maybe"],
        ["rootfs: local:r", "mp0: local:a,mp=/a,ro=maybe"],
    ],
)
def test_mount_points_that_cannot_be(lines: list[str]) -> None:
    with pytest.raises(ConfigError):
        ct_mounts(vm(*lines))


def test_container_settings() -> None:
    config = vm("unprivileged: 1", "net1: name=eth1", "net0: name=eth0,bridge=vmbr0,ip=dhcp")
    assert is_unprivileged(config)
    assert not is_unprivileged(vm("hostname: x"))
    assert ct_nets(config) == [
        ("net0", {"name": "eth0", "bridge": "vmbr0", "ip": "dhcp"}),
        ("net1", {"name": "eth1"}),
    ]
