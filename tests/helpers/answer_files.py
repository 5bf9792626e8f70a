"""Files of answers to a small POPE, in each format that `score` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

ALL_YES = {f"{variant}/{n}": "Yes." for variant in ("random", "popular", "adversarial") for n in (1, 2)}


def write_pope(folder: Path) -> Path:
    """Two variants' worth of two questions, three variants; empty images, which nothing here opens."""
    for variant in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": n, "image": f"i{n}.jpg", "text": f"Is there a dog {n}?", "label": label}
            for n, label in ((1, "yes"), (2, "no"))
        ]
        (folder / f"coco_pope_{variant}.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "images").mkdir()
    for n in (1, 2):
        (folder / "images" / f"i{n}.jpg").touch()
    return folder


def save(path: Path, answers: Mapping[str, object]) -> Path:
    """The answers in the format that the suffix says."""
    table = pd.DataFrame({"id": list(answers), "answer": list(answers.values())})
    rows = [{"id": id_, "answer": answer} for id_, answer in answers.items()]
    match path.suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".tsv":
            table.to_csv(path, index=False, sep="\t")
        case ".parquet":
            table.to_parquet(path)
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case _:
            path.write_text(json.dumps(rows if path.stem == "array" else answers))
    return path


def changed(drop: str = "", **more: str) -> dict[str, str]:
    return {id_: text for id_, text in (ALL_YES | more).items() if id_ != drop}
