# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each target of the fuzzer with a few inputs; ``./dev fuzz`` tries more of them."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import runner
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_own_errors_comes_out(name: str) -> None:
    tried: list[int] = []
    runner(name, 25, lambda: tried.append(1))()
    assert len(tried) >= 20


def test_what_must_not_come_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_example: object) -> None:
        raise KeyError("planted")

    monkeypatch.setitem(TARGETS, "record", (TARGETS["record"][0], broken))
    with pytest.raises(KeyError, match="planted"):
        runner("record", 5)()
