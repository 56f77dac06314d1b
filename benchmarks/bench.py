# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine's way of moving data costs against the plain programs, in one run on the same data.

    python benchmarks/bench.py vm|ct [--mib 2048] [--threads 2] [--rounds 3] [--folder DIR]

Needs room for about four times that size in DIR (the folder for temporary files by default); ``vm`` needs qemu-utils,
qemu-storage-daemon, libnbd with its Python module and nbdcopy. The engine's times include the flush to disk.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("vm", "ct"))
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None)
    args = parser.parse_args()
    sys.path.insert(0, os.path.join(REPOSITORY, "plugins", "module_utils"))
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=args.folder) as folder:
        importlib.import_module(args.what).main(folder, args.mib, args.threads, args.rounds)


if __name__ == "__main__":
    main()
