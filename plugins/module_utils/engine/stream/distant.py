# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing a file whose disk is another machine's.

When a server goes away, the kernel may let whoever writes wait until it is back: NFS mounted ``hard`` always does, SMB
clients do when they wait for leave to send (credits), whatever the mount options say. Such a process cannot even be
killed. So another program, ``dd``, does the writing. When it hangs it is left behind, and the backup fails in bounded
time.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from typing import Callable, Iterator

from ..errors import StorageError
from .children import Child, close_input, pipe_size, stream_fd
from .files import CHUNK, said_error, write_error

STALL_SECONDS = 180.0
"""How long a server may take no data: it may wake up disks, or fail over to another machine."""

_BLOCK = 16 * CHUNK
"""What is sent before the server has to say that it is on its disk: waiting for that once for much costs little."""
_LOOK_SECONDS = 0.5


@contextlib.contextmanager
def distant_file(
    path: str, on_written: Callable[[int], None] | None = None, patience: float = STALL_SECONDS
) -> Iterator[int]:
    """Make a file, readable by its owner only, and yield a descriptor (of a pipe) to write it.

    What is written is on the server's disk when the context ends without an exception.

    :param on_written: told, from another thread, how much went on its way to the server.
    :param patience: seconds after which a server that takes nothing is given up.
    :raises StorageError: the file cannot be made or written, or the server does not take it.
    """
    writer = _Writer(path, on_written, patience)
    try:
        yield writer.descriptor
        writer.finish()
    except BaseException as exc:
        # The caller only sees that nobody reads the pipe any more; why is known here.
        cause = writer.failure
        if cause is not None and cause is not exc:
            raise cause from exc
        raise
    finally:
        writer.end()


class _Writer:
    """Passes on what comes out of a pipe to a program that writes it, and looks how that gets on.

    :ivar descriptor: the end of the pipe that data goes into. :ivar failure: why no more is taken.
    """

    def __init__(self, path: str, on_written: Callable[[int], None] | None, patience: float) -> None:
        self._path = path
        self._on_written = on_written
        self._patience = patience
        self._given = 0
        self._ended = False
        self.failure: StorageError | None = None
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as exc:
            raise StorageError(f"cannot create {path}: {exc.strerror}") from exc
        argv = ["dd", f"of={path}", f"bs={_BLOCK}", "iflag=fullblock", "oflag=dsync,nofollow", "status=none"]
        self._program = Child([*argv, "conv=nocreat,fsync"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._input = stream_fd(self._program.process.stdin)
        os.set_blocking(self._input, False)
        self._output, self.descriptor = os.pipe2(os.O_CLOEXEC)
        for end in (self._input, self.descriptor):
            pipe_size(end, CHUNK)
        self._pump = threading.Thread(target=self._pass_on, name="distant", daemon=True)
        self._pump.start()

    def finish(self) -> None:
        """Wait until all of it is on the server's disk.

        :raises StorageError: it does not get there.
        """
        self._close_descriptor()
        self._pump.join()
        if self.failure is None:
            self._conclude()
        if self.failure is not None:
            raise self.failure

    def end(self) -> None:
        """Stop the work; a program that hangs in the kernel stays behind."""
        self._ended = True
        self._close_descriptor()
        self._program.process.kill()
        self._pump.join()
        self._program.kill()

    def _close_descriptor(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _pass_on(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        try:
            while True:
                length = os.readv(self._output, [buffer])
                if not length or self._ended:
                    return
                self._give(buffer[:length])
                self._given += length
                if self._on_written is not None:
                    self._on_written(self._given)
        except TimeoutError:
            self.failure = self._stalled()
        except OSError:
            # The program ended early.
            self._conclude()
        finally:
            # Whoever writes notices.
            os.close(self._output)

    def _give(self, data: memoryview) -> None:
        room = select.poll()
        room.register(self._input, select.POLLOUT)
        deadline = time.monotonic() + self._patience
        while data and not self._ended:
            if room.poll(_LOOK_SECONDS * 1000):
                data = data[os.write(self._input, data) :]
                deadline = time.monotonic() + self._patience
            elif time.monotonic() > deadline:
                raise TimeoutError

    def _conclude(self) -> None:
        """Let the program come to its end, and find out how it was."""
        close_input(self._program)
        try:
            trouble = self._program.wait(self._patience)
        except subprocess.TimeoutExpired:
            self.failure = self._stalled()
            return
        if trouble:
            self.failure = write_error(self._path, self._given, said_error(trouble.splitlines()[0].rpartition(": ")[2]))

    def _stalled(self) -> StorageError:
        return StorageError(
            f"cannot write {self._path}: its server took no data for {self._patience:g} s",
            hint="check the server and the network; the first run after it is back removes what is left of the file",
        )
