# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes this checkout importable under the name that Ansible gives it."""

from __future__ import annotations

import os
import sys
import tempfile

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
_FOLDER = tempfile.TemporaryDirectory(prefix="holdfast-unit-")
_PARENT = os.path.join(_FOLDER.name, "ansible_collections", "holdfast")
os.makedirs(_PARENT)
os.symlink(REPOSITORY, os.path.join(_PARENT, "virt"))
sys.path.insert(0, _FOLDER.name)
