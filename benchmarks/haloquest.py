"""HaloQuest (Wang et al. 2024), the checkable subset: can a question be answered from the image at all?

The benchmark asks for free text, which its authors have a large language model judge against reference
answers; that can't be recomputed without it. What can be checked is the benchmark's main point. Of the
three kinds of questions, two can't be answered from the image (a false premise, insufficient context) and one
can (a visual challenge); a model that answers all of them hallucinates. So an item here is a question and
the options "It can be answered" and "It can't". Whether the answer itself would be right isn't checked.

Some labels and reference answers contradict each other (a "visual challenge" whose references say that no moon
can be seen). A row is used if they agree: for the two unanswerable kinds at least one
reference denies or declines (it has a word like no, not, none, unclear), for a visual challenge fewer than half
of them do. These are 588 of the 608 rows of the published evaluation file; the others are in no figure.

Published layout under `data_dir`: `haloquest-eval.csv`, `haloquest-train.csv` (for `train`), and `images` with
the files named by `image_name` (the files have links; some Midjourney links are dead: `--skip-missing`). 18 of the
7,140 training rows have no image_name: it is the last part of their url. The tests read the real evaluation file, and
the loader was run on the real training file (5,005 examples for training, 560 for validation). The images were not
available.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import unquote_plus, urlsplit

from benchmarks.shared.annotations import Row, choice, data_folder, draw, image_in, integer, items, new_id, text
from harness.api import Benchmark, Example, Split

KINDS = ("false premises", "insufficient context", "visual challenge")
OPTIONS = ("It can be answered", "It can't be answered")
VALIDATION_SHARE = 0.1
_DENIAL = re.compile(
    r"\b(no|not|none|nothing|nobody|never|neither|nor|without|cannot|unable|unclear|unknown|impossible|undetermined|"
    r"absent|missing|lacks?|hidden|don['’]?t know|sorry)\b|n['’]t\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class HaloQuest(Benchmark):
    """Questions that an image can or can't answer; `group` is the image, the category the kind of question."""

    train: bool = False
    """Also provide train and validation splits: `haloquest-train.csv` without the images of the evaluation file, a
    tenth of its images (selected by name) for validation."""

    name: ClassVar[str] = "haloquest"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 588}
    revision: ClassVar[str] = "haloquest@2f643eb-1"
    licence: ClassVar[str] = "CC-BY-4.0 (annotations; images have licences of their own)"
    citation: ClassVar[str] = (
        "Zhecan Wang, Garrett Bingham, Adams Wei Yu, Quoc V. Le, Thang Luong, Golnaz Ghiasi. HaloQuest: A Visual "
        "Hallucination Dataset for Advancing Multimodal Reasoning. ECCV 2024."
    )
    homepage: ClassVar[str] = "https://github.com/google/haloquest"
    positive: ClassVar[str] = OPTIONS[1]
    obtain: ClassVar[str] = "the CSV files from the homepage; fetch the links of their column url into images/"
    needs_data_dir: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.train:
            object.__setattr__(self, "splits", ("train", "validation", "test"))

    def load(self, split: Split) -> Iterator[Example]:
        """The checkable rows of a split in the published order."""
        folder = data_folder(self, split)
        tested = folder / "haloquest-eval.csv"
        path = tested if split == "test" else folder / "haloquest-train.csv"
        held = set() if split == "test" else {_image_name(row, where) for where, row in items(tested)}
        seen: dict[str, str] = {}
        for where, row in items(path):
            name = _image_name(row, where)
            kind = choice(row, "hallucination type", where, KINDS)
            references = [part for part in text(row, "groundtruth responses", where).split(";") if part.strip()]
            id_ = new_id(seen, str(integer(row, "", where)), where)
            image = image_in(folder / "images", name, where)
            question = " ".join(text(row, "question", where).split())
            answerable = kind == "visual challenge"
            denials = sum(1 for reference in references if _DENIAL.search(reference))
            if (2 * denials >= len(references)) if answerable else not denials:
                continue
            late = draw("haloquest validation", name) < VALIDATION_SHARE
            if split != "test" and (name in held or late != (split == "validation")):
                continue
            yield Example(
                id=f"{path.stem.removeprefix('haloquest-')}-{id_}",
                group=name,
                image=image,
                question="Can this question be answered from the image?",
                claim=question,
                claim_label="Question",
                options=OPTIONS,
                gold=0 if answerable else 1,
                category=kind,
                source=self.name,
            )


def _image_name(row: Row, where: str) -> str:
    """The name of the row's image; where it is empty, the last part of its url."""
    name = text(row, "image_name", where, blank=True)
    return name if name.strip() else unquote_plus(urlsplit(text(row, "url", where)).path).rpartition("/")[2]
