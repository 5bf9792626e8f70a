"""AMBER (Wang et al. 2023), the discriminative part: is this object, attribute or relation in the image?

Published layout under `data_dir`: `annotations.json` (id, type, truth) and `query_all.json` (id, image,
query), there or in `data/` and `data/query/`; `query_discriminative.json` can be used too. The images, `AMBER_1.jpg`
to `AMBER_1004.jpg`, are in `image/`, in `images/` or beside the annotations. Ids below 1005 ask for a
description and are left out here: 14,216 of the 15,220 remain.

The positive class is No: the protocols measure how well a model denies what isn't there. The answer to all existence
questions is No, so their precision says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from benchmarks.shared.annotations import choice, data_folder, image_in, integer, items, new_id, text
from benchmarks.shared.yes_no import YES_NO, by_category, either_word, exact_word, gold_verdict, strict_figures
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

TYPES = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
"""The published types, and the category of each; both relation types are one dimension."""
ATTRIBUTE = ("state", "number", "action")


@dataclass(frozen=True)
class AMBER(Benchmark):
    """Yes/no questions about existence, attributes and relations; `group` is the image."""

    dimension: Literal["all", "existence", "attribute", "relation"] = "all"

    name: ClassVar[str] = "amber"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 14216}
    positive: ClassVar[str] = "No"
    revision: ClassVar[str] = "amber@534babf-1"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = (
        "Junyang Wang et al. AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation. "
        "arXiv 2311.07397."
    )
    homepage: ClassVar[str] = "https://github.com/junyangwang0410/AMBER"
    obtain: ClassVar[str] = (
        "data/ of the repository; the images from the link in its README, in a folder image beside the annotations"
    )
    needs_data_dir: ClassVar[bool] = True
    unanswered: ClassVar[Mapping[str, Literal["left out", "wrong"]]] = {
        "official": "left out",
        "vlmevalkit": "left out",
        "strict": "wrong",
    }

    def load(self, split: Split) -> Sequence[Example]:
        """The questions of the dimension in the order of the queries."""
        base = _base(data_folder(self, split))
        truths = _truths(base / "annotations.json")
        images = next((place for place in (base / "image", base / "images") if place.is_dir()), base)
        examples: list[Example] = []
        seen: dict[str, str] = {}
        for where, row in items(_queries(base)):
            id_ = new_id(seen, str(integer(row, "id", where, low=1)), where)
            if id_ not in truths:
                raise DataError(f"{where}: id {id_} has no annotation in {base / 'annotations.json'}")
            kind, truth = truths[id_]
            if kind == "generative" or self.dimension not in ("all", *_dimensions(TYPES[kind])):
                continue
            name = text(row, "image", where)
            examples.append(
                Example(
                    id=id_,
                    group=name,
                    image=image_in(images, name, where),
                    question=text(row, "query", where),
                    claim="",
                    options=YES_NO,
                    gold=0 if truth == "yes" else 1,
                    category=TYPES[kind],
                    source=f"amber/{kind}",
                )
            )
        return examples

    def not_asked(self) -> Iterable[str]:
        """The images to describe, and the questions of other dimensions: the authors' files answer all."""
        asked = {example.id for example in self.load("test")}
        return (id_ for id_ in _truths(_base(data_folder(self, "test")) / "annotations.json") if id_ not in asked)

    def protocols(self) -> Mapping[str, Scorer]:
        return {"official": official, "vlmevalkit": vlmevalkit, "strict": strict}


def _base(folder: Path) -> Path:
    return folder if (folder / "annotations.json").is_file() or not (folder / "data").is_dir() else folder / "data"


def _truths(path: Path) -> dict[str, tuple[str, str]]:
    """Type and truth (empty for a description) by id."""
    truths: dict[str, tuple[str, str]] = {}
    seen: dict[str, str] = {}
    for where, row in items(path):
        id_ = new_id(seen, str(integer(row, "id", where, low=1)), where)
        kind = choice(row, "type", where, ("generative", *TYPES))
        truths[id_] = kind, "" if kind == "generative" else choice(row, "truth", where, ("yes", "no"))
    return truths


def _queries(base: Path) -> Path:
    names = ("query_all.json", "query_discriminative.json")
    places = [folder / name for folder in (base, base / "query") for name in names]
    return next((place for place in places if place.is_file()), places[0])


def _dimensions(category: str) -> tuple[str, ...]:
    return ("attribute",) if category in ATTRIBUTE else (category,)


# ------------------------------------------------------------------------------------------- protocols

SHOWN = {
    "Descriminative Task": ("existence", *ATTRIBUTE, "relation"),
    "Exsitence": ("existence",),
    "Attribute": ATTRIBUTE,
    "State": ("state",),
    "Number": ("number",),
    "Action": ("action",),
    "Relation": ("relation",),
}
"""The rows of the original's result, under its own names, and the categories in each."""


def official(answers: Sequence[Answer]) -> Figures:
    """As AMBER's inference.py, type d: only exactly "Yes" and "No" count. Per cent, one decimal; positive class no.

    Any other text is wrong, and isn't counted as No. Denominators have 0.001 added (the attributes 0.003), and
    F1, computed from the rounded precision and recall as fractions, 0.0001 (existence 0.001): so 0/0 gives 0. Examples
    without an answer are in no denominator. Rows without examples are 0, as printed. Names are the original's.
    """
    if not answers:
        raise DataError("amber: no answers to score")
    return {
        f"{row}/{name}": value
        for row, categories in SHOWN.items()
        for name, value in _row([a for a in answers if a.category in categories], row).items()
    }


def counts(answers: Sequence[Answer]) -> dict[str, int]:
    """The counts behind the official figures: right answers, and for No the golds, the answers and the hits."""
    pairs = [(exact_word(a.text), gold_verdict(a)) for a in answers]
    return {
        "right": sum(said == gold for said, gold in pairs),
        "all": len(pairs),
        "no_right": pairs.count(("no", "no")),
        "no_gold": sum(gold == "no" for _, gold in pairs),
        "no_said": sum(said == "no" for said, _ in pairs),
    }


def _row(answers: Sequence[Answer], row: str) -> dict[str, float]:
    n = counts(answers)
    # The original starts each of its counters at 0.001; the attributes are the sum of three.
    below = 0.003 if row == "Attribute" else 0.001
    accuracy, precision, recall = (
        round(n[above] / (n[under] + below) * 100, 1)
        for above, under in (("right", "all"), ("no_right", "no_said"), ("no_right", "no_gold"))
    )
    p, r = precision / 100, recall / 100
    f1 = 2 * p * r / (p + r + (0.001 if row == "Exsitence" else 0.0001))
    return {"Accuracy": accuracy, "Precision": precision, "Recall": recall, "F1": round(f1 * 100, 1)}


def vlmevalkit(answers: Sequence[Answer]) -> Figures:
    """As VLMEvalKit's AMBER without a judge model: accuracy by dimension, per cent, and their plain mean.

    Exactly one of the words yes and no must occur; a text with both or neither is wrong.
    """
    if not answers:
        raise DataError("amber: no answers to score")
    rows = {"Attribute": ATTRIBUTE, "Existence": ("existence",), "Relation": ("relation",)}
    figures: dict[str, float | None] = {}
    for name, categories in rows.items():
        right = [either_word(a.text) == gold_verdict(a) for a in answers if a.category in categories]
        if right:
            figures[name] = 100 * sum(right) / len(right)
    return {"Avg ACC": sum(v for v in figures.values() if v is not None) / len(figures), **figures}


def strict(answers: Sequence[Answer]) -> Figures:
    """Our own variant: an answer that can't be read as one option is wrong, and neither yes nor no.

    Fractions, not rounded; positive class no; 0/0 is undefined. `unread` is the fraction of such answers.
    """
    return by_category(answers, lambda some: strict_figures(some, "no"), "pooled")
