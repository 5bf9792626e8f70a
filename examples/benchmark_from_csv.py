"""A benchmark from a CSV file: rows with an image, a claim and a label become a benchmark on which methods compete.

    python examples/benchmark_from_csv.py my_folder     draws 60 pictures and a CSV there, as if they were yours

With files of your own, the three commands at the end are all you need:

    hkdbench new-benchmark squares --from rows.csv      writes squares.py, which reads the rows, and its test
    hkdbench check-benchmark squares --plugin squares.py --data-dir my_folder
    hkdbench run --method zero_shot --benchmark squares --plugin squares.py --data-dir my_folder
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue")


def draw(folder: Path) -> Path:
    """Squares of three colours in `folder/images`, and `folder/rows.csv` with a claim about each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with open(folder / "rows.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "claim", "label"])
        for k in range(60):
            colour, claimed = COLOURS[k % 3], COLOURS[k // 2 % 3]
            Image.new("RGB", (32 + k, 48), colour).save(folder / "images" / f"{k}.png")
            table.writerow([k, f"images/{k}.png", f"The square is {claimed}.", str(colour == claimed).lower()])
    return folder / "rows.csv"


def main(folder: Path) -> None:
    """Draw, write the loader, check it, and run a model without training."""
    from harness.cli import app

    rows = draw(folder)
    loader = str(folder / "squares.py")
    app(["new-benchmark", "squares", "--from", str(rows), "--out", str(folder)], standalone_mode=False)
    data = ["--plugin", loader, "--data-dir", str(folder)]
    if app(["check-benchmark", "squares", *data], standalone_mode=False):
        sys.exit("the benchmark must change, see above")
    run = ["run", "--method", "zero_shot", "--benchmark", "squares", *data, "--workers", "0"]
    app(run, standalone_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "squares").resolve())
