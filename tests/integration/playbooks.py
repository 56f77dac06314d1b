# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running ansible-playbook with this checkout as the collection, and the laboratory around it."""

from __future__ import annotations

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
TARGETS = os.path.join(HERE, "targets")

CONFIG = """\
[defaults]
retry_files_enabled = false
interpreter_python = {python}
localhost_warning = false
nocows = true
deprecation_warnings = false
callback_result_format = yaml
[inventory]
inventory_unparsed_warning = false
[diff]
context = 1
"""


def environment(scratch: str) -> dict[str, str]:
    """The environment of Ansible: this checkout as the collection, nothing of the user's configuration."""
    parent = os.path.join(scratch, "ansible_collections", "holdfast")
    os.makedirs(parent, exist_ok=True)
    link = os.path.join(parent, "virt")
    if not os.path.islink(link):
        os.symlink(REPOSITORY, link)
    config = os.path.join(scratch, "ansible.cfg")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(CONFIG.format(python=sys.executable))
    return {
        **os.environ,
        "ANSIBLE_CONFIG": config,
        "ANSIBLE_COLLECTIONS_PATH": scratch,
        "ANSIBLE_ROLES_PATH": TARGETS,
        "ANSIBLE_LOCAL_TEMP": os.path.join(scratch, "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def playbook_command() -> str:
    """The ansible-playbook that belongs to the interpreter that runs this."""
    return os.path.join(os.path.dirname(sys.executable), "ansible-playbook")


def lab(verb: str, root: str) -> None:
    """Start or stop the laboratory below ``root``."""
    subprocess.run([sys.executable, "-m", "tests.lab", verb, "--root", root], cwd=REPOSITORY, check=True)
