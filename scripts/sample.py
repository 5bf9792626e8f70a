"""Makes the sample store that `hkdbench demo --quick` shows, from its suite, its ablation and its sweep.

    python -m scripts.sample                   writes suites/sample.tar.xz
    python -m scripts.sample --store FOLDER    the same, with the runs kept in this folder; continues if it was stopped

Make it anew when the generated benchmarks, or what records hold, have changed; `tests/cli/test_quick.py` says when.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "suites" / "sample.tar.xz"
STEPS = (
    ("suite", "suites/sample.toml", "--workers", "0"),
    ("ablate", "feature_kd", "suites/sample_ablation.toml", "--workers", "0"),
    ("sweep", "sweeps/sample.toml"),
    ("store", "pack", str(SAMPLE)),
)
"""The commands, each with `--store`."""


def main() -> None:
    """Run the commands one after the other; stops at the first one that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args().store
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(given or temporary).absolute()
        for step in STEPS:
            print("hkdbench", *step, flush=True)
            subprocess.run([sys.executable, "-m", "harness", *step, "--store", str(store)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
