# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The XML of libvirt domains: what it says, what it is in Proxmox VE syntax, and what a restore makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from engine.errors import ConfigError, UsageError
from engine.settings.domain_config import domain_config
from engine.settings.domain_rewrite import Place, Rewritten, restored_xml, without_secrets
from engine.settings.domain_xml import DomainTpm, parse_domain

UUID = "7cf798df-7725-443d-a246-a2aa9b6fd781"
NEW = "11111111-2222-3333-4444-555555555555"
TEXT = f"""<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web one</name><uuid>{UUID}</uuid><genid>{UUID}</genid>
  <metadata>
    <holdfast:guest xmlns:holdfast='https://holdfast.virt/guest/1' vmid='110' pool='shop' tags='web;gold' exclude-disks='vdc'/>
  </metadata>
  <memory unit='GiB'>2</memory><currentMemory unit='MiB'>1024</currentMemory>
  <vcpu current='2'>4</vcpu>
  <os>
    <type machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/etc/shadow'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>
    <kernel>/etc/shadow</kernel>
    <boot dev='hd'/><boot dev='network'/>
  </os>
  <cpu mode='host-passthrough'><topology sockets='2' cores='2' threads='1'/></cpu>
  <devices>
    <emulator>/home/mallory/qemu</emulator>
    <disk type='file' device='disk'><driver type='qcow2' discard='unmap'/><source file='/images/a,b.qcow2'><seclabel model='dac'/></source>
      <backingStore type='file'><source file='/images/base'/></backingStore><target dev='vda' bus='virtio'/></disk>
    <disk type='block' device='disk'><driver type='raw' iothread='1'/><source dev='/dev/vg/b'/><target dev='sdb' bus='scsi'/>
      <address type='drive' controller='1'/></disk>
    <disk type='volume' device='disk'><driver type='raw'/><source pool='default' volume='c'/><target dev='vdc' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/etc/shadow'/><target dev='sda' bus='sata'/></disk>
    <controller type='scsi' index='1' model='virtio-scsi'/>
    <interface type='network'><mac address='52:54:00:aa:00:01'/><source network='default'/><model type='e1000e'/><script path='/x'/></interface>
    <interface type='vhostuser'><mac address='52:54:00:aa:00:02'/></interface>
    <serial type='file'><source path='/etc/cron.d/x'/></serial>
    <serial type='pty'><source path='/dev/pts/3'/><log file='/etc/cron.d/x'/></serial>
    <channel type='unix'><source mode='bind' path='/etc/x'/><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <graphics type='vnc' socket='/etc/x' port='-1'><listen type='socket' socket='/etc/x'/></graphics>
    <audio id='1' type='file' path='/etc/x'/>
    <hostdev mode='subsystem' type='pci'/><filesystem type='mount'/><tpm model='tpm-crb'><backend type='passthrough'/></tpm>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <video><model type='qxl'/></video>
  </devices>
  <seclabel type='static' model='dac'><label>+0:+0</label></seclabel>
  <qemu:commandline><qemu:arg value='-snapshot'/></qemu:commandline>
</domain>"""  # noqa: E501


def rewritten(**changes: Any) -> Rewritten:
    values: dict[str, Any] = {
        "name": "copy", "uuid": NEW, "vmid": 200,
        "disks": {"vda": Place("/dev/new/a", "raw", device=True), "sdb": Place("/new/b", "qcow2")},
        "nvram": "/new/vars", "new_macs": True, "trust": False, "overrides": {},
    }  # fmt: skip
    return restored_xml(TEXT, **{**values, **changes})


def test_what_it_says() -> None:
    domain = parse_domain(TEXT)
    assert (domain.name, domain.uuid, domain.type, domain.vmid, domain.pool) == ("web one", UUID, "kvm", 110, "shop")
    assert (domain.tags, domain.agent_connected) == (("web", "gold"), True)
    assert domain.nvram == "/var/lib/libvirt/qemu/nvram/web_VARS.fd"
    found = [(disk.target, disk.key, disk.source, disk.format, disk.backup) for disk in domain.disks]
    assert found == [
        ("vda", "virtio0", "/images/a,b.qcow2", "qcow2", True),
        ("sdb", "scsi1", "/dev/vg/b", "raw", True),
        ("vdc", "virtio2", "default/c", "raw", False),
        ("sda", "sata0", "/etc/shadow", "raw", False),
    ]
    assert [disk.iothread for disk in domain.disks] == [False, True, False, False]


def test_iothread_of_the_controller() -> None:
    text = TEXT.replace(" iothread='1'", "").replace(
        "model='virtio-scsi'/>", "model='x'><driver iothread='1'/></controller>"
    )
    assert [disk.iothread for disk in parse_domain(text).disks] == [False, True, False, False]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><domain/>", "entities"),
        ("<domain", "no element|unclosed"),
        ("<network/>", "<network>"),
        (TEXT.replace("vmid='110'", "vmid='0110'"), "no guest id"),
        (TEXT.replace("vmid='110'", "vmid='1\u0661\u0660'"), "no guest id"),
        (TEXT.replace("</domain>", "<devices><hostdev/></devices></domain>"), "several elements <devices>"),
        (TEXT.replace("</domain>", "<os><kernel>/etc/shadow</kernel></os></domain>"), "several elements <os>"),
    ],
)
def test_wrong_xml(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_domain(text)


def test_more_disks_than_an_interface_has_places() -> None:
    disks = "".join(f"<disk><target dev='hd{letter}' bus='ide'/></disk>" for letter in "abcdef")
    domain = parse_domain(f"<domain><devices>{disks}</devices></domain>")
    assert [disk.key for disk in domain.disks] == ["ide0", "ide1", "ide2", "ide3", "scsi0", "scsi1"]


def test_proxmox_syntax() -> None:
    config = domain_config(parse_domain(TEXT), {"vda": 8 << 30}, {"default": "virbr0"}, 540672)
    assert dict(config.items()) == {
        "agent": "1",
        "args": "-kernel /etc/shadow",
        "balloon": "1024",
        "bios": "ovmf",
        "boot": "order=virtio0;scsi1;virtio2;net0;net1",
        "cores": "2",
        "cpu": "host",
        "efidisk0": "/var/lib/libvirt/qemu/nvram/web_VARS.fd,efitype=4m,size=528K",
        "machine": "pc-q35-7.2",
        "memory": "2048",
        "name": "web-one",
        "net0": "e1000e=52:54:00:AA:00:01,bridge=virbr0",
        "net1": "virtio=52:54:00:AA:00:02",
        "pool": "shop",
        "sata0": "none,media=cdrom",
        "scsi1": "/dev/vg/b",
        "scsihw": "virtio-scsi-pci",
        "serial0": "socket",
        "serial1": "socket",
        "smbios1": f"uuid={UUID}",
        "sockets": "2",
        "tags": "web;gold",
        "vcpus": "2",
        "vga": "qxl",
        "virtio0": "/images/a_b.qcow2,size=8G",
        "virtio2": "/volume/default/c,backup=0",
        "vmgenid": UUID,
    }


def test_restored_without_trust_names_nothing_of_the_host() -> None:
    done = rewritten()
    for part in (
        "/etc/",
        "/home/",
        "hostdev",
        "filesystem",
        'type="passthrough"',
        "vhostuser",
        "-snapshot",
        "/x",
        "dac",
        "/images",
    ):
        assert part not in done.text, part
    told = " ".join(done.dropped)
    for part in (
        "kernel",
        "commandline",
        "hostdev",
        "filesystem",
        "tpm",
        "serial",
        "interface",
        "audio",
        "log",
        "script",
    ):
        assert part in told, part
    domain = parse_domain(done.text)
    assert (domain.name, domain.uuid, domain.vmid, domain.nvram) == ("copy", NEW, 200, "/new/vars")
    assert [(disk.target, disk.source, disk.format) for disk in domain.disks] == [
        ("vda", "/dev/new/a", "raw"), ("sdb", "/new/b", "qcow2"), ("sda", "", "raw"),
    ]  # fmt: skip
    assert [disk.type for disk in domain.disks] == ["block", "file", "file"]
    assert '<source dev="/dev/new/a" />' in done.text
    assert done.warnings == ["disk vdc is not in the archive and not in the restored domain"]
    assert "52:54:00" not in done.text
    assert "/usr/share/OVMF/OVMF_CODE_4M.fd" in done.text
    assert "/dev/urandom" in done.text
    assert domain.root.findtext("genid") in (None, "")


def test_restored_with_trust() -> None:
    done = rewritten(trust=True, new_macs=False)
    assert done.dropped == []
    for part in ("/home/mallory/qemu", "-snapshot", "hostdev", "52:54:00:aa:00:01", "<kernel>/etc/shadow"):
        assert part in done.text, part


def test_a_loader_outside_packages_is_left_out() -> None:
    for path in ("/home/x", "/usr/share/../../home/x"):
        text = TEXT.replace("/usr/share/OVMF/OVMF_CODE_4M.fd", path)
        done = restored_xml(
            text, name="x", uuid=NEW, vmid=200, disks={}, nvram="", new_macs=False, trust=False, overrides={}
        )
        assert path not in done.text
        assert "nvram" not in done.text


def test_random_numbers_come_from_no_other_file() -> None:
    done = restored_xml(
        TEXT.replace("/dev/urandom", "/etc/shadow"),
        name="x", uuid=NEW, vmid=200, disks={}, nvram="", new_macs=False, trust=False, overrides={},
    )  # fmt: skip
    assert "/etc/shadow" not in done.text
    assert any("rng" in line for line in done.dropped)


def test_passwords_are_kept_but_not_shown() -> None:
    text = TEXT.replace("port='-1'", "port='-1' passwd='secret'")
    done = restored_xml(
        text, name="x", uuid=NEW, vmid=200, disks={}, nvram="", new_macs=False, trust=False, overrides={}
    )
    assert 'passwd="secret"' in done.text
    assert "secret" not in without_secrets(done.text)


def test_overrides() -> None:
    root = parse_domain(rewritten(overrides={"memory": 512, "cores": "3", "name": "x"}).text).root
    assert root.findtext("memory") == root.findtext("currentMemory") == "512"
    assert root.findtext("vcpu") == "3"
    assert root.find("cpu/topology") is None
    with pytest.raises(UsageError, match="only cores, memory, name"):
        rewritten(overrides={"net0": "x"})
    with pytest.raises(UsageError, match="not a number"):
        rewritten(overrides={"memory": "much"})
    for odd in ("²", "٣", "9" * 5000):
        with pytest.raises(UsageError, match="not a number"):
            rewritten(overrides={"memory": odd})


def with_tpm(backend: str) -> str:
    return TEXT.replace(
        "<tpm model='tpm-crb'><backend type='passthrough'/></tpm>", f"<tpm model='tpm-crb'>{backend}</tpm>"
    )


def test_tpm() -> None:
    passed = parse_domain(TEXT)
    assert passed.tpm is not None and passed.tpm.backend == "passthrough" and passed.emulated_tpm is None
    text = with_tpm(
        "<backend type='emulator' version='1.2'><encryption secret='s'/><source type='file' path='/etc/x'/></backend>"
    )
    assert parse_domain(text).emulated_tpm == DomainTpm("emulator", "1.2", "/etc/x", "file", "s")
    config = domain_config(parse_domain(text), {}, {}, 0, "/swtpm/a,b/tpm2-00.permall")
    assert config.get("tpmstate0") == "/swtpm/a_b/tpm2-00.permall,size=4M,version=v1.2"
    assert domain_config(parse_domain(text), {}, {}, 0).get("tpmstate0") is None
    assert parse_domain(with_tpm("<backend type='emulator'/>")).tpm == DomainTpm("emulator", "2.0")


@pytest.mark.parametrize("trust", [False, True])
def test_a_restored_tpm_has_its_state_where_libvirt_looks_for_it(trust: bool) -> None:
    source = "<source type='dir' path='/etc/x'/>"
    done = restored_xml(
        with_tpm(f"<backend type='emulator' version='2.0'>{source}<encryption secret='s'/></backend>"),
        name="x", uuid=NEW, vmid=200, disks={}, nvram="", new_macs=False, trust=trust, overrides={},
    )  # fmt: skip
    assert parse_domain(done.text).emulated_tpm == DomainTpm("emulator", "2.0", secret="s")
