# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine costs against the plain programs, measured in one run on the same data.

vm      a stopped VM's disk: backup against nbdcopy and zstd, restore against zstd and dd
ct      a container's tree: backup against tar and zstd, restore against zstd and tar
ct-small, ct-large   100,000 small files, or files of 128 MiB: against tar and zstd, and first runs of restic and borg
ct-memory   10,000 files against a million of them: peak memory
ct-pause    how long each mode keeps a real container from running (wants LXC and btrfs)
domain  a running libvirt domain: backup against virtnbdbackup (wants libvirtd, its Python module, and virtnbdbackup)
memory  a VM's disk of 1 GiB against one of 1 TiB: peak memory, and time for what is empty
latency a running VM's own writes: idle, and beside a slow backup without and with fleecing

Needs qemu-utils (with qemu-storage-daemon), libnbd with its Python module and nbdcopy, zstd and its Python module, and
room for about four times the size in the folder. Both sides flush what they wrote to disk.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile

BENCHMARKS = {
    "vm": "vm.main",
    "ct": "ct.main",
    "ct-small": "ct_many.small",
    "ct-large": "ct_many.large",
    "ct-memory": "ct_many.memory",
    "ct-pause": "ct_many.pause",
    "domain": "domain.main",
    "memory": "memory.main",
    "latency": "latency.main",
}
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--mib", type=int, default=1024, help="size of the disk or tree (1024)")
    parser.add_argument("--threads", type=int, default=2, help="of zstd, on both sides (2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both sides take turns (5)")
    parser.add_argument("--folder", help="where the data is made (the folder for temporary files)")
    args = parser.parse_args()
    sys.path.insert(0, os.path.join(REPOSITORY, "plugins", "module_utils"))
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=args.folder) as folder:
        module, _dot, function = BENCHMARKS[args.what].partition(".")
        getattr(importlib.import_module(module), function)(folder, args.mib, args.threads, args.rounds)


if __name__ == "__main__":
    main()
