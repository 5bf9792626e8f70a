"""The peak memory of a command with all its descendants, Ray's processes included.

    python benches/peak_memory.py --out benches/results/demo_memory.json -- hkdbench demo --store DIR

Sums the proportional set size (each shared page counted once) of the process tree every half second. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from harness import provenance

INTERVAL_S = 0.5


def tree_bytes(root: psutil.Process) -> int:
    """Proportional set size of the process and its descendants, in bytes."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    started, clock, peak = provenance.now(), time.monotonic(), 0
    process = subprocess.Popen(arguments.command)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, tree_bytes(root))
        except psutil.NoSuchProcess:
            break
        time.sleep(INTERVAL_S)
    result = {
        "command": " ".join(arguments.command),
        "exit_code": process.wait(),
        "peak_gib": round(peak / 2**30, 3),
        "seconds": round(time.monotonic() - clock, 1),
        "started": started,
        **{k: v for k, v in provenance.static().items() if k in ("versions", "machine", "git_commit")},
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
