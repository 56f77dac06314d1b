# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Imports go one way, as docs/architecture.md says; and the check finds those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.architecture.imports import order, problems

REPOSITORY = Path(__file__).parents[3]
RANKS = order(REPOSITORY / "docs" / "architecture.md")
REMEDY = """
Move what is needed to a room to the right of both, or hand it in as an argument; see docs/architecture.md, "Which way
imports go". A library that only computes is added to PURE_LIBRARIES in tests/unit/architecture/imports.py."""

ENGINE = "module_utils/engine"
SUPPORT = "ansible_collections.holdfast.virt.plugins.module_utils.support"


def test_the_document_names_the_rooms_of_the_tree() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "plugins" / ENGINE).glob("*/__init__.py")}
    assert set().union(*RANKS) == folders | {"modules", "support", "cli", "errors"}


def test_imports_go_one_way() -> None:
    found = problems(REPOSITORY / "plugins", RANKS)
    assert not found, "\n".join([*found, REMEDY])


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("rules/a.py", "from ..storages import dir", "rules imports storages"),
        ("rules/a.py", "def f():\n    from ..system.files import read", "rules imports system"),
        ("rules/a.py", "from .. import tasks", "rules imports tasks"),
        ("rules/a.py", "if TYPE_CHECKING:\n    from ..guests.qemu import guest", "rules imports guests"),
        ("guests/qemu/a.py", "from ...storages.base import Storage", "guests imports storages"),
        ("formats/a.py", "from ..stream.sink import Sink", "formats imports stream"),
        ("tasks/a.py", "from ..cli import main", "tasks imports cli"),
        ("tasks/a.py", f"from {SUPPORT} import diff", "tasks imports support"),
        ("tasks/a.py", "import ansible.module_utils.basic", "the engine imports ansible.module_utils.basic"),
        ("tasks/a.py", "def f():\n    from ansible.module_utils import basic", "the engine imports ansible"),
        ("tasks/a.py", "from engine.rules import names", "the engine imports engine.rules"),
        ("tasks/a.py", f"import {SUPPORT.replace('support', 'engine.rules.names')}", "it must be relative"),
        ("tasks/a.py", "import_module('x')", "hides an import"),
        ("rules/a.py", "import subprocess", "rules imports subprocess"),
        ("settings/a.py", "def f():\n    import os.path", "settings imports os.path"),
        ("formats/a.py", "from time import monotonic", "formats imports time"),
        ("errors.py", "import socket", "errors imports socket"),
        ("rules/a.py", "datetime.now()", "rules calls now()"),
        ("formats/a.py", "def f():\n    return open('x')", "formats calls open()"),
        ("cellar/a.py", "import os", "the room cellar is not in the order"),
        ("../support/a.py", "from ..engine.rules import names", "it must be absolute"),
        ("../../modules/a.py", f"from {SUPPORT.replace('support', 'engine.cli')} import main", "modules imports cli"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, message: str) -> None:
    planted = tmp_path / ENGINE / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / ENGINE).mkdir(parents=True, exist_ok=True)
    planted.write_text(source, encoding="utf-8")
    found = problems(tmp_path, RANKS)
    assert any(message in text for text in found), found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("stream/a.py", "from ..formats import seekable"),
        ("guests/qemu/a.py", "from ..model import GuestInfo\nfrom ...system.files import read\nimport os"),
        ("cli_x.py", "from .tasks import backup\nfrom .cli_output import say"),
        ("rules/a.py", "import re\nfrom datetime import datetime\nfrom ..errors import UsageError"),
        ("../support/a.py", f"import ansible.module_utils.basic\nfrom {SUPPORT} import diff"),
        ("__init__.py", ""),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, path: str, source: str) -> None:
    planted = tmp_path / ENGINE / path
    (tmp_path / ENGINE).mkdir(parents=True)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source, encoding="utf-8")
    assert problems(tmp_path, RANKS) == []
