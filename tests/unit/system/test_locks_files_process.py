"""Locks name their owner and die with it; files are old or new; failed commands name themselves."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from engine.errors import DependencyError, LockError, StorageError
from engine.system import files, locks, process


def hold_in_child(path: str) -> int:
    """A process that holds the lock until it is killed; returns its pid once it holds it."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with locks.hold(path, "backup of VM 100"):
            os.write(tell, b"x")
            signal.pause()
    os.read(ready, 1)
    return pid


def test_a_living_owner_is_named_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    path = str(tmp_path / "locks" / "node.lock")
    pid = hold_in_child(path)
    try:
        with pytest.raises(LockError) as caught, locks.hold(path, "restore of VM 100"):
            pass
        assert f"backup of VM 100 (pid {pid}" in caught.value.message
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with locks.hold(path, "restore of VM 100"):
        assert "restore of VM 100" in Path(path).read_text()


def test_identity_tells_a_living_process_from_a_reused_pid() -> None:
    me = locks.identity("test")
    assert locks.is_alive(me)
    assert not locks.is_alive({**me, "start": "1"})
    assert not locks.is_alive({})


def test_write_atomic_replaces_content_and_mode_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "storage.cfg"
    files.write_atomic(str(target), "old\n")
    files.write_atomic(str(target), b"new \xff\n", mode=0o600)
    assert target.read_bytes() == b"new \xff\n"
    assert target.stat().st_mode & 0o777 == 0o600
    assert os.listdir(target.parent) == ["storage.cfg"]
    assert files.read_text(str(target)) == "new \udcff\n"
    assert files.read_text(str(tmp_path / "absent")) is None


def test_write_atomic_does_not_follow_a_symlink(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    link = tmp_path / "link"
    link.symlink_to(victim)
    files.write_atomic(str(link), "mine")
    assert victim.read_text() == "untouched"
    assert not link.is_symlink()


def test_a_failed_command_names_itself_its_status_and_its_words() -> None:
    script = "import sys; sys.stderr.write('no such pool'); sys.exit(3)"
    with pytest.raises(StorageError) as caught:
        process.run([sys.executable, "-c", script], error=StorageError, hint="create the pool")
    assert "exit status 3: no such pool" in caught.value.message
    assert caught.value.hint == "create the pool"


def test_a_missing_program_and_a_hanging_one() -> None:
    with pytest.raises(DependencyError, match="holdfast-no-such-program"):
        process.run(["holdfast-no-such-program"])
    with pytest.raises(StorageError, match=r"did not finish within 0\.2 s"):
        process.run(["sleep", "5"], timeout=0.2, error=StorageError)
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        process.spawn(["sleep", "5"], cwd="/nowhere")


@pytest.mark.parametrize(
    ("program", "package"),
    [("rsync", "rsync"), ("/sbin/mkfs.ext4", "e2fsprogs"), ("lxc-info", "lxc"), ("qemu-img", "qemu-utils")],
)
def test_a_missing_program_and_its_package_are_named(program: str, package: str) -> None:
    error = process.missing(program)
    assert f"'{os.path.basename(program)}'" in error.message
    assert error.hint == f"install the package {package}"


def test_a_child_is_gone_as_soon_as_its_parent_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    parent = os.fork()
    if parent == 0:
        process.run(["sh", "-c", 'echo $$ >"$1"; exec sleep 60', "sh", str(pids)])
    deadline = time.monotonic() + 10
    while not (pids.exists() and pids.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    child = Path("/proc", pids.read_text().strip(), "stat")
    # Whoever adopts it may not collect it at once.
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "100.conf"
    child = os.fork()
    if child == 0:
        os.rename = lambda *_args: os.kill(os.getpid(), 9)
        files.write_atomic(str(target), "half")
    os.waitpid(child, 0)
    assert [path.name.startswith(".holdfast-100.conf-") for path in tmp_path.iterdir()] == [True]
    (tmp_path / ".holdfast-101.conf-other").touch()
    files.remove_temporaries(str(target))
    assert [path.name for path in tmp_path.iterdir()] == [".holdfast-101.conf-other"]
    files.remove_temporaries(str(tmp_path / "no" / "file"))
