# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The QEMU guest agent: every exchange has a deadline, because a guest may be hung, booting, or without an agent."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from types import TracebackType
from typing import Any

from ...errors import ProtocolError

PING_SECONDS = 3.0
FREEZE_SECONDS = 60.0
THAW_SECONDS = 30.0
THAW_PING_SECONDS = 10.0
"""An agent that has just thawed a large guest, or whose guest has just gone on, may be slow to answer."""
_DELIMITER = b"\xff"


class AgentClient:
    """A synchronised connection to one agent socket, to be used in a ``with`` statement.

    :param path: socket of the agent's channel; :param label: how messages call the VM.
    :raises ProtocolError: nobody listens, another client has the channel, or the agent does not answer.
    """

    def __init__(self, path: str, label: str, *, timeout: float = PING_SECONDS) -> None:
        self.label = label
        self._path = path
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(self._socket, path, timeout)
            self._synchronise(timeout)
        except OSError as exc:
            self._socket.close()
            raise self._failed("reach", f"{exc}") from exc
        except ProtocolError:
            self._socket.close()
            raise

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float) -> Any:
        """Run one command and return its answer.

        :raises ProtocolError: the agent refused it or did not answer within ``timeout`` seconds.
        """
        self._send(command, arguments)
        answer = self._line(f"run {command} by", timeout)
        if "error" in answer:
            raise self._failed(f"run {command} by", str(answer["error"].get("desc", answer["error"])))
        return answer.get("return")

    def freeze(self) -> int:
        """Flush and freeze all file systems of the guest; returns how many."""
        return int(self.execute("guest-fsfreeze-freeze", timeout=FREEZE_SECONDS))

    def thaw(self) -> int:
        """Let the file systems go on; harmless when they do already."""
        return int(self.execute("guest-fsfreeze-thaw", timeout=THAW_SECONDS))

    def frozen(self) -> bool:
        return bool(self.execute("guest-fsfreeze-status", timeout=PING_SECONDS) == "frozen")

    def shutdown(self) -> None:
        """Ask the guest to power off. There is no answer on success."""
        self._send("guest-shutdown", {"mode": "powerdown"})

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def leave_thaw(cls, path: str) -> None:
        """Put a thaw into the channel without waiting: an agent that hangs finds it behind the freeze it was sent."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            _connect(channel, path, PING_SECONDS)
            channel.sendall(_DELIMITER + json.dumps({"execute": "guest-fsfreeze-thaw"}).encode() + b"\n")

    def _synchronise(self, timeout: float) -> None:
        """Throw away answers to an earlier client: the agent marks the answer to this id with a delimiter byte."""
        number = secrets.randbelow(1 << 31)
        self._socket.sendall(_DELIMITER)
        self._send("guest-sync-delimited", {"id": number})
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._buffer = self._buffer.rpartition(_DELIMITER)[2]
            with contextlib.suppress(ValueError):
                if self._line("synchronise with", max(0.01, deadline - time.monotonic())).get("return") == number:
                    return
        raise self._failed("synchronise with", f"no answer within {timeout:.3g} s")

    def _send(self, command: str, arguments: dict[str, Any] | None) -> None:
        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as exc:
            raise self._failed(f"run {command} by", str(exc)) from exc

    def _line(self, what: str, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._failed(what, f"no answer within {timeout:.3g} s")
            self._socket.settimeout(left)
            try:
                part = self._socket.recv(65536)
            except socket.timeout as exc:
                raise self._failed(what, f"no answer within {timeout:.3g} s") from exc
            except OSError as exc:
                raise self._failed(what, str(exc)) from exc
            if not part:
                raise self._failed(what, "the connection was closed")
            self._buffer += part
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line.rpartition(_DELIMITER)[2] or b"{}")
        return answer if isinstance(answer, dict) else {}

    def _failed(self, what: str, why: str) -> ProtocolError:
        return ProtocolError(
            f"cannot {what} the guest agent of {self.label}: {why}",
            hint=f"is qemu-guest-agent running in the guest, and nobody else connected to {self._path}?",
        )


def _connect(channel: socket.socket, path: str, timeout: float) -> None:
    """Where other clients wait, killed ones perhaps, the queue may be full for a moment."""
    channel.settimeout(timeout)
    deadline = time.monotonic() + timeout
    while True:
        try:
            channel.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def thaw_guest(path: str, label: str) -> None:
    """Let a guest's file systems go on, whoever froze them, and see that they do.

    :raises ProtocolError: that cannot be confirmed.
    """
    try:
        with AgentClient(path, label, timeout=THAW_PING_SECONDS) as agent:
            agent.thaw()
            if agent.frozen():
                raise ProtocolError(
                    f"the file systems of {label} are frozen although they were thawed",
                    hint="run `fsfreeze -u` in the guest for each of them",
                )
    except ProtocolError:
        AgentClient.leave_thaw(path)
        raise
