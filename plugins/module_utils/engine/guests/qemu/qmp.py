# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Talking to a running QEMU through its QMP socket: every step has a deadline, every failure names the VM."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from types import TracebackType
from typing import Any, Callable, Coroutine, TypeVar

from ...errors import DependencyError, ProtocolError

CONNECT_SECONDS = 15.0
"""A socket serves one client; while another one is connected, a second waits here without a greeting."""

COMMAND_SECONDS = 60.0

_QUEUE_SECONDS = 0.05

T = TypeVar("T")


class QmpError(ProtocolError):
    """QEMU understood a command and refused it; ``desc`` is its own text."""

    def __init__(self, message: str, desc: str) -> None:
        super().__init__(message)
        self.desc = desc


class QmpClient:
    """A connection to one QMP socket, to be used in a ``with`` statement by one thread.

    :param path: the socket; :param label: how messages call the VM, for example ``VM 100``.
    :raises ProtocolError: nobody listens, another client is connected, or the peer does not speak QMP.
    :raises DependencyError: the Python library qemu.qmp is not installed.
    """

    def __init__(self, path: str, label: str, *, timeout: float = CONNECT_SECONDS) -> None:
        try:
            from qemu import qmp
        except ImportError as exc:
            raise DependencyError(
                f"cannot talk to {label}: the Python library qemu.qmp is not installed",
                hint="install the Debian package python3-qemu.qmp (Debian 13), or: pip install qemu.qmp",
            ) from exc
        self._qmp = qmp
        self.path = path
        self.label = label
        self._loop = asyncio.new_event_loop()
        # The library wants to find the loop when its client object is made.
        self._client: Any = None
        try:
            self._wait(self._connect(), timeout, f"connect to the QMP socket {path} of {label}")
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of this QEMU."""
        number = self._client.greeting.QMP.version["qemu"]
        return int(number["major"]), int(number["minor"])

    def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float = COMMAND_SECONDS
    ) -> Any:
        """Run one command and return its answer.

        :raises QmpError: QEMU refused it; :raises ProtocolError: no answer in ``timeout`` seconds, or QEMU is gone.
        """
        what = f"run {command} on {self.label}"
        return self._wait(self._client.execute(command, arguments), timeout, what)

    def wait_gone(self, what: str, check: Callable[[], bool], timeout: float) -> None:
        """Poll until ``check`` says yes.

        :raises ProtocolError: it did not within ``timeout`` seconds; ``what`` completes "<label>: ... did not end".
        """
        deadline = time.monotonic() + timeout
        while not check():
            if time.monotonic() > deadline:
                raise ProtocolError(f"{self.label}: {what} did not end within {timeout:g} s")
            time.sleep(0.02)

    def close(self) -> None:
        """Disconnect; QEMU goes on."""
        if self._loop.is_closed():
            return
        if self._client is not None:
            try:
                self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 5))
            except (asyncio.TimeoutError, OSError, EOFError, self._qmp.QMPError):
                # A connection that ended badly is reported by the command that met it, not by the goodbye.
                pass
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _connect(self) -> None:
        while True:
            self._client = self._qmp.QMPClient(self.label)
            # The library logs what it also raises.
            self._client.logger.disabled = True
            try:
                await self._client.connect(self.path)
                return
            except self._qmp.ConnectError as exc:
                # The queue of the socket was full of clients, killed ones perhaps: asyncio takes that for connected.
                if getattr(exc.exc, "errno", None) != errno.EINVAL:
                    raise
            await asyncio.sleep(_QUEUE_SECONDS)

    def _wait(self, work: Coroutine[Any, Any, T], timeout: float, what: str) -> T:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout))
        except asyncio.TimeoutError as exc:
            raise ProtocolError(
                f"cannot {what}: no answer within {timeout:g} s",
                hint=f"only one client at a time can use {self.path}; see who has it with `ss -xp`, or QEMU hangs",
            ) from exc
        except self._qmp.ExecuteError as exc:
            raise QmpError(f"cannot {what}: QEMU says: {exc}", str(exc)) from exc
        except (self._qmp.QMPError, OSError, EOFError) as exc:
            cause = exc.__cause__ or getattr(exc, "exc", None) or exc
            gone = isinstance(cause, (FileNotFoundError, ConnectionRefusedError)) or not os.path.exists(self.path)
            raise ProtocolError(
                f"cannot {what}: {'nothing listens there' if gone else f'the connection broke ({cause or exc})'}",
                hint="the VM is not running" if gone else "look whether QEMU crashed (its log, `journalctl`, `dmesg`)",
            ) from exc


def listening(path: str) -> bool:
    """Whether somebody accepts connections on a unix socket.

    QEMU binds its sockets before it does anything else and the kernel takes them away when it dies, so this tells a
    living QEMU from a stale socket file; no connection is made, since that would use up the one place it has.
    """
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            # The flag 0x10000 marks sockets that accept connections.
            return any(
                fields[7] == path and fields[3] == "00010000" for fields in map(str.split, table) if len(fields) > 7
            )
    except OSError:
        return os.path.exists(path)
