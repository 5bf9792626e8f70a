"""SugarCrepe (Hsieh et al. 2023): which of two captions that differ in a word or phrase is true of the image?

Published layout under `data_dir`: seven files like `add_att.json` (an object by number, each with filename,
caption and negative_caption) and the folder `val2017` of COCO's validation images. A pair becomes a question
with two options, in an order that is derived from its id, so that the letter says nothing. The tests read the real
files; COCO's images were not available.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from benchmarks.shared.annotations import data_folder, draw, image_in, read_table, shown, text
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

Part = Literal["replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class SugarCrepe(Benchmark):
    """7,511 pairs in seven parts, which are the categories; `group` is the image."""

    parts: tuple[Part, ...] = PARTS
    """The parts to read, in this order."""

    name: ClassVar[str] = "sugar_crepe"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 7511}
    revision: ClassVar[str] = "sugar-crepe@0047054-1"
    licence: ClassVar[str] = "MIT (annotations); COCO's terms for the images"
    citation: ClassVar[str] = (
        "Cheng-Yu Hsieh, Jieyu Zhang, Zixian Ma, Aniruddha Kembhavi, Ranjay Krishna. SugarCrepe: Fixing Hackable "
        "Benchmarks for Vision-Language Compositionality. NeurIPS Datasets and Benchmarks 2023."
    )
    homepage: ClassVar[str] = "https://github.com/RAIVNLab/sugar-crepe"
    obtain: ClassVar[str] = "the seven files of data/ from the homepage, and COCO's val2017.zip unpacked beside them"
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The pairs of each part in the published order."""
        folder = data_folder(self, split)
        for part in self.parts:
            path = folder / f"{part}.json"
            for number, row in read_table(path).items():
                where = f"{path}: item {shown(number)}"
                if not (number.isascii() and number.isdigit() and len(number) < 10):
                    raise DataError(f"{where}: expected a number as the item's key")
                right, wrong = (" ".join(text(row, key, where).split()) for key in ("caption", "negative_caption"))
                if right == wrong:
                    raise DataError(f"{where}: caption and negative_caption are the same")
                id_ = f"{part}-{number}"
                gold = int(draw("sugar_crepe", id_) < 0.5)
                name = text(row, "filename", where)
                yield Example(
                    id=id_,
                    group=name,
                    image=image_in(folder / "val2017", name, where),
                    question="Which caption is true of the image?",
                    claim="",
                    options=(wrong, right) if gold else (right, wrong),
                    gold=gold,
                    category=part,
                    source=self.name,
                )

    def protocols(self) -> Mapping[str, Scorer]:
        """`official`: accuracy by part, and the means over the parts of replace, swap and add."""
        return {"official": official}


def official(answers: Sequence[Answer]) -> Figures:
    """Accuracy of each part; and for replace, swap and add the plain mean over its parts (the paper's table)."""
    if not answers:
        raise DataError("sugar_crepe: no answers to score")
    by_part: dict[str, list[bool]] = {}
    for answer in answers:
        by_part.setdefault(answer.category, []).append(answer.chosen == answer.gold)
    found: dict[str, float] = {part: sum(by_part[part]) / len(by_part[part]) for part in PARTS if part in by_part}
    for kind in ("replace", "swap", "add"):
        figures = [figure for part, figure in found.items() if part.startswith(f"{kind}_")]
        if figures:
            found[f"{kind}_mean"] = sum(figures) / len(figures)
    return found
