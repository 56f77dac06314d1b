# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work that has to be done within a time, whatever it hangs on."""

from __future__ import annotations

import threading
from typing import Callable

from ..errors import HoldfastError


def within(seconds: float, work: Callable[[], None], late: HoldfastError) -> None:
    """Do ``work`` in a thread of its own and raise what it raises.

    Deadlines of sockets begin anew with every byte, and the lookup of a name has none; this one holds for everything.

    :raises HoldfastError: (``late``) it took longer. Its thread is left alone and ends with the process at the latest.
    """
    raised: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise late
    if raised:
        raise raised[0]
