# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The TPM of a domain: what it remembers is in archives, and in restored domains and machines."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest
from helpers.domains import DomainNode, back_up, make_domain, make_system
from helpers.faults import FAIL, KILL, Fault
from helpers.guests import VM
from helpers.process import wait_for
from helpers.tpm import TPM, guest_reads, guest_writes, volume_holds

TWIN = 200


def state(node: DomainNode, name: str = "machine") -> Path:
    """File with the state of a domain's TPM."""
    identity = node.daemon.virsh("domuuid", name)
    return node.daemon.folder / "lib" / "swtpm" / identity / "tpm2" / "tpm2-00.permall"


def boot(node: DomainNode) -> None:
    node.daemon.virsh("start", "machine")
    wait_for(lambda: "state='connected'" in node.daemon.virsh("dumpxml", "machine"), "the agent", 120)


@pytest.fixture
def machine(domain_node: DomainNode) -> DomainNode:
    """A stopped domain with a TPM that was started once."""
    make_domain(domain_node, devices=TPM)
    domain_node.daemon.virsh("start", "machine")
    domain_node.daemon.virsh("destroy", "machine")
    return domain_node


def test_what_a_guest_had_its_tpm_remember(domain_node: DomainNode) -> None:
    node = domain_node
    make_system(node, devices=TPM)
    boot(node)
    guest_writes(node, b"key of the disk", first=True)
    running = back_up(node, "--mode", "snapshot")
    assert [disk["key"] for disk in running["disks"]] == ["scsi0", "virtio0", "tpmstate0"]
    assert 0 < running["timings"]["pause_seconds"] < 10
    assert running["timings"]["guest_frozen"]
    guest_writes(node, b"another key")
    node.daemon.virsh("destroy", "machine")
    stopped = back_up(node)
    # Lost with everything that libvirt had of it.
    folder = state(node).parents[1]
    node.daemon.virsh("undefine", "machine")
    assert not folder.exists()
    shutil.rmtree(node.images / str(VM))
    options = ("--trust-config", "--storage", "local")
    node.call("restore", stopped["archive"], str(VM), *options)
    assert (state(node).stat().st_mode & 0o777, state(node).parent.stat().st_mode & 0o777) == (0o600, 0o700)
    boot(node)
    assert guest_reads(node) == b"another key"
    assert pwd.getpwuid(state(node).stat().st_uid).pw_name == "tss"
    node.daemon.virsh("destroy", "machine")
    # In place of the domain with the later state: the earlier one.
    node.call("restore", running["archive"], str(VM), "--force", *options)
    assert node.leftovers() == []
    boot(node)
    assert guest_reads(node) == b"key of the disk"
    node.daemon.virsh("destroy", "machine")
    # As a managed machine, for which the state is a volume.
    node.call("restore", running["archive"], "201", "--kind", "qemu")
    assert "tpmstate0: local:201/vm-201-disk-1.raw,size=4M,version=v2.0" in node.config(201, "qemu").read_text()
    volume = node.images / "201" / "vm-201-disk-1.raw"
    assert volume.stat().st_size == 4 << 20
    assert volume_holds(volume, node.root) == b"key of the disk"
    node.call("guest", "start", "201")
    assert node.status(201) == "running"
    node.call("guest", "stop", "201", "--force")
    assert volume_holds(volume, node.root) == b"key of the disk"


def test_beside_the_original(machine: DomainNode) -> None:
    guest = back_up(machine)
    done = machine.json("restore", guest["archive"], str(TWIN), "--unique")
    twin = machine.domain(TWIN)
    (tpm,) = [volume for volume in done["volumes"] if volume["key"] == "tpmstate0"]
    assert tpm["volid"].endswith(machine.daemon.virsh("domuuid", twin))
    assert state(machine, twin).read_bytes() == state(machine).read_bytes()
    assert state(machine, twin) != state(machine)
    assert machine.leftovers() == []
    machine.call("guest", "start", str(TWIN))
    assert machine.status(TWIN) == "running"
    assert "libvirt keeps UEFI variables and TPMs" in machine.refused(
        "restore", guest["archive"], "201", "--unique", "--volume", "tpmstate0=local", status=2
    )
    # The archive and its companions.
    for path in machine.dump.iterdir():
        assert state(machine).read_bytes()[16:] not in path.read_bytes() or path.suffix in (".vma", ".zst")
    machine.call("guest", "stop", str(TWIN), "--force")


def test_a_restore_that_fails_leaves_the_old_state(machine: DomainNode) -> None:
    guest = back_up(machine, "--compress", "zstd")
    archived = state(machine).read_bytes()
    later = archived[:-16] + os.urandom(16)
    state(machine).write_bytes(later)
    argv = ("restore", guest["archive"], str(VM), "--force")
    for fault in (Fault(KILL, at="end qemu-img"), Fault(FAIL, at="end qemu-img"), Fault(KILL, at="replaced .permall")):
        assert machine.start(*argv, fault=fault).wait().status != 0
        machine.call("heal")
        assert machine.leftovers() == []
        assert state(machine).read_bytes() == later
    path = Path(guest["path"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000] + bytes(1000))
    assert "damaged" in machine.call(*argv, status=1)
    assert (state(machine).read_bytes(), machine.leftovers()) == (later, [])
    path.write_bytes(whole)
    # Once the restored definition is in place the restored state goes with it.
    assert machine.start(*argv, fault=Fault(KILL, at="libvirt defineXML")).wait().status == -9
    assert state(machine).read_bytes() == later
    machine.call("heal")
    assert (state(machine).read_bytes(), machine.leftovers()) == (archived, [])
    machine.call("guest", "start", str(VM))
    assert machine.status(VM) == "running"


def test_what_is_told(machine: DomainNode) -> None:
    """A state that is not there, or of no use without a secret."""
    shutil.rmtree(state(machine).parents[1])
    log = machine.call("run", "machine", "--storage", "backup")
    assert "the state of the TPM is not in the archive" in log
    archive = machine.json("archives")[0]["volid"]
    assert "gets an empty one" in "\n".join(machine.json("restore", archive, str(TWIN), "--unique")["warnings"])
    xml = machine.root / "domain.xml"
    secret = "a1b2c3d4-0000-4000-8000-000000000001"
    definition = machine.root / "secret.xml"
    definition.write_text(
        f"<secret ephemeral='no' private='yes'><uuid>{secret}</uuid><usage type='vtpm'><name>x</name></usage></secret>"
    )
    machine.daemon.virsh("secret-define", str(definition))
    machine.daemon.virsh("secret-set-value", secret, "MTIzNDU2Nzg5MGFiY2RlZg==")
    xml.write_text(
        xml.read_text().replace("version='2.0'/>", f"version='2.0'><encryption secret='{secret}'/></backend>")
    )
    machine.daemon.virsh("define", str(xml))
    machine.daemon.virsh("start", "machine")
    machine.daemon.virsh("destroy", "machine")
    guest = back_up(machine)
    machine.daemon.virsh("undefine", "machine")
    machine.call("restore", guest["archive"], str(VM), "--storage", "local", "--trust-config")
    machine.daemon.virsh("start", "machine")
    machine.daemon.virsh("destroy", "machine")
    machine.daemon.virsh("secret-undefine", secret)
    warnings = "\n".join(machine.json("restore", guest["archive"], "201", "--unique")["warnings"])
    assert f"secret {secret}, which is not here" in warnings
    warnings = "\n".join(machine.json("restore", guest["archive"], "202", "--kind", "qemu")["warnings"])
    assert f"secret {secret}, which only libvirt can use" in warnings


def test_killed_while_it_is_paused(machine: DomainNode) -> None:
    machine.daemon.virsh("start", "machine")
    for step in ("libvirt suspend", "libvirt backupBegin", "libvirt resume"):
        argv = ("run", "machine", "--storage", "backup", "--mode", "snapshot")
        assert machine.start(*argv, fault=Fault(KILL, at=step)).wait().status == -9
        machine.call("heal")
        assert machine.daemon.virsh("domstate", "machine") == "running"
        assert machine.leftovers() == []
    assert back_up(machine, "--mode", "snapshot")["timings"]["pause_seconds"] > 0


def test_version_1(domain_node: DomainNode) -> None:
    make_domain(domain_node, devices=TPM.replace("2.0", "1.2"))
    domain_node.daemon.virsh("start", "machine")
    archive = back_up(domain_node, "--mode", "snapshot")["archive"]
    domain_node.daemon.virsh("destroy", "machine")
    folder = state(domain_node).parents[1]
    before = (folder / "tpm1.2" / "tpm-00.permall").read_bytes()
    domain_node.daemon.virsh("undefine", "machine")
    assert not folder.exists()
    domain_node.call("restore", archive, str(VM), "--storage", "local", "--trust-config")
    assert (folder / "tpm1.2" / "tpm-00.permall").read_bytes() == before
    domain_node.call("guest", "start", str(VM))
    assert domain_node.status(VM) == "running"
    domain_node.call("restore", archive, "201", "--kind", "qemu")
    assert "version=v1.2" in domain_node.config(201, "qemu").read_text()
