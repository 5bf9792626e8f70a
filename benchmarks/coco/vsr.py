"""VSR (Liu et al. 2023): is a sentence about the spatial relation of two objects true of the image?

Published layout under `data_dir`: `{train,dev,test}.jsonl` in `data/splits/{random,zeroshot}/` of the repository, in
`splits/{random,zeroshot}/`, or in the folder itself (the Hugging Face repositories vsr_random and vsr_zeroshot), one
object a line: image, caption, label (1 true, 0 false), relation. The images are COCO's of 2017, in `data/images/`,
`images/` or `trainval2017/`.

The random split is random over sentences: 1,226 of the 2,195 test examples have an image of the training set, and 1,666
a sentence. The zero-shot split has no concept in two splits, but 3 test images are in train. So `overlap = "none"`, the
default, leaves out of train what has an image or a sentence of dev or test, and of dev what test has; the test set is
the published one. `overlap = "published"` keeps all, for a comparison with figures from the literature.

The loader was run on the published files; the images were not available.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from benchmarks.shared.annotations import Row, choice, data_folder, image_in, items, new_id, text
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

OPTIONS = ("True", "False")
PARTS: dict[Split, str] = {"train": "train", "validation": "dev", "test": "test"}


@dataclass(frozen=True)
class VSR(Benchmark):
    """Sentences about 66 spatial relations; `group` is the image, the category the relation."""

    concepts: Literal["random", "zeroshot"] = "random"
    """random: the random split. zeroshot: the split without common concepts."""
    overlap: Literal["none", "published"] = "none"
    """none: without the examples whose image or sentence is in a later split; published: with them."""

    name: ClassVar[str] = "vsr"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    published: ClassVar[Mapping[str, int]] = {"train": 2469, "validation": 480, "test": 2195}
    revision: ClassVar[str] = "vsr@b27a0af-1"
    licence: ClassVar[str] = "Apache-2.0 (annotations); COCO's terms for the images"
    citation: ClassVar[str] = (
        "Fangyu Liu, Guy Emerson, Nigel Collier. Visual Spatial Reasoning. Transactions of the ACL 11, 2023."
    )
    homepage: ClassVar[str] = "https://github.com/cambridgeltl/visual-spatial-reasoning"
    obtain: ClassVar[str] = (
        "data/splits of the repository; COCO's train2017.zip and val2017.zip (https://cocodataset.org), unpacked into "
        "one folder images beside it"
    )
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The examples of a split in the published order."""
        folder = data_folder(self, split)
        places = [folder / name for name in ("data/images", "images", "trainval2017")]
        images = next((place for place in places if place.is_dir()), folder / "images")
        later = list(PARTS)[list(PARTS).index(split) + 1 :] if self.overlap == "none" else []
        held = [row for after in later for _, row in items(self._file(folder, after))]
        held_images, held_texts = {row.get("image") for row in held}, {_words(row) for row in held}
        seen: dict[str, str] = {}
        for number, (where, row) in enumerate(items(self._file(folder, split))):
            name, caption = text(row, "image", where), text(row, "caption", where)
            label = choice({"label": str(row.get("label"))}, "label", where, ("0", "1"))
            relation = text(row, "relation", where)
            new_id(seen, f"{name}: {caption}", where)
            image = image_in(images, name, where)
            if name in held_images or _words(row) in held_texts:
                continue
            yield Example(
                id=f"{PARTS[split]}-{number}",
                group=name,
                image=image,
                question="Is the claim true of the image?",
                claim=caption,
                options=OPTIONS,
                gold=0 if label == "1" else 1,
                category=relation,
                source=f"vsr/{self.concepts}",
            )

    def _file(self, folder: Path, split: Split) -> Path:
        name = f"{PARTS[split]}.jsonl"
        inner = (f"data/splits/{self.concepts}", f"splits/{self.concepts}", ".")
        return next((folder / i / name for i in inner if (folder / i / name).is_file()), folder / inner[1] / name)

    def protocols(self) -> Mapping[str, Scorer]:
        """`by_relation`: accuracy of each relation and of all."""
        return {"by_relation": by_relation}


def by_relation(answers: Sequence[Answer]) -> Figures:
    """Accuracy of all answers, and of those about each relation; fractions.

    As the authors' eval_compute_acc_by_rel.py counts; their models are classifiers, which are not asked for a letter.
    """
    if not answers:
        raise DataError("vsr: no answers to score")
    parts: dict[str, list[bool]] = {"all": []}
    for answer in answers:
        for part in ("all", answer.category):
            parts.setdefault(part, []).append(answer.chosen == answer.gold)
    return {part: sum(right) / len(right) for part, right in parts.items()}


def _words(row: Row) -> str:
    """The sentence without case, full stop and outer spaces."""
    return " ".join(str(row.get("caption", "")).lower().rstrip(" .").split())
