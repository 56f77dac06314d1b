# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleecing images on a pool while a VM writes: what is archived and released, what a full pool does; inside a node."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from engine.tasks.stores import get_storage
from helpers import guests
from helpers.adopted import make_adopted, traces
from helpers.domains import DomainNode, goes_on, make_domain
from helpers.faults import HOLD, Fault
from helpers.guests import VM
from helpers.libvirtd import Libvirtd
from helpers.node import Node
from helpers.process import Child, wait_for
from helpers.vms import back_up, set_config, writes_on

from tests.nodes.inside.pools import Pool, ThinPool, ZfsDataset, fill

MIB = 1 << 20
TWIN = 200
FLEECING = ("--fleecing", "enabled=1,storage=pool")
SLOW = ("--bwlimit", "1024", "--compress", "0")
"""The VM's disks hold 12 MiB of data: this takes a dozen seconds."""
COPYING = "piece of the archive"
IMAGES = ["vm-100-fleece-0", "vm-100-fleece-1"]


on_both = pytest.mark.parametrize("pool", ["lvmthin", "zfspool"], indirect=True)


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """An empty pool, a thin one unless a test wants others; not less than 12.8 MiB of it shall stay free."""
    if getattr(request, "param", "lvmthin") == "lvmthin":
        pool: Pool = ThinPool(request.getfixturevalue("thin"), 256 * MIB)
    else:
        pool = ZfsDataset(request.getfixturevalue("tank"), 256 * MIB)
    yield pool
    pool.close()


@pytest.fixture
def node(pool: Pool) -> Iterator[Node]:
    """A node without guests whose storage ``pool`` is that pool."""
    root = Path(tempfile.mkdtemp(prefix="fl-"))
    node = Node(root)
    with open(node.host.paths.storage_cfg, "a", encoding="ascii") as stream:
        stream.write(pool.section)
    yield node
    Child.end_all()
    guests.end_all(node)
    shutil.rmtree(root)


@pytest.fixture
def machine(node: Node) -> Node:
    """The same with a stopped VM."""
    guests.make_vm(node)
    return node


@contextlib.contextmanager
def held(node: Node, at: str, *options: str) -> Iterator[Child]:
    """A slow backup that stands still at a step; it goes on when it is told to, or behind the block."""
    argv = ["run", str(VM), "--storage", "backup", *SLOW, *FLEECING, *options]
    child = node.start(*argv, fault=Fault(HOLD, at=at))
    try:
        child.wait_held()
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.resume()
        child.wait(300)


def fleeces(pool: Pool) -> list[str]:
    return [name for name in pool.names() if "-fleece-" in name]


def raw_disks(node: Node, pool: Pool, *, in_pool: bool) -> list[Path]:
    """Make both disks of the stopped VM raw; returns where they are."""
    folder = node.images / str(VM)
    first = folder / "vm-100-disk-0.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", folder / "vm-100-disk-0.qcow2", first], check=True)
    files = [first, folder / "vm-100-disk-1.raw"]
    if in_pool:
        places = [Path(pool.make(file.stem, file.stat().st_size)) for file in files]
        for file, place in zip(files, places):
            place.write_bytes(file.read_bytes())
        volids = [pool.volid(place.name) for place in places]
    else:
        places, volids = files, [f"local:100/{file.name}" for file in files]
    set_config(node, f"scsi0: {volids[0]}", f"virtio0: {volids[1]}")
    return places


@pytest.mark.parametrize(
    ("pool", "in_pool"),
    [("lvmthin", False), ("lvmthin", True), ("zfspool", False)],
    indirect=["pool"],
    ids=["lvmthin", "lvmthin-with-the-disks", "zfspool"],
)
def test_the_archive_is_the_instant(machine: Node, pool: Pool, in_pool: bool) -> None:
    disks = raw_disks(machine, pool, in_pool=in_pool)
    guests.start(machine, VM)
    # The guest stands still at this step.
    with held(machine, "qmp qom-set") as child:
        assert fleeces(pool) == IMAGES
        then = [disk.read_bytes() for disk in disks]
        child.resume()
        wait_for(lambda: all(pool.used(name) for name in IMAGES), "the guest to overwrite what is not read yet", 60)
        ended = child.wait(300)
        assert ended.status == 0, ended.err
    assert machine.leftovers() == []
    assert fleeces(pool) == []
    guests.goes_on(machine, VM)
    assert [disk.read_bytes() for disk in disks] != then
    (path,) = machine.archives()
    machine.call(
        "restore", f"backup:backup/{os.path.basename(path)}", str(TWIN), "--trust-config", "--storage", "local"
    )
    twin = machine.images / str(TWIN)
    assert [(twin / f"vm-200-disk-{number}.raw").read_bytes() for number in range(2)] == then


@on_both
def test_blocks_that_are_read_are_released(machine: Node, pool: Pool) -> None:
    guests.start(machine, VM)
    with held(machine, COPYING) as child:
        wait_for(lambda: pool.used() > 4 * MIB, "the guest to overwrite blocks that are not read yet", 60)
        child.resume()
        wait_for(lambda: pool.used(IMAGES[0]) == 0, "the first disk's blocks to be released", 120)
        # So does the pool have them back.
        assert pool.used() <= pool.used(IMAGES[1]) + MIB
        # It is read, so nothing of it is kept again, although the guest goes on writing to it.
        writes_on(machine)
        assert pool.used(IMAGES[0]) == 0
        assert pool.used(IMAGES[1]) > 0
        ended = child.wait(300)
        assert ended.status == 0, ended.err
    wait_for(lambda: pool.used() == 0, "the pool to be empty")


@on_both
def test_killed(machine: Node, pool: Pool) -> None:
    """What the dead run made goes; what has such a name and is somebody else's stays."""
    other = pool.make("vm-100-fleece-0", 4 * MIB)
    fill(other, MIB)
    content = Path(other).read_bytes()
    guests.start(machine, VM)
    with held(machine, COPYING) as child:
        assert fleeces(pool) == ["vm-100-fleece-0", "vm-100-fleece-1", "vm-100-fleece-2"]
        child.send(signal.SIGKILL)
        assert child.wait().status == -signal.SIGKILL
    assert len(fleeces(pool)) == 3
    machine.call("heal")
    assert fleeces(pool) == ["vm-100-fleece-0"]
    assert Path(other).read_bytes() == content
    assert machine.leftovers() == []
    guests.goes_on(machine, VM)


def test_killed_before_the_volume_is_made(machine: Node, pool: Pool) -> None:
    """Somebody makes a volume of the name that the dead run had journaled."""
    guests.start(machine, VM)
    with held(machine, "journal storage.scratch") as child:
        assert fleeces(pool) == []
        child.send(signal.SIGKILL)
        child.wait()
    pool.make("vm-100-fleece-0", 4 * MIB)
    machine.call("heal")
    assert fleeces(pool) == ["vm-100-fleece-0"]
    assert machine.leftovers() == []


def test_the_kernel_tells_what_lvm_tells(node: Node, pool: ThinPool) -> None:
    # A pool without volumes has another name in the kernel.
    for size in (0, 32 * MIB):
        if size:
            fill(pool.make("other", size), size)
        found = [100 - 100 * gauge.free / gauge.total for gauge in get_storage(node.host, "pool").scratch(VM).gauges()]
        assert found == pytest.approx(pool.percents(), abs=0.02)
        assert min(found) < 20


def test_a_pool_that_is_nearly_full(machine: Node, pool: ThinPool) -> None:
    """Refused, or given up in time; neither the guest nor others with disks there notice."""
    guests.start(machine, VM)
    other = pool.make("vm-300-disk-0", 8 * MIB)
    filler = pool.make("filler", pool.size)
    fill(filler, pool.size - 18 * MIB)
    with held(machine, "qmp block-export-add") as child:
        wait_for(lambda: pool.used() > pool.size - 12 * MIB, "the images to grow", 60)
        child.resume()
        ended = child.wait(300)
    assert ended.status == 3
    assert "given up" in ended.err
    assert "storage 'pool'" in ended.err
    assert machine.leftovers() == []
    assert fleeces(pool) == []
    guests.goes_on(machine, VM)
    fill(other, 8 * MIB)
    error = back_up(machine, *FLEECING, status=3)["error"]
    assert "cannot make fleecing images on storage 'pool': only" in error["message"]
    assert "another storage" in error["hint"]
    assert fleeces(pool) == []
    assert machine.archives() == []
    guests.goes_on(machine, VM)


def test_adopted(node: Node, pool: Pool) -> None:
    make_adopted(node)
    guests.start(node, VM)
    with held(node, COPYING) as child:
        assert fleeces(pool) == IMAGES
        wait_for(lambda: pool.used() > MIB, "the guest to overwrite blocks", 60)
        child.resume()
        ended = child.wait(300)
        assert ended.status == 0, ended.err
    assert fleeces(pool) == []
    assert (node.status(VM), traces(node)) == ("running", [])
    (path,) = node.archives()
    node.call("restore", f"backup:backup/{os.path.basename(path)}", str(TWIN))
    assert guests.numbers(node, TWIN).one_instant


def test_copies_of_a_tpm(machine: Node, pool: Pool) -> None:
    state = machine.images / str(VM) / "vm-100-disk-3.raw"
    state.write_bytes(bytes(4 * MIB))
    set_config(machine, f"tpmstate0: local:100/{state.name},version=v2.0,size=4M")
    guests.start(machine, VM)
    guest = back_up(machine, *FLEECING)
    assert fleeces(pool) == []
    machine.call("restore", guest["archive"], str(TWIN), "--trust-config")
    sizes = {disk["key"]: disk["size"] for disk in guest["disks"]}
    copy = machine.images / str(TWIN) / "vm-200-disk-1.raw"
    assert copy.read_bytes()[: state.stat().st_size] == state.read_bytes()
    assert copy.stat().st_size == sizes["tpmstate0"]


@pytest.fixture
def domain(pool: Pool) -> Iterator[DomainNode]:
    """A node with a stopped libvirt domain, whose storage ``pool`` is that pool."""
    folder, root = (Path(tempfile.mkdtemp(prefix=prefix)) for prefix in ("libvirt-", "fl-"))
    folder.chmod(0o711)
    daemon = Libvirtd(folder)
    node = DomainNode(root, daemon)
    with open(node.host.paths.storage_cfg, "a", encoding="ascii") as stream:
        stream.write(pool.section)
    make_domain(node)
    yield node
    Child.end_all()
    daemon.close()
    shutil.rmtree(root)
    shutil.rmtree(folder)


def test_a_domain(domain: DomainNode, pool: Pool) -> None:
    guests.start(domain, VM)
    with held(domain, COPYING) as child:
        assert fleeces(pool) == IMAGES
        wait_for(lambda: pool.used() > MIB, "the guest to overwrite blocks", 60)
        child.resume()
        ended = child.wait(300)
        assert ended.status == 0, ended.err
    assert fleeces(pool) == []
    assert domain.leftovers() == []
    goes_on(domain)
    (path,) = domain.archives()
    domain.call("restore", f"backup:backup/{os.path.basename(path)}", str(TWIN), "--kind", "qemu")
    assert guests.numbers(domain, TWIN).one_instant


def test_a_domain_whose_backup_does_not_end_well(domain: DomainNode, pool: Pool) -> None:
    guests.start(domain, VM)
    with held(domain, COPYING) as child:
        child.send(signal.SIGKILL)
        child.wait()
    assert fleeces(pool) == IMAGES
    domain.call("heal")
    assert fleeces(pool) == []
    assert domain.leftovers() == []
    goes_on(domain)
    filler = pool.make("filler", pool.size)
    fill(filler, pool.size - 18 * MIB)
    with held(domain, "libvirt backupBegin") as child:
        wait_for(lambda: pool.used() > pool.size - 12 * MIB, "the images to grow", 60)
        child.resume()
        ended = child.wait(300)
    assert ended.status == 3
    assert "given up" in ended.err
    assert fleeces(pool) == []
    goes_on(domain)
    fill(filler, pool.size - 10 * MIB)
    refused = domain.start("run", str(VM), "--storage", "backup", *FLEECING).wait()
    assert refused.status == 3
    assert "cannot make fleecing images on storage 'pool'" in refused.err
    goes_on(domain)
