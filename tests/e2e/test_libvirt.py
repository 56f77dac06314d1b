# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirt domains: every mode, what archives hold, trouble during the backup, and restores of both kinds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from engine.guests.libvirt import guest as libvirt_guest
from engine.system.report import SilentReporter
from engine.tasks.files import verify_vma
from helpers import guests
from helpers.archives import replaced
from helpers.domains import DomainNode, back_up, goes_on, make_domain, make_system
from helpers.faults import KILL, NOTE, TERM, Fault
from helpers.guests import VM
from helpers.process import wait_for

TWIN = 200
SILENT = SilentReporter()


@pytest.fixture
def machine(domain_node: DomainNode) -> DomainNode:
    """A stopped domain."""
    make_domain(domain_node)
    return domain_node


@pytest.mark.parametrize("mode", ["snapshot", "suspend", "stop"])
def test_running(machine: DomainNode, mode: str) -> None:
    guests.start(machine, VM)
    before = machine.daemon.virsh("domid", "machine")
    guest = back_up(machine, "--mode", mode)
    assert (guest["status"], guest["mode"], guest["kind"]) == ("ok", mode, "libvirt")
    assert "/vzdump-qemu-100-" in guest["path"]
    goes_on(machine)
    assert (machine.daemon.virsh("domid", "machine") != before) == (mode == "stop")
    timings = guest["timings"]
    assert (timings["pause_seconds"] is None) == (mode == "snapshot")
    assert (timings["downtime_seconds"] is None) == (mode != "stop")
    machine.call("restore", guest["archive"], str(TWIN), "--kind", "qemu")
    assert guests.numbers(machine, TWIN).one_instant
    assert (TWIN, "qemu") in [(row["vmid"], row["kind"]) for row in machine.json("guests")]


def test_paused_domains_stay_paused(machine: DomainNode) -> None:
    guests.start(machine, VM)
    machine.daemon.virsh("suspend", "machine")
    for mode in ("snapshot", "suspend"):
        assert back_up(machine, "--mode", mode)["timings"]["pause_seconds"] is None
    assert "it is paused" in back_up(machine, "--mode", "stop", status=3)["error"]["message"]
    assert machine.daemon.virsh("domstate", "machine") == "paused"


def test_archive_of_a_stopped_domain(domain_node: DomainNode) -> None:
    node = domain_node
    nvram = node.daemon.folder / "lib" / "qemu" / "nvram" / "machine_VARS.fd"
    nvram.write_bytes(os.urandom(540672))
    loader = "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
    make_domain(node, firmware=f"{loader}<nvram>/var/lib/libvirt/qemu/nvram/machine_VARS.fd</nvram>")
    guest = back_up(node)
    assert guest["mode"] == "stop"
    assert [disk["key"] for disk in guest["disks"]] == ["scsi0", "virtio0", "efidisk0"]
    node.call("vma", "extract", guest["path"], str(node.root / "x"))
    config = (node.root / "x" / "qemu-server.conf").read_text()
    for line in ("bios: ovmf", "memory: 32", "tags: web;gold", "pool: shop", "net0: virtio=52:54:00:AA:00:01"):
        assert f"{line}\n" in config
    assert "<name>machine</name>" in (node.root / "x" / "libvirt-domain.xml").read_text()
    node.call("restore", guest["archive"], str(TWIN), "--unique", "--storage", "local")
    restored = node.daemon.virsh("dumpxml", node.domain(TWIN))
    (path,) = re.findall(r"<nvram>(.*)</nvram>", restored)
    assert path != "/var/lib/libvirt/qemu/nvram/machine_VARS.fd"
    assert (
        node.daemon.folder / path.removeprefix("/var/lib/libvirt/").join(["lib/", ""])
    ).read_bytes() == nvram.read_bytes()
    node.call("restore", guest["archive"], "201", "--kind", "qemu")
    assert "efidisk0: local:201/" in node.config(201, "qemu").read_text()


def test_devices_that_hide_behind_others(machine: DomainNode) -> None:
    """libvirt takes all elements <devices> together."""
    secret = machine.root / "secret"
    secret.write_bytes(b"of the host".ljust(512))
    hidden = (
        f"<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{secret}'/>"
        "<target dev='vdb' bus='virtio'/></disk></devices>"
    )
    harmless = "x" * (len(hidden) - len("<title></title>"))
    xml = machine.root / "domain.xml"
    xml.write_text(xml.read_text().replace("<memory", f"<title>{harmless}</title><memory", 1))
    machine.daemon.virsh("define", str(xml))
    guest = back_up(machine, "--compress", "0")
    path = Path(guest["path"])
    path.write_bytes(replaced(path.read_bytes(), f"<title>{harmless}</title>".encode(), hidden.encode()))
    complaint = machine.refused("restore", guest["archive"], str(TWIN), "--unique", status=1)
    assert "several elements <devices>" in complaint
    assert str(secret) not in machine.daemon.virsh("dumpxml", "machine")
    assert TWIN not in [row["vmid"] for row in machine.json("guests")]


def test_disks_left_out(machine: DomainNode) -> None:
    xml = machine.root / "domain.xml"
    xml.write_text(xml.read_text().replace("pool='shop'", "exclude-disks='vda'"))
    machine.daemon.virsh("define", str(xml))
    assert [disk["key"] for disk in back_up(machine)["disks"]] == ["scsi0"]
    machine.call("guest", "start", str(VM))
    assert [disk["key"] for disk in back_up(machine)["disks"]] == ["scsi0"]


def test_restore_as_domain(machine: DomainNode) -> None:
    archive = back_up(machine)["archive"]
    complaint = machine.refused("restore", archive, str(TWIN), status=2)
    assert "uuid" in complaint and "unique" in complaint
    done = json.loads(machine.call("restore", archive, str(TWIN), "--unique", "--set", "memory=48", "--json"))
    assert (done["kind"], done["name"], done["state"]) == ("libvirt", "machine-200", "restored")
    assert any("commandline" in line for line in done["dropped"])
    assert all(volume["volid"].startswith("/var/lib/libvirt/images/machine-200-") for volume in done["volumes"])
    xml = machine.daemon.virsh("dumpxml", "machine-200")
    assert "52:54:00:aa:00:01" not in xml
    assert "qemu:commandline" not in xml
    assert "<memory unit='KiB'>49152</memory>" in xml
    machine.call("guest", "start", str(TWIN))
    assert machine.status(TWIN) == "running"
    # It is a guest like every other, and its own archives restore in its place.
    machine.call("run", str(TWIN), "--storage", "backup")
    assert "it is running" in machine.refused("restore", "backup:latest/200", str(TWIN), "--force", status=1)
    machine.call("guest", "stop", str(TWIN), "--force")
    images = machine.daemon.folder / "lib" / "images"
    before = sorted(path.name for path in images.iterdir())
    machine.call("restore", "backup:latest/200", str(TWIN), "--force")
    after = sorted(path.name for path in images.iterdir())
    assert len(after) == len(before) == 2 and after != before
    assert machine.daemon.virsh("domuuid", "machine-200") in xml


def test_a_lost_domain_comes_back_as_it_was(machine: DomainNode) -> None:
    archive = back_up(machine)["archive"]
    identity = machine.daemon.virsh("domuuid", "machine")
    machine.daemon.virsh("undefine", "machine")
    shutil.rmtree(machine.images / str(VM))
    machine.call("restore", archive, str(VM), "--storage", "local", "--trust-config")
    assert machine.daemon.virsh("domuuid", "machine") == identity
    guests.start(machine, VM)
    goes_on(machine)


def test_a_failed_restore_leaves_nothing(machine: DomainNode) -> None:
    images = machine.daemon.folder / "lib" / "images"
    before = sorted(images.iterdir())
    guest = back_up(machine, "--compress", "zstd")
    path = Path(guest["path"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "is damaged" in machine.call("restore", guest["archive"], str(TWIN), "--unique", status=1)
    assert machine.leftovers() == []
    assert machine.daemon.virsh("list", "--all", "--name").split() == ["machine"]
    assert sorted(images.iterdir()) == before


def test_full_scratch_files(machine: DomainNode) -> None:
    guests.start(machine, VM)
    disk = str(machine.root / "disk")
    machine.daemon.call("mount", "-t", "tmpfs", "-o", "size=1200k,mode=755", "tmpfs", disk)
    try:
        options = ("--fleecing", "enabled=1,storage=disk", "--bwlimit", "2000")
        guest = back_up(machine, *options, status=3)
        assert "given up" in guest["error"]["message"]
        goes_on(machine)
    finally:
        machine.daemon.call("umount", disk)


def test_what_is_refused(machine: DomainNode) -> None:
    xml = machine.root / "domain.xml"
    text = xml.read_text()
    xml.write_text(
        text.replace("<vcpu>", "<iothreads>1</iothreads><vcpu>").replace("type='raw'", "type='raw' iothread='1'")
    )
    machine.daemon.virsh("define", str(xml))
    guests.start(machine, VM)
    if "QEMU 7." in machine.daemon.virsh("version"):
        assert "iothread" in back_up(machine, status=3)["error"]["message"]
    machine.daemon.virsh("destroy", "machine")
    xml.write_text(text)
    machine.daemon.virsh("define", str(xml))
    machine.daemon.virsh("start", "machine")
    scratch = machine.root / "other"
    scratch.mkdir()
    scratch.chmod(0o777)
    job = machine.root / "job.xml"
    job.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{scratch}/nbd'/><disks>"
        f"<disk name='sda' type='file'><scratch file='{scratch}/sda'/></disk>"
        "<disk name='vda' backup='no'/></disks></domainbackup>"
    )
    machine.daemon.virsh("backup-begin", "machine", str(job))
    assert "another program" in back_up(machine, status=3)["error"]["message"]
    machine.daemon.virsh("domjobabort", "machine")
    machine.daemon.virsh("destroy", "machine")
    machine.daemon.virsh("undefine", "machine")
    machine.daemon.virsh("create", str(xml))
    assert "transient" in back_up(machine, "--mode", "stop", status=3)["error"]["message"]
    assert back_up(machine)["status"] == "ok"


@pytest.mark.parametrize(("mode", "action"), [("snapshot", KILL), ("snapshot", TERM), ("stop", KILL)])
def test_each_step(machine: DomainNode, mode: str, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed or interrupted after each step that concerns libvirt: the domain runs on, and nothing is left."""
    monkeypatch.setattr(libvirt_guest, "SHUTDOWN_SECONDS", 2.0)
    guests.start(machine, VM)
    argv = ("run", "machine", "--storage", "backup", "--mode", mode)
    ended = machine.start(*argv, fault=Fault(NOTE)).wait()
    assert ended.status == 0, ended.err
    names = ended.step.splitlines()
    steps = [number for number, name in enumerate(names, 1) if re.search("libvirt|capture", name)]
    assert len(steps) >= 4
    for number in steps:
        ended = machine.start(*argv, fault=Fault(action, number)).wait()
        assert ended.status in ((-9,) if action == KILL else (1,)), ended
        if action == KILL:
            machine.call("heal")
        where = f"after {ended.step}"
        assert machine.leftovers() == [], where
        wait_for(lambda: machine.daemon.virsh("domstate", "machine") == "running", f"the domain to run {where}", 20)
        goes_on(machine)
        for path in machine.dump.glob("*.vma"):
            verify_vma(str(path), SILENT)
            path.unlink()


def test_ids_are_stable(machine: DomainNode) -> None:
    xml = machine.root / "domain.xml"
    machine.daemon.virsh("undefine", "machine")
    xml.write_text(re.sub("<metadata>.*</metadata>", "", xml.read_text()))
    machine.daemon.virsh("define", str(xml))
    (first,) = machine.json("guests")
    assert first["vmid"] >= 100_000_000
    recorded = Path(machine.host.paths.vmids)
    recorded.unlink()
    (again,) = machine.json("guests")
    assert again["vmid"] == first["vmid"]
    recorded.write_text(recorded.read_text().replace(str(first["vmid"]), "150"))
    (chosen,) = machine.json("guests")
    assert chosen["vmid"] == 150


def test_libvirt_that_does_not_answer(domain_node: DomainNode) -> None:
    """The other guests are backed up; libvirt is not passed over in silence."""
    node = domain_node
    guests.make_container(node)
    settings = Path(node.host.paths.libvirt_conf)
    for text, why in (
        ("uri: qemu+unix:///system?socket=/nowhere\n", "cannot connect to qemu+unix"),
        ("uri: qemu+ssh://other/system\n", "not that of a QEMU driver on this machine"),
        ("url: qemu:///system\n", "no setting 'url'"),
    ):
        settings.write_text(text)
        (row,) = [row for row in node.json("guests") if row["name"] == "libvirt"]
        assert (row["kind"], row["status"]) == ("libvirt", "unknown")
        assert why in row["error"]
    ended = node.start("run", "--all", "--storage", "backup", "--json").wait()
    assert ended.status == 3
    assert {guest["kind"]: guest["status"] for guest in json.loads(ended.out)["guests"]} == {
        "lxc": "ok",
        "libvirt": "failed",
    }
    settings.write_text("uri: none\n")
    assert [row["kind"] for row in node.json("guests")] == ["lxc"]


def test_agent(domain_node: DomainNode) -> None:
    node = domain_node
    make_system(node)
    node.call("guest", "start", str(VM))
    wait_for(lambda: "state='connected'" in node.daemon.virsh("dumpxml", "machine"), "the agent", 120)
    outcome = back_up(node)
    assert outcome["timings"]["guest_frozen"]
    assert 0 < outcome["timings"]["freeze_seconds"] < 30
    assert _frozen(node) == "thawed"
    for step in ("libvirt fsFreeze", "libvirt backupBegin"):
        assert node.start("run", "machine", "--storage", "backup", fault=Fault(KILL, at=step)).wait().status == -9
        assert _frozen(node) == "frozen"
        node.call("heal")
        assert (_frozen(node), node.leftovers()) == ("thawed", [])
    node.call("restore", outcome["archive"], str(TWIN), "--kind", "qemu")
    folder = node.images / str(TWIN)
    plain = folder / "plain"
    argv = ["qemu-img", "convert", "-O", "raw", str(folder / f"vm-{TWIN}-disk-0.qcow2"), str(plain)]
    subprocess.run(argv, check=True)
    for path in (plain, folder / f"vm-{TWIN}-disk-1.raw"):
        # Frozen file systems are clean, without a journal to be replayed.
        subprocess.run(["e2fsck", "-fn", str(path)], check=True, capture_output=True)


def _frozen(node: DomainNode) -> str:
    answer = node.daemon.virsh("qemu-agent-command", "machine", '{"execute":"guest-fsfreeze-status"}')
    return str(json.loads(answer)["return"])
