# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes with one guest each, gone without a trace after the test."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

pytest.register_assert_rewrite("helpers")

from helpers import guests  # noqa: E402
from helpers.agent import FakeAgent  # noqa: E402
from helpers.domains import DomainNode  # noqa: E402
from helpers.libvirtd import Libvirtd  # noqa: E402
from helpers.node import Node  # noqa: E402
from helpers.process import Child  # noqa: E402


@pytest.fixture
def node() -> Iterator[Node]:
    """A node without guests; no process of the test outlives it."""
    # Not tmp_path: sockets need short paths.
    root = Path(tempfile.mkdtemp(prefix="e2e-"))
    # The users of unprivileged containers get through, as they do to /var/lib.
    root.chmod(0o711)
    node = Node(root)
    yield node
    Child.end_all()
    guests.end_all(node)
    shutil.rmtree(root)


@pytest.fixture
def box(node: Node) -> Iterator[Node]:
    """A node with a stopped container."""
    guests.make_container(node)
    yield node
    guests.switch_off(node, guests.CT)


@pytest.fixture
def btrfs_box(node: Node) -> Iterator[Node]:
    """A node with a stopped container on btrfs."""
    yield from guests.btrfs(node)


@pytest.fixture
def machine(node: Node) -> Iterator[Node]:
    """A node with a stopped VM."""
    guests.make_vm(node)
    yield node
    guests.switch_off(node, guests.VM)


@pytest.fixture
def agent(machine: Node) -> Iterator[FakeAgent]:
    """A running VM with an agent that answers."""
    guests.start(machine, guests.VM)
    agent = FakeAgent(machine)
    yield agent
    agent.close()


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """A daemon for all tests that need one."""
    folder = Path(tempfile.mkdtemp(prefix="libvirt-"))
    folder.chmod(0o711)
    daemon = Libvirtd(folder)
    yield daemon
    daemon.close()
    shutil.rmtree(folder)


@pytest.fixture
def domain_node(libvirtd: Libvirtd) -> Iterator[DomainNode]:
    """A node without guests whose libvirt is that daemon."""
    root = Path(tempfile.mkdtemp(prefix="e2e-"))
    yield DomainNode(root, libvirtd)
    libvirtd.clear()
    shutil.rmtree(root)
