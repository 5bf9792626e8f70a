"""POPEv2 (Li et al. 2025): is there a remote in the image, and in the same image after the remote was removed?

Published layout under `data_dir`: `annotations.json` of POPE's repository, there, in `dataset/` or in
`POPEv2/dataset/`: an array of objects with image_id, image_name, target_object, query and label. Beside it
`images.zip` unpacked (`images/`, the edited images, where the answer is No) and COCO's train2017 as `coco/train2017/`
(the originals, where it is Yes). The loader was run on the published file; the images were not available.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.shared.annotations import choice, data_folder, image_in, integer, items, new_id, text
from benchmarks.shared.yes_no import YES_NO, strict_figures
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split


@dataclass(frozen=True)
class POPEv2(Benchmark):
    """500 questions about an image and about its edit; `group` is the pair, the category original or edited."""

    name: ClassVar[str] = "pope_v2"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    positive: ClassVar[str] = "Yes"
    published: ClassVar[Mapping[str, int]] = {"test": 1000}
    revision: ClassVar[str] = "pope_v2@08d957b-1"
    licence: ClassVar[str] = "MIT (questions and edits); the images are COCO's, under their own terms"
    citation: ClassVar[str] = (
        "Yifan Li, Kun Zhou, Wayne Xin Zhao, Lei Fang, Ji-Rong Wen. Analyzing and Mitigating Object Hallucination: A "
        "Training Bias Perspective. arXiv 2508.04567, 2025."
    )
    homepage: ClassVar[str] = "https://github.com/AoiDragon/POPE"
    obtain: ClassVar[str] = (
        "POPEv2/dataset of the repository, with images.zip unpacked in it, and COCO's train2017.zip "
        "(https://cocodataset.org) as coco/train2017 beside"
    )
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The questions in the published order."""
        folder = data_folder(self, split)
        places = [folder / inner for inner in (".", "dataset", "POPEv2/dataset")]
        base = next((place for place in places if (place / "annotations.json").is_file()), folder)
        seen: dict[str, str] = {}
        for where, row in items(base / "annotations.json"):
            number = integer(row, "image_id", where)
            name = text(row, "image_name", where).removeprefix("/")
            yes = choice(row, "label", where, YES_NO) == "Yes"
            kind = "original" if yes else "edited"
            yield Example(
                id=new_id(seen, f"{number}/{kind}", where),
                group=str(number),
                image=image_in(base, name, where),
                question=text(row, "query", where),
                claim="",
                options=YES_NO,
                gold=0 if yes else 1,
                category=kind,
                source=self.name,
            )

    def protocols(self) -> Mapping[str, Scorer]:
        return {"pairs": pairs}


def pairs(answers: Sequence[Answer]) -> Figures:
    """The fraction of pairs with both answers right, and accuracy, precision, recall and F1 of yes. Fractions."""
    if not answers:
        raise DataError("pope_v2: no answers to score")
    by_pair: dict[str, list[bool]] = {}
    for answer in answers:
        by_pair.setdefault(answer.group, []).append(answer.chosen == answer.gold)
    return {"both_right": sum(map(all, by_pair.values())) / len(by_pair), **strict_figures(answers, "yes")}
