# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running commands inside the laboratory's VM, by its guest agent."""

from __future__ import annotations

import base64
import time

from engine.guests.qemu.agent import AgentClient

SECONDS = 120
ANSWER_SECONDS = 30


def run_inside(socket: str, *argv: str) -> bytes:
    """Run a command in the guest whose agent answers on ``socket`` and return what it wrote.

    :raises RuntimeError: it failed, or did not end in :data:`SECONDS`.
    """
    with AgentClient(socket, "the laboratory's VM", timeout=ANSWER_SECONDS) as agent:
        arguments = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        pid = agent.execute("guest-exec", arguments, timeout=ANSWER_SECONDS)["pid"]
        deadline = time.monotonic() + SECONDS
        while True:
            status = agent.execute("guest-exec-status", {"pid": pid}, timeout=ANSWER_SECONDS)
            if status["exited"]:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(argv)} did not end in the guest within {SECONDS} s")
            time.sleep(0.1)
    output = base64.b64decode(status.get("out-data", ""))
    if status.get("exitcode") != 0:
        complaint = base64.b64decode(status.get("err-data", "")) + output[-500:]
        raise RuntimeError(f"{' '.join(argv)} failed in the guest: {complaint.decode('utf-8', 'replace').strip()}")
    return output
