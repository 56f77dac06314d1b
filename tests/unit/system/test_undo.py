"""The undo stack takes every step back once, also in the run after a crash."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any, Mapping

import pytest
from engine.errors import GuestError
from engine.system.trouble import FileError
from engine.system.undo import UndoStack


def recorder() -> tuple[list[Any], dict[str, Any]]:
    calls: list[Any] = []

    def note(data: Mapping[str, Any]) -> None:
        calls.append(data["n"])

    def fail(data: Mapping[str, Any]) -> None:
        raise GuestError(f"cannot undo step {data['n']}")

    return calls, {"note": note, "fail": fail}


def test_unwind_runs_newest_first_and_removes_the_journal(tmp_path: Path) -> None:
    calls, handlers = recorder()
    journal = tmp_path / "run" / "100.journal"
    stack = UndoStack(str(journal), handlers)
    for n in (1, 2, 3):
        stack.push("note", n=n)
    assert journal.exists()
    assert stack.unwind() == []
    assert calls == [3, 2, 1]
    assert not journal.exists()
    assert stack.unwind() == []
    assert calls == [3, 2, 1]


def test_a_later_process_undoes_what_a_killed_one_left(tmp_path: Path) -> None:
    journal = tmp_path / "100.journal"
    pid = os.fork()
    if pid == 0:
        child = UndoStack(str(journal), recorder()[1])
        child.push("note", n=1)
        token = child.push("note", n=2)
        child.undo(token)
        child.push("note", n=3)
        os.kill(os.getpid(), 9)
    assert os.waitpid(pid, 0)[1] == 9
    calls, handlers = recorder()
    stack = UndoStack.load(str(journal), handlers)
    assert [data["n"] for _kind, data in stack.pending] == [1, 3]
    assert stack.unwind() == []
    assert calls == [3, 1]
    assert not journal.exists()


def test_a_line_cut_short_is_a_step_that_never_happened(tmp_path: Path) -> None:
    journal = tmp_path / "100.journal"
    calls, handlers = recorder()
    UndoStack(str(journal), handlers).push("note", n=1)
    with journal.open("a") as stream:
        stream.write('{"token": 1, "kind": "no')
    stack = UndoStack.load(str(journal), handlers)
    assert stack.junk == []
    # A clean-up that is killed, too, did not join its own lines to it.
    stack.undo(0)
    assert UndoStack.load(str(journal), handlers).pending == []
    assert UndoStack.load(str(journal), handlers).junk == []
    assert stack.unwind() == []
    assert calls == [1]


def test_bytes_that_are_no_text_are_junk_like_other_lines(tmp_path: Path) -> None:
    journal = tmp_path / "100.journal"
    calls, handlers = recorder()
    journal.write_bytes(b"\xff\xfe\n")
    UndoStack(str(journal), handlers).push("note", n=1)
    stack = UndoStack.load(str(journal), handlers)
    assert stack.junk == [(1, "\\xff\\xfe")]
    assert (stack.unwind(), calls) == ([], [1])


def test_steps_are_undone_though_the_journal_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, handlers = recorder()
    UndoStack(str(tmp_path / "100.journal"), handlers).push("note", n=1)

    def refused(*_args: object, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("truncate", "unlink", "write"):
        monkeypatch.setattr(os, name, refused)
    (problem,) = UndoStack.load(str(tmp_path / "100.journal"), handlers).unwind()
    assert calls == [1]
    assert "cannot remove the undo journal" in problem and "Read-only" in problem


def test_a_step_that_is_undone_stays_so_when_that_cannot_be_written(tmp_path: Path) -> None:
    journal = tmp_path / "100.journal"
    calls, handlers = recorder()
    stack = UndoStack(str(journal), handlers)
    token = stack.push("note", n=1)
    journal.unlink()
    journal.mkdir()
    stack.undo(token)
    assert (calls, stack.pending) == ([1], [])
    with pytest.raises(FileError, match=f"cannot write the undo journal {journal}: Is a directory") as caught:
        stack.push("note", n=2)
    assert "move it away" in caught.value.hint


def test_a_failing_handler_neither_stops_the_others_nor_is_forgotten(tmp_path: Path) -> None:
    journal = tmp_path / "100.journal"
    calls, handlers = recorder()
    stack = UndoStack(str(journal), handlers)
    stack.push("note", n=1)
    stack.push("fail", n=2)
    stack.push("note", n=3)
    assert stack.unwind() == ["fail: cannot undo step 2"]
    assert calls == [3, 1]
    assert [kind for kind, _arguments in UndoStack.load(str(journal), handlers).pending] == ["fail"]


def test_dropped_steps_stay(tmp_path: Path) -> None:
    calls, handlers = recorder()
    stack = UndoStack(str(tmp_path / "j"), handlers)
    stack.drop(stack.push("note", n=1))
    assert stack.unwind() == []
    assert calls == []


def test_an_unknown_kind_is_refused_before_the_step(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="nothing"):
        UndoStack(str(tmp_path / "j"), {}).push("nothing")
    assert not (tmp_path / "j").exists()


def test_lines_that_are_no_entries_do_not_keep_others_from_being_undone(tmp_path: Path) -> None:
    path = tmp_path / "100.journal"
    lines = ["null", "[]", '{"token": 1}', '{"token": "x", "done": true}', "\0\0", "[" * 100_000]
    path.write_text(
        "\n".join([*lines, '{"token": 5, "kind": "a", "data": {}}', '{"token": 6, "kind": "b", "data": {}}', ""])
    )
    done: list[str] = []

    def needs_more(data: Mapping[str, Any]) -> None:
        done.append(str(data["path"]))

    stack = UndoStack.load(str(path), {"a": lambda _data: done.append("a"), "b": needs_more})
    assert stack.junk == [*enumerate(lines, 1)]
    (problem,) = stack.unwind()
    assert (done, "cannot be understood" in problem) == (["a"], True)


def test_half_a_line_is_taken_back_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "100.journal"
    stack = UndoStack(str(path), {"a": lambda _data: None})
    stack.push("a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError):
            stack.push("a", much="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    stack.push("a", little="x")
    assert [entry[1] for entry in UndoStack.load(str(path), {}).pending] == [{}, {"little": "x"}]
