"""VALSE (Parcalabescu et al. 2022): which of two captions is true of the image, where one linguistic point differs?

Published layout under `data_dir`: the files of the repository's `data/`, like `existence.json`, there or in
`data_dir/data`: an object by key, each with dataset, image_file, caption, foil and mturk, the votes of three
annotators. The images come from Visual7W, COCO, SWiG and VisDial: in `images/{dataset}/` (the name in the file, like
`images/visual7w/v7w_1.jpg`) or all in `images/`. A pair becomes a question with two options, in an order that is
derived from its id, so that the letter says nothing. Only the pairs that the authors call valid are used: at least two
of three annotators chose the caption, and not the foil. The loader was run on the published files; the images were not
available.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from benchmarks.shared.annotations import data_folder, draw, image_in, integer, read_table, shown, table, text
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

Part = Literal[
    "existence",
    "plurals",
    "counting-hard",
    "counting-small-quant",
    "counting-adversarial",
    "relations",
    "action-replacement",
    "actant-swap",
    "coreference-standard",
    "coreference-hard",
    "foil-it",
]
PARTS: tuple[Part, ...] = get_args(Part)
VALID_VOTES = 2


@dataclass(frozen=True)
class VALSE(Benchmark):
    """Pairs of caption and foil on six linguistic phenomena in eleven parts, the categories; `group` is the image."""

    parts: tuple[Part, ...] = PARTS
    """The parts to read, in this order."""

    name: ClassVar[str] = "valse"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 7702}
    revision: ClassVar[str] = "valse@2152d90-1"
    licence: ClassVar[str] = "MIT (annotations); the images are those of COCO, Visual7W, SWiG and VisDial"
    citation: ClassVar[str] = (
        "Letitia Parcalabescu, Michele Cafagna, Lilitta Muradjan, Anette Frank, Iacer Calixto, Albert Gatt. VALSE: A "
        "Task-Independent Benchmark for Vision and Language Models Centered on Linguistic Phenomena. ACL 2022."
    )
    homepage: ClassVar[str] = "https://github.com/Heidelberg-NLP/VALSE"
    obtain: ClassVar[str] = "data/ of the repository, and the images of the four data sets in images/ beside it"
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The valid pairs of each part in the published order."""
        folder = data_folder(self, split)
        base = folder / "data" if (folder / "data").is_dir() else folder
        images = next((place for place in (folder / "images", base / "images") if place.is_dir()), folder / "images")
        for part in self.parts:
            path = base / f"{part}.json"
            for key, row in read_table(path).items():
                where = f"{path}: item {shown(key)}"
                right, wrong = (" ".join(text(row, name, where).split()) for name in ("caption", "foil"))
                name, dataset = text(row, "image_file", where), text(row, "dataset", where)
                beside, own = image_in(images, name, where), image_in(images, f"{dataset}/{name}", where)
                if integer(table(row, "mturk", where), "caption", f"{where}: mturk", high=3) < VALID_VOTES:
                    continue
                if right == wrong:
                    raise DataError(f"{where}: caption and foil are the same")
                gold = int(draw("valse", part, key) < 0.5)
                yield Example(
                    id=f"{part}/{key}",
                    group=f"{dataset}/{name}",
                    image=own if own.parent.is_dir() else beside,
                    question="Which caption is true of the image?",
                    claim="",
                    options=(wrong, right) if gold else (right, wrong),
                    gold=gold,
                    category=part,
                    source=f"valse/{part}",
                )

    def protocols(self) -> Mapping[str, Scorer]:
        """`pairwise`: the accuracy of each part and the mean over the parts."""
        return {"pairwise": pairwise}


def pairwise(answers: Sequence[Answer]) -> Figures:
    """The fraction of pairs whose caption was chosen, by part, and the plain mean over the parts.

    The authors' pairwise accuracy (acc_r) compares the scores that a model gives to caption and foil; here both are
    options of one question.
    """
    if not answers:
        raise DataError("valse: no answers to score")
    parts: dict[str, list[bool]] = {}
    for answer in answers:
        parts.setdefault(answer.category, []).append(answer.chosen == answer.gold)
    found = {part: sum(right) / len(right) for part, right in parts.items()}
    return {**found, "mean": sum(found.values()) / len(found)}
