# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes with one guest each, gone without a trace after the test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

pytest.register_assert_rewrite("helpers")

from helpers import guests  # noqa: E402
from helpers.agent import FakeAgent  # noqa: E402
from helpers.node import Node  # noqa: E402


@pytest.fixture
def node() -> Iterator[Node]:
    """A node without guests."""
    # Not tmp_path: sockets need short paths.
    root = Path(tempfile.mkdtemp(prefix="e2e-"))
    yield Node(root)
    shutil.rmtree(root)


@pytest.fixture
def box(node: Node) -> Iterator[Node]:
    """A node with a stopped container."""
    guests.make_container(node)
    yield node
    switch_off(node, guests.CT)


@pytest.fixture
def btrfs_box(node: Node) -> Iterator[Node]:
    """A node with a stopped container on btrfs."""
    image, mounted = node.root / "btrfs.img", node.root / "local"
    with image.open("wb") as stream:
        stream.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        guests.make_container(node, subvolumes=True)
        yield node
        switch_off(node, guests.CT)
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.fixture
def machine(node: Node) -> Iterator[Node]:
    """A node with a stopped VM."""
    guests.make_vm(node)
    yield node
    switch_off(node, guests.VM)


def switch_off(node: Node, vmid: int) -> None:
    node.call("heal")
    node.call("guest", "stop", str(vmid), "--force")


@pytest.fixture
def agent(machine: Node) -> Iterator[FakeAgent]:
    """A running VM with an agent that answers."""
    guests.start(machine, guests.VM)
    agent = FakeAgent(machine)
    yield agent
    agent.close()
