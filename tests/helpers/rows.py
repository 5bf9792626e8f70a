"""A benchmark of rows.jsonl and images/ in the data folder, as a user's plugin reads them: `split` in each row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image

from harness.api import Benchmark, Example, Split


@dataclass(frozen=True)
class Rows(Benchmark):
    """Rows as they stand in rows.jsonl."""

    name: ClassVar[str] = "rows"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    revision: ClassVar[str] = "1"
    licence: ClassVar[str] = "CC0-1.0"
    citation: ClassVar[str] = "made here"
    homepage: ClassVar[str] = "https://example.org"
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The rows of a split."""
        assert self.data_dir is not None
        for line in (self.data_dir / "rows.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["split"] == split:
                yield Example(
                    id=row["id"],
                    group=row.get("group", row["image"]),
                    image=self.data_dir / "images" / row["image"],
                    question="Is it true?",
                    claim=row.get("claim", "a square"),
                    options=tuple(row.get("options", ["True", "False"])),
                    gold=row["gold"],
                    category=row.get("category", "c"),
                    source=self.name,
                )


def write(folder: Path, count: int = 12, **fields: Any) -> list[Path]:
    """Such a folder with `count` rows, a third in each split; gives the paths of its images. `fields`: of each row."""
    (folder / "images").mkdir(parents=True)
    rows, paths = [], []
    for k in range(count):
        paths.append(folder / "images" / f"{k}.png")
        Image.new("RGB", (40, 40), (20 * k, 255 - 20 * k, 100)).save(paths[-1])
        split = ("train", "validation", "test")[k % 3]
        rows.append(
            {"id": f"r{k}", "image": f"{k}.png", "split": split, "gold": k % 2, "claim": f"a square {k}"} | fields
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths
