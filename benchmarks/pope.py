"""POPE (Li et al. 2023): is there a snowboard in the image? And RePOPE (Neuhaus and Hein 2025), with corrected labels.

Published layout under `data_dir`: `coco_pope_random.json`, `coco_pope_popular.json` and
`coco_pope_adversarial.json`, there or in `output/coco/` (RePOPE: `coco_repope_*.json`, there or in
`annotations/`), one JSON object per line: question_id, image, text, label. The images are 500 of COCO's
val2014, in `val2014/`, in `images/` or beside the files. The authors' questions about images of GQA and A-OKVQA
(setting `images`; objects found by SEEM) are arrays, `gqa_pope_seem_*.json` and `aokvqa_pope_seem_*.json`, there or in
`output/seem/gqa/` and `output/seem/aokvqa/`; GQA's images in `gqa/`, in `images/` or beside the files. The variants
differ in the absent objects that are asked for: random ones, frequent ones, or ones that often occur together with
the present ones.

An id is `{variant}/{question_id}`; a file of predictions for a single variant may leave the variant out.

The protocols give the figures of each variant (`random/accuracy`) and, if the original pools, of all.
They differ in how a text is parsed (see benchmarks/shared/yes_no.py) and in how unread answers count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from benchmarks.shared.annotations import Row, choice, data_folder, image_in, integer, items, new_id, text
from benchmarks.shared.hf_datasets import image_of, rows_of, source_of
from benchmarks.shared.yes_no import (
    YES_NO,
    bare_word,
    by_category,
    either_word,
    gold_verdict,
    pope_official,
    ratio,
    strict_figures,
)
from harness.api import Answer, Benchmark, Example, Figures, ImageSource, Scorer, Split

VARIANTS = ("random", "popular", "adversarial")


class Files(NamedTuple):
    """Annotation files `{prefix}_{variant}.json`, in the data folder or in `folder`, and the folder of their images."""

    prefix: str
    folder: str
    layout: Literal["jsonl", "json"]
    images: str


@dataclass(frozen=True)
class Polling(Benchmark):
    """What POPE and RePOPE share: yes/no questions about single objects."""

    variant: Literal["all", "random", "popular", "adversarial"] = "all"

    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    positive: ClassVar[str] = "Yes"
    needs_data_dir: ClassVar[bool] = True
    unanswered: ClassVar[Mapping[str, Literal["left out", "wrong"]]] = {"strict": "wrong"}

    @property
    def files(self) -> Files:
        """Which files are read."""
        raise NotImplementedError

    def load(self, split: Split) -> Sequence[Example]:
        """The questions of the variant (of all, in the order of `VARIANTS`) as published."""
        seen: dict[str, str] = {}
        return [
            Example(
                id=new_id(seen, f"{variant}/{integer(row, 'question_id', where)}", where),
                group=text(row, "image", where),
                image=image,
                question=text(row, "text", where),
                claim="",
                options=YES_NO,
                gold=0 if choice(row, "label", where, ("yes", "no")) == "yes" else 1,
                category=variant,
                source=f"{self.name}/{variant}",
            )
            for where, variant, row, image in self.rows(split)
        ]

    def rows(self, split: Split) -> Iterator[tuple[str, str, Row, ImageSource]]:
        """The location of each published row, its variant, the row and its image."""
        folder = data_folder(self, split)
        places = (folder / self.files.images, folder / "images")
        images = next((place for place in places if place.is_dir()), folder)
        for variant in self.variants:
            for where, row in items(self.file(folder, variant), layout=self.files.layout):
                yield where, variant, row, image_in(images, text(row, "image", where), where)

    @property
    def variants(self) -> tuple[str, ...]:
        return VARIANTS if self.variant == "all" else (self.variant,)

    def file(self, folder: Path, variant: str) -> Path:
        """The annotation file of a variant, which may not exist."""
        places = [folder / inner / f"{self.files.prefix}_{variant}.json" for inner in (".", self.files.folder)]
        return next((place for place in places if place.is_file()), places[0])

    def names(self, example: Example) -> Sequence[str]:
        """The id; and the question's number alone, if only one variant is loaded."""
        number = example.id.partition("/")[2]
        return (example.id,) if self.variant == "all" else (example.id, number)

    def answered_by(self, row: Mapping[str, Any]) -> Sequence[str]:
        """lmms-eval's rows have a category and a number in it, VLMEvalKit's an image and a question."""
        variant, number = row.get("category"), str(row.get("question_id", ""))
        if variant in VARIANTS and number.isdigit():
            return (f"{variant}/{number}",)
        image = next((row[k] for k in ("image_source", "image_path", "image") if isinstance(row.get(k), str)), "")
        question = row.get("question")
        if not isinstance(question, str) or not 0 < len(image) < 200 or "id" in row or "question_id" in row:
            return ()
        return _by_question(self).get(_image_and_question(image, question), ("no such image and question",))

    def not_asked(self) -> Iterable[str]:
        """The other variants' questions, by number."""
        others = [variant for variant in VARIANTS if variant not in self.variants]
        return (f"{variant}/{number}" for variant in others for number in range(1, 3001))

    def protocols(self) -> Mapping[str, Scorer]:
        return {"official": official, "lmms_eval": lmms_eval, "vlmevalkit": vlmevalkit, "strict": strict}


@dataclass(frozen=True)
class POPE(Polling):
    """Polling for objects: yes/no questions about single objects; `group` is the image, category the variant."""

    images: Literal["coco", "gqa", "aokvqa"] = "coco"
    """Whose images the questions are about: COCO's, as in most figures of the literature, GQA's, or A-OKVQA's."""
    repo: str = ""
    """A Hugging Face repository to read instead of `data_dir`, like lmms-lab/POPE."""
    repo_revision: str = ""
    """The commit of `repo`, 40 hex digits."""

    name: ClassVar[str] = "pope"
    published: ClassVar[Mapping[str, int]] = {"test": 9000}
    revision: ClassVar[str] = "pope@08d957b-1"
    licence: ClassVar[str] = "MIT (questions); the images are COCO's, under their own terms"
    citation: ClassVar[str] = (
        "Yifan Li, Yifan Du, Kun Zhou, Jinpeng Wang, Wayne Xin Zhao, Ji-Rong Wen. Evaluating Object Hallucination in "
        "Large Vision-Language Models. EMNLP 2023."
    )
    homepage: ClassVar[str] = "https://github.com/AoiDragon/POPE"
    obtain: ClassVar[str] = (
        "output/coco/coco_pope_*.json of the repository; the images from COCO's val2014.zip (https://cocodataset.org), "
        "in a folder val2014 beside them. Or all of it as Parquet: the Hugging Face dataset lmms-lab/POPE, commit "
        "4db1276663dfa5eb8ad16a52d24c31a09e470896, as data_dir or as settings repo and repo_revision"
    )

    @property
    def files(self) -> Files:
        if self.images == "coco":
            return Files("coco_pope", "output/coco", "jsonl", "val2014")
        images = "gqa" if self.images == "gqa" else "val2014"
        return Files(f"{self.images}_pope_seem", f"output/seem/{self.images}", "json", images)

    def rows(self, split: Split) -> Iterator[tuple[str, str, Row, ImageSource]]:
        """From the published files; if they don't exist, from Parquet with the columns of lmms-lab/POPE."""
        if self.images != "coco" or (
            self.data_dir is not None and self.file(self.data_dir, self.variants[0]).is_file()
        ):
            source = None
        else:
            source = source_of(self, self.repo, self.repo_revision, split)
        if source is None:
            yield from super().rows(split)
            return
        for where, found in rows_of(source):
            variant = choice(found, "category", where, VARIANTS)
            if variant in self.variants:
                name = f"{text(found, 'image_source', where).removesuffix('.jpg')}.jpg"
                row = {"image": name, "text": found.get("question"), "label": found.get("answer")}
                yield where, variant, {"question_id": found.get("question_id"), **row}, image_of(found, "image", where)


@dataclass(frozen=True)
class RePOPE(Polling):
    """POPE's questions with wrong labels corrected and ambiguous questions left out."""

    name: ClassVar[str] = "repope"
    revision: ClassVar[str] = "repope-1"
    licence: ClassVar[str] = "not stated (labels); POPE's MIT (questions); the images are COCO's, under their own terms"
    citation: ClassVar[str] = (
        "Yannic Neuhaus, Matthias Hein. RePOPE: Impact of Annotation Errors on the POPE Benchmark. arXiv 2504.15707."
    )
    homepage: ClassVar[str] = "https://github.com/YanNeu/RePOPE"
    obtain: ClassVar[str] = (
        "annotations/coco_repope_*.json of the repository; the images from COCO's val2014.zip "
        "(https://cocodataset.org), in a folder val2014 beside them"
    )

    @property
    def files(self) -> Files:
        return Files("coco_repope", "annotations", "jsonl", "val2014")


@lru_cache(maxsize=2)
def _by_question(benchmark: Polling) -> Mapping[str, Sequence[str]]:
    """The ids of the examples with an image and a question."""
    found: dict[str, list[str]] = {}
    for e in benchmark.load("test"):
        found.setdefault(_image_and_question(e.group, e.question), []).append(e.id)
    return found


def _image_and_question(image: str, question: str) -> str:
    return f"{image.rpartition('/')[2].removesuffix('.jpg')}: {question.partition('?')[0].strip().lower()}"


# ------------------------------------------------------------------------------------------- protocols


def official(answers: Sequence[Answer]) -> Figures:
    """As POPE's evaluate.py: its parser reads everything but a clear no as yes. Fractions; positive class yes.

    The original pairs answers and questions by their order in the files; here they are paired by id. With no
    true positive it stops with a ZeroDivisionError after the counts are printed: accuracy, precision, recall
    and F1 are then undefined.
    """
    return by_category(
        answers, lambda some: official_figures([a.text for a in some], [str(gold_verdict(a)) for a in some])
    )


def official_figures(said: Sequence[str], labels: Sequence[str]) -> dict[str, float | None]:
    """Counts and figures of texts against labels; any text other than "no" is yes.

    As in the original, the longer list is cut to the shorter, but yes_ratio is over all texts.
    """
    verdicts = [pope_official(text) for text in said]
    pairs = [(verdict, "no" if label == "no" else "yes") for verdict, label in zip(verdicts, labels, strict=False)]
    tp, fp = pairs.count(("yes", "yes")), pairs.count(("yes", "no"))
    tn, fn = pairs.count(("no", "no")), pairs.count(("no", "yes"))
    figures: dict[str, float | None] = {"TP": tp, "FP": fp, "TN": tn, "FN": fn}
    figures |= dict.fromkeys(("accuracy", "precision", "recall", "f1"))
    if tp:
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        figures["accuracy"] = (tp + tn) / len(pairs)
        figures["precision"], figures["recall"] = precision, recall
        figures["f1"] = 2 * precision * recall / (precision + recall)
    figures["yes_ratio"] = verdicts.count("yes") / len(verdicts)
    return figures


def lmms_eval(answers: Sequence[Answer]) -> Figures:
    """As lmms-eval's POPE task: only the bare word counts, "Yes." doesn't. Fractions; positive class yes.

    An answer that isn't the bare word is wrong for the accuracy, and in no denominator of precision and
    recall; 0/0 is 0. The original's yes_ratio is the fraction of yes among the labels, and so it is here.
    """

    def figures(some: Sequence[Answer]) -> Figures:
        pairs = [(bare_word(a.text), gold_verdict(a)) for a in some]
        tp, fp, fn = pairs.count(("yes", "yes")), pairs.count(("yes", "no")), pairs.count(("no", "yes"))
        precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
        return {
            "accuracy": sum(said == gold for said, gold in pairs) / len(pairs),
            "precision": precision,
            "recall": recall,
            "f1": ratio(2 * precision * recall, precision + recall),
            "yes_ratio": sum(gold == "yes" for _, gold in pairs) / len(pairs),
        }

    return by_category(answers, figures, "pooled")


def vlmevalkit(answers: Sequence[Answer]) -> Figures:
    """As VLMEvalKit's POPE without a judge model: exactly one of the words yes and no. Per cent; positive class yes.

    Overall, as the original calls it, is F1. An answer with both words or neither is wrong for the accuracy,
    and a no for precision and recall; 0/0 is 0.
    """

    def figures(some: Sequence[Answer]) -> Figures:
        pairs = [(either_word(a.text), gold_verdict(a)) for a in some]
        tp, fp = pairs.count(("yes", "yes")), pairs.count(("yes", "no"))
        precision, recall = ratio(tp, tp + fp), ratio(tp, sum(gold == "yes" for _, gold in pairs))
        return {
            "Overall": 100 * ratio(2 * precision * recall, precision + recall),
            "acc": 100 * sum(said == gold for said, gold in pairs) / len(pairs),
            "precision": 100 * precision,
            "recall": 100 * recall,
        }

    return by_category(answers, figures, "Overall")


def strict(answers: Sequence[Answer]) -> Figures:
    """Our own variant: an answer that can't be read as one option is wrong, and neither yes nor no.

    Fractions; positive class yes; 0/0 is undefined. Denominators include all questions: an unread answer to a
    question whose answer is yes lowers the recall. `unread` is the fraction of such answers.
    """
    return by_category(answers, lambda some: strict_figures(some, "yes"), "pooled")
