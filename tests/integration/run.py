# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the integration targets with ansible-playbook against a laboratory with real guests.

``ansible-test integration`` wants a container of its own; the guests need the machine. The targets themselves have the
form that ansible-test expects.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from xml.etree import ElementTree

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, REPOSITORY)

from tests.integration.playbooks import TARGETS, environment, lab, playbook_command  # noqa: E402


def targets() -> list[str]:
    """The targets that are run by themselves, in alphabetical order."""
    found = []
    for name in sorted(os.listdir(TARGETS)):
        with open(os.path.join(TARGETS, name, "aliases"), encoding="utf-8") as stream:
            if "hidden" not in stream.read().split():
                found.append(name)
    return found


def needs_lab(name: str) -> bool:
    """Whether a target works on the guests of the laboratory."""
    with open(os.path.join(TARGETS, name, "meta", "main.yml"), encoding="utf-8") as stream:
        return "setup_lab" in stream.read()


def run_target(name: str, scratch: str, env: dict[str, str], verbose: bool) -> ElementTree.Element:
    """Run one target; its output is shown when it fails, or with ``verbose``. Returns the outcome in JUnit's terms."""
    play = os.path.join(scratch, f"{name}.yml")
    with open(play, "w", encoding="utf-8") as stream:
        stream.write(
            f"- name: Target {name}\n  hosts: localhost\n  connection: local\n  gather_facts: false\n"
            f"  roles:\n    - {name}\n"
        )
    began = time.monotonic()
    done = subprocess.run(
        [playbook_command(), play],
        env=env,
        cwd=scratch,
        text=True,
        check=False,
        stdout=None if verbose else subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    took = time.monotonic() - began
    case = ElementTree.Element("testcase", classname="integration", name=name, time=f"{took:.1f}")
    if done.returncode:
        sys.stdout.write(done.stdout or "")
        ElementTree.SubElement(case, "failure", message=f"exit status {done.returncode}")
    sys.stdout.write(f"{'FAILED' if done.returncode else 'ok':7}{name} ({took:.1f} s)\n")
    sys.stdout.flush()
    return case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*", help="targets to run (default: all)")
    parser.add_argument(
        "--lab", help="directory of a laboratory that is already up (default: start one, stop it again)"
    )
    parser.add_argument("--no-lab", action="store_true", help="only the targets that need no guests")
    parser.add_argument("--junitxml", help="file that gets the outcome of every target")
    parser.add_argument("--verbose", action="store_true", help="show the output of all targets")
    options = parser.parse_args()
    chosen = options.target or targets()
    unknown = sorted(set(chosen) - set(targets()))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.no_lab:
        chosen = [name for name in chosen if not needs_lab(name)]
    with tempfile.TemporaryDirectory(prefix="holdfast-integration-") as scratch:
        root = options.lab or os.path.join(scratch, "lab")
        env = {**environment(scratch), "HOLDFAST_LAB": root}
        suite = ElementTree.Element("testsuite", name="integration")
        own_lab = options.lab is None and any(needs_lab(name) for name in chosen)
        try:
            if own_lab:
                lab("up", root)
            suite.extend(run_target(name, scratch, env, options.verbose) for name in chosen)
        finally:
            if own_lab:
                lab("down", root)
    if options.junitxml:
        ElementTree.ElementTree(suite).write(options.junitxml)
    return 1 if suite.find("testcase/failure") is not None else 0


if __name__ == "__main__":
    sys.exit(main())
