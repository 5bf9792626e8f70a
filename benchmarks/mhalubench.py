"""MHaluBench (Chen et al. 2024): is a claim of a multimodal model hallucinated?

Published layout under `data_dir` (the Hugging Face repository openkg/MHaluBench, downloaded): the files
`MHaluBench_val-v0.1.json` and `-v0.2.json`, arrays of items with image_path, response, label, task_type and
`segments`, each of which has its text (`segment`), its label and its `claims` with `claim`, `claim_category` and
`label`; the images in `data/image-to-text` and `data/text-to-image`, found by the last part of image_path. A label
is "hallucination" or "non-hallucination". `MHaluBench_train.json` (for `train`) has items with image_path,
claim_list and ref_claim_label; its images come from COCO and TextVQA and belong in `data/image-to-text` too, as do
those benchmark images that the repository lacks (its authors leave out those that they may not redistribute).

Sources: files, folders and items' keys of the repository at c280705; an item of the training file in
HalDet-LLaVA/README.md of zjunlp/EasyDetect; of `segments`, the nesting, `claim` and `claim_category` as issue 8 there
quotes them, `claims` and `claim` as its claim generator reads its own output. That segments and claims have their
label under `label`, as items do, follows from these and the paper; the file itself was not available.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmarks.shared.annotations import Row, choice, data_folder, draw, image_in, items, listed, shown, text
from benchmarks.shared.hf_datasets import downloaded
from benchmarks.shared.yes_no import by_category, macro_figures
from harness.api import Answer, Benchmark, ConfigError, DataError, Example, Figures, Scorer, Split

LABELS = ("hallucination", "non-hallucination")
OPTIONS = ("Yes", "No")
FOLDERS = ("data/image-to-text", "data/text-to-image")
VALIDATION_SHARE = 0.1

Judged = tuple[str, str]
"""A statement and its label."""


@dataclass(frozen=True)
class MHaluBench(Benchmark):
    """Claims, or the segments that they come from, each hallucinated or not; `group` is the image."""

    level: Literal["claim", "segment"] = "claim"
    """claim: the smallest statements. segment: about a sentence of the response, wrong if one of its claims is."""
    version: Literal["v0.1", "v0.2"] = "v0.1"
    """Which of the two published versions of the benchmark is the test split."""
    train: bool = False
    """Also provide train and validation splits of claims from `MHaluBench_train.json` without the benchmark's images, a
    tenth of its images (selected by name) for validation. Their labels were made by a model and checked by people."""
    repo: str = ""
    """A Hugging Face repository to download instead of `--data-dir`: openkg/MHaluBench."""
    repo_revision: str = "c2807056487c969e35bd65b99ea899c9b37d0285"
    """The commit of the repository."""

    name: ClassVar[str] = "mhalubench"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    revision: ClassVar[str] = "mhalubench@c280705-2"
    licence: ClassVar[str] = "MIT"
    citation: ClassVar[str] = (
        "Xiang Chen, Chenxi Wang, Yida Xue, Ningyu Zhang, Xiaoyan Yang, Qiang Li, Yue Shen, Lei Liang, Jinjie Gu, "
        "Huajun Chen. Unified Hallucination Detection for Multimodal Large Language Models. ACL 2024."
    )
    homepage: ClassVar[str] = "https://github.com/zjunlp/EasyDetect"
    positive: ClassVar[str] = "Yes"
    obtain: ClassVar[str] = (
        "the Hugging Face data set openkg/MHaluBench at revision c280705: a downloaded folder, or --set "
        "benchmark_settings.repo=...; images that it lacks come from COCO and TextVQA"
    )
    needs_data_dir: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.train and self.level != "claim":
            raise ConfigError("mhalubench: train = true goes with level = 'claim': the training file has no segments")
        if self.train:
            object.__setattr__(self, "splits", ("train", "validation", "test"))

    def load(self, split: Split) -> Iterator[Example]:
        """The claims or segments of a split in the published order; the category is the kind of task."""
        if split not in self.splits:
            raise ConfigError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        if self.repo and self.data_dir is not None:
            raise ConfigError("mhalubench: give --data-dir or benchmark_settings.repo, not both")
        if self.repo:
            folder = downloaded(self, self.repo, self.repo_revision, ("MHaluBench_*.json", "data/*"))
        else:
            folder = data_folder(self, split)
        images = {name: part for part in reversed(FOLDERS) for name in _names(folder / part)}
        tested = folder / f"MHaluBench_val-{self.version}.json"
        if split == "test":
            for number, (where, row) in enumerate(items(tested), 1):
                for place, judged, at in _statements(row, self.level, where):
                    yield _example(folder, images, row, f"val-{number}-{place}", judged, at)
            return
        held = {_name(row, where) for where, row in items(tested)}
        for number, (where, row) in enumerate(items(folder / "MHaluBench_train.json"), 1):
            name = _name(row, where)
            late = draw("mhalubench validation", name) < VALIDATION_SHARE
            claims = listed(row, "claim_list", where, least=1)
            labels = listed(row, "ref_claim_label", where, least=len(claims), most=len(claims))
            for c, (claim, label) in enumerate(zip(claims, labels, strict=True)):
                at = f"{where}, claim {c + 1}"
                made = _example(folder, images, row, f"train-{number}-{c}", _judged(claim, label, at), at)
                if name not in held and late == (split == "validation"):
                    yield made

    def protocols(self) -> Mapping[str, Scorer]:
        """`official`: the figures of the authors' tables."""
        return {"official": official}


def official(answers: Sequence[Answer]) -> Figures:
    """Accuracy, and precision, recall and F1 averaged over the two labels, by kind of task. Fractions; 0/0 is 0.

    These are the columns of the authors' tables (Acc, Prec avg, Recall avg, Mac.F1 in EasyDetect's README). An
    answer that is neither label is wrong. Their own code was not available.
    """

    def figures(some: Sequence[Answer]) -> dict[str, float | None]:
        said = [a.chosen if a.chosen >= 0 else None for a in some]
        return dict(macro_figures([a.gold for a in some], said, len(OPTIONS)))

    return by_category(answers, figures)


def _statements(row: Row, level: str, where: str) -> Iterator[tuple[str, Judged, str]]:
    """For an item: the index of each claim or segment, its text and label, and its location for errors."""
    for s, segment in enumerate(listed(row, "segments", where, least=1)):
        at = f"{where}, segment {s + 1}"
        if not isinstance(segment, dict):
            raise DataError(f"{at}: is {shown(segment)}, expected an object")
        if level == "segment":
            yield str(s), _judged(segment.get("segment"), segment.get("label"), at), at
            continue
        for c, claim in enumerate(listed(segment, "claims", at)):
            here = f"{at}, claim {c + 1}"
            if not isinstance(claim, dict):
                raise DataError(f"{here}: is {shown(claim)}, expected an object")
            yield f"{s}-{c}", _judged(claim.get("claim"), claim.get("label"), here), here


def _judged(statement: Any, label: Any, where: str) -> Judged:
    found = {"text": statement, "label": label}
    return " ".join(text(found, "text", where).split()), choice(found, "label", where, LABELS)


def _example(folder: Path, images: dict[str, str], row: Row, id_: str, judged: Judged, where: str) -> Example:
    statement, label = judged
    name = _name(row, where)
    part = images.get(name, FOLDERS[0])
    return Example(
        id=id_,
        group=name,
        image=image_in(folder, f"{part}/{name}", where),
        question="Is the claim a hallucination, that is, does it contradict the image or known facts?",
        claim=statement,
        options=OPTIONS,
        gold=LABELS.index(label),
        category=str(row["task_type"]) if isinstance(row.get("task_type"), str) else part.removeprefix("data/"),
        source="mhalubench",
    )


def _name(row: Row, where: str) -> str:
    """The last part of the published path; the rest is a folder on the authors' machine."""
    path = text(row, "image_path", where)
    if ".." in path.split("/"):
        raise DataError(f"{where}: image_path is {shown(path)}, expected a path without '..'")
    return path.rsplit("/", 1)[-1]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
