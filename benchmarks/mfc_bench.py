"""MFC-Bench (Wang et al. 2024): is a pair of image and text manipulated, out of context, untrue?

Published layout: the Hugging Face repository MM-Hallu/MFC-Bench, whose folders `manipulation`, `ooc` and
`veracity` have Parquet files with the images inside. `--data-dir` takes the downloaded folder, `repo` the
repository itself. (The authors' own three repositories have the same rows and archives of images.) Columns:
manipulation: id, manipulate (authentic, manipulated), manipulation_type, caption; ooc: image_id, id, caption,
matched; veracity: evidence_id, topic, document_id, relevancy (not_relevant, relevant), claim; and an image each.

Source: configurations, columns, types and sizes of the repository's card at 3706a6f. Tests write small folders in
this layout; the real 35,000 pairs were not available. So it isn't known whether the ids of the manipulation part
are unique: if one occurs with another text or kind, the row's number is added to it. The card calls veracity's
label "relevancy"; we treat "relevant" as True.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.shared.annotations import Row, new_id, shown, text
from benchmarks.shared.hf_datasets import image_of, rows_of, source_of
from harness.api import Answer, Benchmark, ConfigError, DataError, Example, Figures, Scorer, Split

OPTIONS = ("Yes", "No")


@dataclass(frozen=True)
class MFCBench(Benchmark):
    """35,000 pairs in three parts, one of which is read; `group` is the image, if the rows identify it."""

    part: Literal["manipulation", "ooc", "veracity"] = "manipulation"
    """manipulation: 31,000 pairs, altered or not. ooc: 2,000, image and text of one event or not. veracity: 2,000
    claims, true or not. The positive answer is the one that finds an error."""
    repo: str = ""
    """A Hugging Face repository to read instead of `--data-dir`: MM-Hallu/MFC-Bench."""
    repo_revision: str = "3706a6f5c14a8e44c4a4a6181bae3ef32b1efe40"
    """The commit of the repository."""

    name: ClassVar[str] = "mfc_bench"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 31000}
    revision: ClassVar[str] = "mfc-bench@3706a6f-1"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = (
        "Shengkang Wang, Hongzhan Lin, Ziyang Luo, Zhen Ye, Guang Chen, Jing Ma. MFC-Bench: Benchmarking Multimodal "
        "Fact-Checking with Large Vision-Language Models. arXiv:2406.11288, 2024."
    )
    homepage: ClassVar[str] = "https://github.com/wskbest/MFC-Bench"
    positive: ClassVar[str] = "Yes"
    obtain: ClassVar[str] = (
        "the Hugging Face data set MM-Hallu/MFC-Bench: a downloaded folder, or --set benchmark_settings.repo=..."
    )
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The pairs of the part in the published order; the category is the kind of manipulation, or the label."""
        if split not in self.splits:
            raise ConfigError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        source = source_of(self, self.repo, self.repo_revision, "train", self.part)
        if source is None:
            raise DataError(
                f"{self.name}: no Parquet files in {self.data_dir}: expected {self.part}/train-00000-of-00001.parquet"
            )
        seen: dict[str, str] = {}
        ids: set[str] = set()
        for number, (where, row) in enumerate(rows_of(source)):
            fault = _fault(row, self.part, where)
            claim = " ".join(text(row, "claim" if self.part == "veracity" else "caption", where).split())
            id_ = f"{self.part}-{number}"
            if self.part == "manipulation":  # the others number images or evidence, which may repeat
                published = text(row, "id", where)
                new_id(seen, repr((published, claim, row.get("manipulation_type"))), where)
                id_ = published if published not in ids else f"{published}-{number}"
                ids.add(id_)
            yield Example(
                id=id_,
                group=_group(row, self.part, number),
                image=image_of(row, "image", where),
                question=_QUESTIONS[self.part],
                claim=claim,
                claim_label="Claim" if self.part == "veracity" else "Caption",
                options=OPTIONS,
                gold=0 if fault else 1,
                category=text(row, "manipulation_type", where)
                if self.part == "manipulation" and fault
                else _LABELS[self.part][fault],
                source=f"mfc_bench/{self.part}",
            )

    def protocols(self) -> Mapping[str, Scorer]:
        """`official`: accuracy and macro-F1 of the two classes, as in the paper's tables."""
        return {"official": official}


_QUESTIONS = {
    "manipulation": "Has the image or its caption been manipulated?",
    "ooc": "Is the image out of context, that is, does the caption belong to another image?",
    "veracity": "Is the claim false, as far as the image and known facts tell?",
}
_LABELS = {
    "manipulation": ("authentic", "manipulated"),
    "ooc": ("matched", "mismatched"),
    "veracity": ("true", "false"),
}
_COLUMNS = {"manipulation": "manipulate", "ooc": "matched", "veracity": "relevancy"}
_NAMES = {"manipulation": ("authentic", "manipulated"), "veracity": ("not_relevant", "relevant")}


def official(answers: Sequence[Answer]) -> Figures:
    """Accuracy, and the mean F1 of Yes and No (an answer that is neither is wrong, and no label)."""
    if not answers:
        raise DataError("mfc_bench: no answers to score")
    f1 = []
    for label in (0, 1):
        hits = sum(a.chosen == a.gold == label for a in answers)
        counted = sum((a.chosen == label) + (a.gold == label) for a in answers)
        f1.append(2 * hits / counted if counted else 0.0)
    return {"accuracy": sum(a.chosen == a.gold for a in answers) / len(answers), "macro_f1": sum(f1) / 2}


def _fault(row: Row, part: str, where: str) -> bool:
    """Whether the row's label says that the pair has an error. A label is 0 or 1, its name, or a boolean."""
    key = _COLUMNS[part]
    value = row.get(key)
    if part in _NAMES and value in _NAMES[part]:
        value = _NAMES[part].index(value)
    if type(value) not in (int, bool) or value not in (0, 1):
        raise DataError(f"{where}: {key} is {shown(value)}, expected 0 or 1")
    return bool(value) if part == "manipulation" else not value


def _group(row: Row, part: str, number: int) -> str:
    key = {"manipulation": "id", "ooc": "image_id", "veracity": "document_id"}[part]
    value = row.get(key)
    return str(value) if isinstance(value, str | int) else f"{part}-{number}"
