# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ages as people write them."""

from __future__ import annotations

import pytest
from engine.errors import UsageError
from engine.rules.durations import parse_age


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("20h", 72000), ("7d", 604800), ("1d12h", 129600), ("2W", 1209600), ("60", 60)]
)
def test_ages(text: str, seconds: int) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1y", "1.5h", "-1h", "1 h", "h1"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UsageError, match="is not an age"):
        parse_age(text)
