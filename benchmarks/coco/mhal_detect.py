"""M-HalDetect (Gunjal et al. 2024): is a passage of a model's description of an image accurate?

Published layout under `data_dir`: `train_raw.json` and `val_raw.json`, arrays of samples with question, response, image
(a COCO image of val2014: its file name, or its number) and annotations: segments with start, end, text and label, one
of ACCURATE, INACCURATE, ANALYSIS and UNSURE. The images in `val2014/` or `images/`. A segment becomes a claim, with the
response up to it as context; UNSURE segments, segments without a letter and samples with an empty image are left out,
and so is the `<image>` with which the published questions begin: it stood for the picture in the asked model's prompt.
The test split is `val_raw.json`; a tenth of the images of `train_raw.json` (selected by name) are for validation, and
samples about a test image are left out.

Sources: README of hendryx-scale/mhal-detect at 6ef75f5; a published sample that a public loader holds, and the keys
that four of them read. The files themselves were not available.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.shared.annotations import Row, choice, data_folder, draw, image_in, integer, items, listed, text
from benchmarks.shared.yes_no import macro_figures
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

LABELS = ("ACCURATE", "INACCURATE", "ANALYSIS", "UNSURE")
OPTIONS = {
    "binary": ("Accurate", "Inaccurate"),
    "ternary": ("Accurate", "Inaccurate", "Analysis: it isn't about what the image shows"),
}
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class MHalDetect(Benchmark):
    """Passages of descriptions by a vision-language model, judged by annotators; `group` is the image."""

    form: Literal["binary", "ternary"] = "binary"
    """binary: accurate or not, without the ANALYSIS segments. ternary: with them as a third option."""

    name: ClassVar[str] = "mhal_detect"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    positive: ClassVar[str] = "Inaccurate"
    revision: ClassVar[str] = "mhal_detect@6ef75f5-2"
    licence: ClassVar[str] = "CC-BY-NC-4.0 (annotations); the images are COCO's, under their own terms"
    citation: ClassVar[str] = (
        "Anisha Gunjal, Jihan Yin, Erhan Bas. Detecting and Preventing Hallucinations in Large Vision Language Models. "
        "AAAI 2024."
    )
    homepage: ClassVar[str] = "https://github.com/hendryx-scale/mhal-detect"
    obtain: ClassVar[str] = (
        "train_raw.json and val_raw.json of the repository; the images from COCO's val2014.zip "
        "(https://cocodataset.org), in a folder val2014 beside them"
    )
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The segments of a split in the published order."""
        folder = data_folder(self, split)
        images = next(
            (place for place in (folder / "val2014", folder / "images") if place.is_dir()), folder / "val2014"
        )
        tested = folder / "val_raw.json"
        held = set() if split == "test" else {_image_name(row, where) for where, row in items(tested)}
        path = tested if split == "test" else folder / "train_raw.json"
        for number, (where, row) in enumerate(items(path)):
            name, response = _image_name(row, where), text(row, "response", where)
            question = " ".join(text(row, "question", where).replace("<image>", " ").split())
            late = draw("mhal_detect validation", name) < VALIDATION_SHARE
            used = name and (split == "test" or (name not in held and late == (split == "validation")))
            image = image_in(images, name, where) if name else None
            for k, segment in enumerate(listed(row, "annotations", where)):
                at = f"{where}: segment {k + 1}"
                if not isinstance(segment, dict):
                    raise DataError(f"{at}: is a {type(segment).__name__}, expected an object")
                start = integer(segment, "start", at, high=len(response))
                end = integer(segment, "end", at, low=start, high=len(response))
                label, said = choice(segment, "label", at, LABELS), text(segment, "text", at, blank=True).strip()
                if said != response[start:end].strip():
                    raise DataError(f"{at}: its text isn't the response from {start} to {end}")
                gold = LABELS.index(label)
                if not used or image is None or not re.search(r"\w", said) or gold >= len(OPTIONS[self.form]):
                    continue
                yield Example(
                    id=f"{path.stem.removesuffix('_raw')}-{number}-{k}",
                    group=name,
                    image=image,
                    question="Is the passage accurate? A model wrote it in answer to: " + question,
                    claim=" ".join(said.split()),
                    claim_label="Passage",
                    context=" ".join(response[:start].split()),
                    options=OPTIONS[self.form],
                    gold=gold,
                    category=label,
                    source=self.name,
                )

    def protocols(self) -> Mapping[str, Scorer]:
        return {"segments": segments}


def segments(answers: Sequence[Answer]) -> Figures:
    """Accuracy, and precision, recall and F1 averaged over the labels, of segments. Fractions; 0/0 is 0.

    The paper's reward models are classifiers on a model's states; here the label is an option of a question.
    """
    if not answers:
        raise DataError("mhal_detect: no answers to score")
    said = [answer.chosen if answer.chosen >= 0 else None for answer in answers]
    return macro_figures([answer.gold for answer in answers], said, len(answers[0].options))


def _image_name(row: Row, where: str) -> str:
    """The file name of the image; empty if the sample has none."""
    image = row.get("image")
    if isinstance(image, int) and not isinstance(image, bool) and image >= 0:
        return f"COCO_val2014_{image:012d}.jpg"
    return "" if "image" in row and image in (None, "") else text(row, "image", where).strip()
