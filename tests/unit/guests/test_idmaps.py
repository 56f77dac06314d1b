# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is missing where root may not map the ids of a container."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.guests.lxc import idmaps

MAPS = ("u:0:100000:65536", "g:0:100000:65536")
LINE = "root:100000:65536"


@pytest.mark.parametrize(
    ("subuid", "subgid", "hint"),
    [
        (LINE, LINE, ""),
        ("# all\nuser:1:2\n0:90000:200000\n", "root:5:1\nroot:100000:65536\n", ""),
        ("", None, f"add the line {LINE} to uid and gid"),
        ("root:100000:65535\n", LINE, f"add the line {LINE} to uid"),
        (LINE, "root:100001:65536\nuser:100000:65536\nroot:x:y\nroot\n", f"add the line {LINE} to gid"),
    ],
)
def test_hint(subuid: str, subgid: str | None, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    for kind, name, text in (("u", "uid", subuid), ("g", "gid", subgid)):
        monkeypatch.setitem(idmaps.FILES, kind, str(tmp_path / name))
        if text is not None:
            (tmp_path / name).write_text(text)
    assert idmaps.idmap_hint(MAPS) == hint.replace("uid", str(tmp_path / "uid")).replace("gid", str(tmp_path / "gid"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert idmaps.idmap_hint(MAPS) == ""


def test_several_maps_are_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setitem(idmaps.FILES, "u", str(tmp_path / "uid"))
    assert idmaps.idmap_hint(["u:0:100000:1000", "u:1000:1000:1"]) == (
        f"add the line root:100000:1000 to {tmp_path}/uid; add the line root:1000:1 to {tmp_path}/uid"
    )
