# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds imports and calls that docs/architecture.md does not allow, by reading the source, also inside functions."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator, NamedTuple

COLLECTION = "ansible_collections.holdfast.virt.plugins."
PURE_ROOMS = {"rules", "settings", "formats", "errors"}
PURE_LIBRARIES = {
    "__future__", "array", "bisect", "dataclasses", "datetime", "functools", "hashlib", "itertools", "json", "re",
    "shlex", "struct", "typing", "urllib.parse", "xml.etree.ElementTree", "yaml", "zlib", "zoneinfo",
}  # fmt: skip
"""Computes only: no files, processes, network or clock."""

IMPURE_CALLS = {"open", "input", "print", "exec", "eval", "now", "utcnow", "today"}
"""Effects that need no import, and the clock of ``datetime``."""


class Import(NamedTuple):
    """One import: the line, the full name, and how many dots it began with."""

    line: int
    name: str
    level: int


def order(document: Path) -> list[set[str]]:
    """The rooms from left to right as the document says; rooms of one rank are in one set.

    The command stands where modules do: nothing imports either.
    """
    (line,) = (line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("modules -> "))
    ranks = [{room.strip() for room in rank.split(",")} for rank in line.split("->")]
    ranks[0].add("cli")
    return ranks


def room(place: str) -> str:
    """The room of a dotted name below ``plugins``: ``module_utils.engine.rules.names`` is in ``rules``."""
    parts = place.split(".")
    if parts[:2] == ["module_utils", "engine"]:
        parts = parts[2:] or ["engine"]
        return "cli" if parts[0] in ("__main__", "cli") or parts[0].startswith("cli_") else parts[0]
    return parts[1] if parts[0] == "module_utils" and len(parts) > 1 else parts[0]


def imports(tree: ast.AST, place: str) -> Iterator[Import]:
    """All imports of a file; relative ones with the full name of what they lead to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, 0)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [COLLECTION + ".".join([*place.split(".")[: -node.level], *base])]
            for alias in node.names:
                # What is imported from a package may be a room; from a library only the library matters.
                inside = base[0].startswith(COLLECTION) if base else False
                yield Import(node.lineno, ".".join([*base, alias.name] if inside else base), node.level)


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The last names of everything that a file calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr


def problems(plugins: Path, ranks: list[set[str]]) -> list[str]:
    """What is not allowed in the modules, in ``support`` and in the engine below ``plugins``, each with its place."""
    rank = {name: number for number, names in enumerate(ranks) for name in names}
    found: list[str] = []
    for path in sorted([*plugins.glob("modules/**/*.py"), *plugins.glob("module_utils/**/*.py")]):
        relative = path.relative_to(plugins)
        place = ".".join(relative.with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = room(place.removesuffix(".__init__"))
        seen = [*imports(tree, place)]
        if own not in rank:
            complaints = [(1, f"the room {own} is not in the order of imports")] if seen else []
        else:
            complaints = [
                *(item for each in seen for item in _import_problems(own, each, rank)),
                *_call_problems(own, tree),
            ]
        found.extend(f"plugins/{relative}:{line}: {text}" for line, text in complaints)
    return found


def _import_problems(own: str, each: Import, rank: dict[str, int]) -> Iterator[tuple[int, str]]:
    line, name, level = each
    engine = own not in ("modules", "support")
    if not name.startswith(COLLECTION):
        if engine and name.split(".")[0] in ("ansible", "ansible_collections", "engine"):
            yield line, f"the engine imports {name}; it knows nothing of Ansible and imports itself by relative names"
        if own in PURE_ROOMS and name not in PURE_LIBRARIES:
            yield line, f"{own} imports {name}; it touches neither files nor processes nor the clock"
        return
    other = room(name[len(COLLECTION) :])
    if engine != bool(level):
        style = "relative" if engine else "absolute"
        yield line, f"{own} imports {other} by the wrong kind of name; it must be {style}"
    if own == other or (own == "stream" and other == "formats"):
        return
    if rank.get(other, -1) <= rank[own]:
        yield line, f"{own} imports {other}, which is not to the right of it"


def _call_problems(own: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for line, name in calls(tree):
        if name in ("__import__", "import_module"):
            yield line, f"{name}() hides an import from Ansible's packer and from this check"
        if own in PURE_ROOMS and name in IMPURE_CALLS:
            yield line, f"{own} calls {name}(); it touches neither files nor processes nor the clock"
