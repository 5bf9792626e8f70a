"""NaturalBench (Li et al. 2024): two images and two questions; each question has different answers for the two images.

Published layout: the Hugging Face repository BaiqiL/NaturalBench, a folder `data` of Parquet files with the
columns Index, Image_0, Image_1, Question_0, Question_1, Image_0_Question_0 (the answer), ..., Question_Type
(yes_no or multiple_choice; before 2024-10-18 the column was called "Question Type") and Source. `--data-dir` takes the
downloaded folder, `repo` the repository itself. A sample makes four examples. A model that ignores the image is wrong
for one of the two images of each question.

Sources: columns, types and sizes of the repository's card at 21c415e and at fc80335; the order of the four and the
figures of naturalbench_vqa.py in Baiqi-Li/NaturalBench at 3717258, which assumes that the answers are yes, no, no, yes
(A, B, B, A) throughout; we compare with the published answer. Tests write small folders in this layout; the real
1.3 GB were not available.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.shared.annotations import choice, integer, new_id, text
from benchmarks.shared.hf_datasets import image_of, rows_of, source_of
from benchmarks.shared.yes_no import picked
from harness.api import Answer, Benchmark, ConfigError, DataError, Example, Figures, Scorer, Split

TYPES = ("yes_no", "multiple_choice")
_OPTIONS = re.compile(r"(?s)\s*Options?:?\s*A\s*[:.]\s*(?P<a>.+?)\s*;?\s*\bB\s*[:.]\s*(?P<b>.+?)\s*;?\s*")


@dataclass(frozen=True)
class NaturalBench(Benchmark):
    """1,900 samples of two questions on two images; `group` is the sample, the category the type of question."""

    repo: str = ""
    """A Hugging Face repository to read instead of `--data-dir`: BaiqiL/NaturalBench."""
    repo_revision: str = "21c415e3d60cdbabad4a02feaa2e4643789612f4"
    """The commit of the repository."""

    name: ClassVar[str] = "naturalbench"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 7600}
    revision: ClassVar[str] = "naturalbench@21c415e-1"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = (
        "Baiqi Li, Zhiqiu Lin, Wenxuan Peng, Jean de Dieu Nyandwi, Daniel Jiang, Zixian Ma, Simran Khanuja, Ranjay "
        "Krishna, Graham Neubig, Deva Ramanan. NaturalBench: Evaluating Vision-Language Models on Natural Adversarial "
        "Samples. NeurIPS Datasets and Benchmarks 2024."
    )
    homepage: ClassVar[str] = "https://github.com/Baiqi-Li/NaturalBench"
    obtain: ClassVar[str] = (
        "the Hugging Face data set BaiqiL/NaturalBench: a downloaded folder, or --set benchmark_settings.repo=..."
    )
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The four examples of each sample in the official order: q0 on both images, then q1."""
        if split not in self.splits:
            raise ConfigError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        source = source_of(self, self.repo, self.repo_revision, "train")
        if source is None:
            raise DataError(
                f"{self.name}: no Parquet files in {self.data_dir}: expected data/train-00000-of-00003.parquet"
            )
        seen: dict[str, str] = {}
        for where, row in rows_of(source):
            sample = new_id(seen, str(integer(row, "Index", where)), where)
            kind = choice(row, "Question Type" if "Question Type" in row else "Question_Type", where, TYPES)
            for q in (0, 1):
                question = text(row, f"Question_{q}", where)
                golds = [_gold(row, f"Image_{i}_Question_{q}", kind, where) for i in (0, 1)]
                if golds[0] == golds[1]:
                    raise DataError(f"{where}: Question_{q} has one answer for both images; expected two")
                asked, options = _split_options(question) if kind == "multiple_choice" else (question, ("Yes", "No"))
                for i in (0, 1):
                    yield Example(
                        id=f"{sample}-q{q}-i{i}",
                        group=sample,
                        image=image_of(row, f"Image_{i}", where),
                        question=asked,
                        claim="",
                        options=options,
                        gold=golds[i],
                        category=kind,
                        source=text(row, "Source", where) if row.get("Source") else self.name,
                        extra={"sample": sample, "question": q, "image": i},
                    )

    def protocols(self) -> Mapping[str, Scorer]:
        """`official`: accuracy of answers, questions, images and samples."""
        return {"official": official}


def official(answers: Sequence[Answer]) -> Figures:
    """As the authors' naturalbench_vqa.py; all four figures are fractions.

    acc: the fraction of right answers. q_acc: of questions with both images answered right. i_acc: of images with
    both questions answered right. g_acc: of samples with all four right. A written answer means the one of the
    words yes and no (of the letters A and B, including the article "a") that comes first, in any case; one
    without them is wrong. Incomplete questions, images and samples are left out: the original needs all 7,600 answers.
    """
    if not answers:
        raise DataError("naturalbench: no answers to score")
    sets: dict[str, defaultdict[tuple[object, ...], list[bool]]] = {
        "acc": defaultdict(list),
        "q_acc": defaultdict(list),
        "i_acc": defaultdict(list),
        "g_acc": defaultdict(list),
    }
    for answer in answers:
        extra = answer.extra or {}
        sample, question, image = extra["sample"], extra["question"], extra["image"]
        right = read(answer) == answer.gold
        sets["acc"][sample, question, image].append(right)
        sets["q_acc"][sample, question].append(right)
        sets["i_acc"][sample, image].append(right)
        sets["g_acc"][(sample,)].append(right)
    found = {}
    for (name, groups), size in zip(sets.items(), (1, 2, 2, 4), strict=True):
        complete = [all(group) for group in groups.values() if len(group) == size]
        if complete:
            found[name] = sum(complete) / len(complete)
    return found


def read(answer: Answer) -> int | None:
    """The option that an answer means: 0 for yes or A, 1 for no or B, None if neither occurs."""
    if picked(answer):
        return answer.chosen
    words = ("yes", "no") if answer.category == "yes_no" else ("a", "b")
    found = re.search(rf"\b({'|'.join(words)})\b", answer.text, re.IGNORECASE)
    return words.index(found[1].lower()) if found else None


def _gold(row: dict[str, object], key: str, kind: str, where: str) -> int:
    options = ("Yes", "No") if kind == "yes_no" else ("A", "B")
    return options.index(choice(row, key, where, options))


def _split_options(question: str) -> tuple[str, tuple[str, str]]:
    """A multiple-choice question without its options, and the options: the published text has both in one string."""
    at = question.find("Option")
    found = _OPTIONS.fullmatch(question[at:]) if at > 0 else None
    if found is None or found["a"] == found["b"]:
        return question, ("A", "B")
    return question[:at].strip(), (found["a"], found["b"])
