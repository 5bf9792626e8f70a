"""VERITE (Papadopoulos et al. 2024): does a caption describe what the image shows, and the same event?

Published layout under `data_dir`: `VERITE.csv` (columns: a number without a name, caption, image_path, label)
and the folder `images` that its paths refer to (the repository has the links to download them). Three
labels: true, miscaptioned (the true image, a wrong caption) and out-of-context (the true caption, another
image). The tests read the real annotation file; its 663 images were not available.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.shared.annotations import choice, data_folder, image_in, integer, items, new_id, text
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

LABELS = ("true", "miscaptioned", "out-of-context")
CLASSES = ("True", "Miscaptioned", "Out of context")


@dataclass(frozen=True)
class VERITE(Benchmark):
    """1,001 pairs of caption and image about 338 events; `group` is the event."""

    form: Literal["three_way", "binary"] = "three_way"
    """three_way: predict the label. binary: only whether the pair is truthful."""

    name: ClassVar[str] = "verite"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 1001}
    revision: ClassVar[str] = "verite@74adfa1-1"
    licence: ClassVar[str] = "Apache-2.0 (annotations; images belong to their publishers)"
    citation: ClassVar[str] = (
        "Stefanos-Iordanis Papadopoulos, Christos Koutlis, Symeon Papadopoulos, Panagiotis C. Petrantonakis. VERITE: "
        "a robust benchmark for multimodal misinformation detection accounting for unimodal bias. IJMIR 13, 2024."
    )
    homepage: ClassVar[str] = "https://github.com/stevejpapad/image-text-verification"
    positive: ClassVar[str] = "No"
    obtain: ClassVar[str] = "VERITE.csv from the homepage; its script collects the images from the links into images/"
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The pairs in the published order; the category is the label."""
        folder = data_folder(self, split)
        seen: dict[str, str] = {}
        for where, row in items(folder / "VERITE.csv"):
            number = integer(row, "", where)
            label = choice(row, "label", where, LABELS)
            name = text(row, "image_path", where)
            image = image_in(folder, name, where)
            event = re.fullmatch(r"(?:true|false)_([0-9]+)", image.stem)
            if event is None:
                raise DataError(f"{where}: image_path is {name!r}, expected like 'images/true_0.jpg'")
            three = self.form == "three_way"
            yield Example(
                id=new_id(seen, str(number), where),
                group=event[1],
                image=image,
                question="Is this caption true of the image, miscaptioned, or out of context?"
                if three
                else "Does the caption truthfully describe the image?",
                claim=" ".join(text(row, "caption", where).split()),
                claim_label="Caption",
                options=CLASSES if three else ("Yes", "No"),
                gold=LABELS.index(label) if three else int(label != "true"),
                category=label,
                source=self.name,
            )

    def protocols(self) -> Mapping[str, Scorer]:
        """`official`: accuracy of all pairs, and of true pairs against each kind of the others."""
        return {"official": official}


def official(answers: Sequence[Answer]) -> Figures:
    """Accuracy over all pairs, and over the true pairs together with those of one other label.

    The paper reports the two restricted figures (there as True vs OOC, True vs MC) for binary detectors and the
    first for multiclass ones.
    """
    if not answers:
        raise DataError("verite: no answers to score")
    found = {"accuracy": _accuracy(answers)}
    for label in LABELS[1:]:
        part = [answer for answer in answers if answer.category in ("true", label)]
        if part:
            found[f"true_vs_{label.replace('-', '_')}"] = _accuracy(part)
    return found


def _accuracy(answers: Sequence[Answer]) -> float:
    return sum(answer.chosen == answer.gold for answer in answers) / len(answers)
