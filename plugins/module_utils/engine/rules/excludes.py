# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the patterns of ``exclude-path`` mean: one meaning for all modes, and its translation for tar and rsync.

* A pattern that begins with ``/`` is anchored at the container's root; any other matches at any depth.
* ``?`` and ``*`` and ``[...]`` stand for characters of one name, never for a slash; ``\\`` takes the next character as
  it is.
* ``**`` stands for anything, slashes too. As a whole name it stands for any number of folders, also none; at the end of
  a pattern for everything below.
* A pattern that ends with ``/`` matches folders only.
* A folder that matches is left out with everything below it.

Names are compared byte by byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Iterable, Sequence

from ..errors import UsageError

STANDARD = ("/tmp/?*", "/var/tmp/?*", "/var/run/?*.pid")
"""Left out unless ``stdexcludes`` is off, as in Proxmox VE; the folders themselves stay."""

_SPECIAL = re.compile(r"([*?\[\\])")
_TOKEN = re.compile(r"\*\*+|\*|\?|\[[!^]?\]?[^\]]*\]|\\.|\\$|[^*?\[\\]+|\[", re.DOTALL)
_DEEP = "**"


@dataclass(frozen=True)
class Pattern:
    """One pattern, understood.

    :param names: its path, each name as tokens: ``?``, ``*``, ``**``, ``[...]``, or text with a ``=`` before it.
    """

    text: str
    anchored: bool
    folders_only: bool
    names: tuple[tuple[str, ...], ...]

    @cached_property
    def regex(self) -> re.Pattern[bytes]:
        """Matches the whole path of what is left out, relative to the root."""
        parts = ["" if self.anchored else "(?:.*/)?"]
        last = len(self.names) - 1
        for number, name in enumerate(self.names):
            if name == (_DEEP,):
                parts.append(".+" if number == last else "(?:.*/)?")
            else:
                parts.append("".join(map(_token_regex, name)) + ("" if number == last else "/"))
        return re.compile("".join(parts).encode("utf-8", "surrogateescape"), re.DOTALL)

    @property
    def is_simple(self) -> bool:
        """Whether tar can be told this pattern; others are looked up in the tree first."""
        if self.folders_only or any(_DEEP in name for name in self._tar_names):
            return False
        # Every name in an archive begins with a dot for the root, which an unanchored pattern must not match.
        dot = "".join(map(_token_regex, self._tar_names[0]))
        return (self.anchored and not self._leading_deep) or re.fullmatch(dot, ".") is None

    @property
    def _leading_deep(self) -> int:
        return int(len(self.names) > 1 and self.names[0] == (_DEEP,))

    @property
    def _tar_names(self) -> tuple[tuple[str, ...], ...]:
        names = self.names[self._leading_deep :]
        return (*names[:-1], ("*",)) if names[-1] == (_DEEP,) else names

    def for_tar(self) -> tuple[bool, str]:
        """Whether it is anchored, and the text for ``--exclude`` where ``*`` does not match a slash."""
        anchored = self.anchored and not self._leading_deep
        text = "/".join("".join(map(_escaped, name)) for name in self._tar_names)
        return anchored, f"./{text}" if anchored else text

    def below(self) -> Pattern:
        """The pattern for everything in the folders that this one matches."""
        return Pattern(self.text + "/**", self.anchored, False, (*self.names, (_DEEP,)))

    def for_rsync(self) -> list[str]:
        """The rsync patterns that together mean the same."""
        inner = [number for number, name in enumerate(self.names[:-1]) if name == (_DEEP,)]
        texts = []
        for kept in product((True, False), repeat=len(inner)):
            without = {number for number, keep in zip(inner, kept) if not keep}
            names = [name for number, name in enumerate(self.names) if number not in without]
            texts.append(("/" if self.anchored else "") + _rsync_path(names) + ("/" if self.folders_only else ""))
        return texts


def parse_pattern(text: str) -> Pattern:
    """Understand one pattern.

    :raises UsageError: it names nothing, or a class like ``[[:alpha:]]`` or ``[\\*]`` stands in it.
    """
    names = tuple(_tokens(part) for part in text.split("/") if part not in ("", "."))
    # Whether a backslash in a class stands for itself is not the same everywhere.
    odd = any(token.startswith("[") and "\\" in token for name in names for token in name)
    if not names or odd or "[:" in text or "\0" in text:
        raise UsageError(
            f"cannot leave out {text!r}: it is not a pattern that can be matched",
            hint="write a path, or names with ?, *, ** or [a-z], without classes by name and backslashes in classes",
        )
    return Pattern(text, text.startswith("/"), text.endswith("/"), names)


def literal(path: str) -> Pattern:
    """The anchored pattern for exactly this path."""
    return parse_pattern("/" + _SPECIAL.sub(r"\\\1", path.strip("/")))


def is_excluded(patterns: Iterable[Pattern], path: bytes, *, folder: bool) -> bool:
    """Whether a path relative to the root is left out, by itself or with a folder above it."""
    parts = path.split(b"/")
    for depth in range(1, len(parts) + 1):
        above = b"/".join(parts[:depth])
        if matches(patterns, above, folder=folder or depth < len(parts)):
            return True
    return False


def matches(patterns: Iterable[Pattern], path: bytes, *, folder: bool) -> bool:
    """Whether one of the patterns matches this very path, relative to the root."""
    return any((folder or not one.folders_only) and one.regex.fullmatch(path) for one in patterns)


def tar_options(patterns: Sequence[Pattern]) -> list[str]:
    """tar's options for simple patterns; names start with ``./``, and the locale must be C."""
    translated = [pattern.for_tar() for pattern in patterns]
    options = ["--wildcards", "--no-wildcards-match-slash", "--no-anchored"]
    options += [f"--exclude={text}" for anchored, text in translated if not anchored]
    options.append("--anchored")
    return options + [f"--exclude={text}" for anchored, text in translated if anchored]


def rsync_options(patterns: Sequence[Pattern]) -> list[str]:
    """rsync's options for patterns."""
    return [f"--filter=- {text}" for pattern in patterns for text in pattern.for_rsync()]


def _tokens(name: str) -> tuple[str, ...]:
    tokens: list[str] = []
    for match in _TOKEN.finditer(name):
        token = match[0]
        if token.startswith("**"):
            token = _DEEP
        elif token.startswith("\\"):
            token = "=" + (token[1:] or "\\")
        elif token not in ("*", "?") and not (token.startswith("[") and len(token) > 2):
            token = "=" + token
        if token.startswith("=") and tokens and tokens[-1].startswith("="):
            tokens[-1] += token[1:]
        else:
            tokens.append(token)
    return tuple(tokens)


def _token_regex(token: str) -> str:
    if token.startswith("="):
        return re.escape(token[1:])
    if token.startswith("["):
        negated = token[1] in "!^"
        inner = re.sub(r"([\\\[&~|])", r"\\\1", token[2 if negated else 1 : -1])
        if inner.startswith("]"):
            inner = "\\" + inner
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return {"?": "[^/]", "*": "[^/]*", _DEEP: ".*"}[token]


def _escaped(token: str) -> str:
    return _SPECIAL.sub(r"\\\1", token[1:]) if token.startswith("=") else token


def _rsync_path(names: Iterable[tuple[str, ...]]) -> str:
    """rsync takes a backslash literally unless there is a wildcard character in the pattern."""
    listed = list(names)
    plain = all(token.startswith("=") and not set(token[1:]) & set("*?[") for name in listed for token in name)
    return "/".join("".join(token[1:] if plain else _escaped(token) for token in name) for name in listed)
