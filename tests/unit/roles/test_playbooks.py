# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a playbook refuses before it does anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.playbooks import environment, playbook_command


def test_a_restore_is_for_one_node(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text("one ansible_connection=local\ntwo ansible_connection=local\n", encoding="utf-8")
    values = {
        "restore_archive": "nas:latest/100",
        "restore_vmid": 900,
        "backup_node_root": tmp_path,
        "backup_become": False,
    }
    argv = [playbook_command(), "-i", str(inventory), "holdfast.virt.restore"]
    argv += [word for name, value in values.items() for word in ("-e", f"{name}={value}")]
    both = subprocess.run(argv, env=environment(str(tmp_path)), capture_output=True, text=True, check=False)
    assert both.returncode != 0
    assert "cannot restore on 2 nodes at once: one, two" in both.stdout
    assert "Restore the guest" not in both.stdout
    argv += ["-e", "target=one"]
    single = subprocess.run(argv, env=environment(str(tmp_path)), capture_output=True, text=True, check=False)
    assert "storage 'nas' does not exist" in single.stdout
