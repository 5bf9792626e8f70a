"""HallusionBench (Guan et al. 2024): yes/no questions on charts, maps, illusions; with and without edited images.

Published layout under `data_dir`: `HallusionBench.json`, an array, and the images in `hallusion_bench/` or
beside it. An id is `{category}_{subcategory}_{visual_input}_{set_id}_{figure_id}_{question_id}`. VD questions
depend on the image; VS questions can be answered from knowledge, and figure 0 of a VS set has no image:
178 of the 1,129 questions. They are shown with an empty grey image here, because every model of this harness
needs one (`rows = "image"` leaves them out).

In the published script GPT-4 judges free texts: 1 correct, 0 incorrect, 2 unclear, and whether the answer is the
same as the one to figure 0. Here an option that was chosen or parsed needs no judge: right 1, wrong 0, unread 2; same,
if the options are. An answer of two digits, as "01", is treated as a judge's verdict and its "same".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from PIL import Image

from benchmarks.shared.annotations import Row, choice, data_folder, image_in, integer, items, new_id, text
from benchmarks.shared.hf_datasets import image_of, rows_of, source_of
from benchmarks.shared.yes_no import YES_NO, Parser, either_word, gold_verdict, strict_figures, yes_inside
from harness.api import Answer, Benchmark, DataError, Example, Figures, ImageSource, Scorer, Split

FILE = "HallusionBench.json"
CATEGORIES = {"VD": ("illusion", "math", "ocr", "figure", "video"), "VS": ("chart", "table", "map", "ocr")}


@dataclass(frozen=True)
class HallusionBench(Benchmark):
    """Yes/no questions on images and their edits; `group` is the set of images, category as `VD_ocr`."""

    rows: Literal["all", "image"] = "all"
    """image: leave out the questions without an image."""
    repo: str = ""
    """A Hugging Face repository to read instead of `data_dir`, like lmms-lab/HallusionBench."""
    repo_revision: str = ""
    """The commit of `repo`, 40 hex digits."""

    name: ClassVar[str] = "hallusionbench"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 1129}
    positive: ClassVar[str] = "Yes"
    revision: ClassVar[str] = "hallusionbench@744007c-2"
    licence: ClassVar[str] = "BSD-3-Clause"
    citation: ClassVar[str] = (
        "Tianrui Guan et al. HallusionBench: An Advanced Diagnostic Suite for Entangled Language Hallucination and "
        "Visual Illusion in Large Vision-Language Models. CVPR 2024."
    )
    homepage: ClassVar[str] = "https://github.com/tianyi-lab/HallusionBench"
    obtain: ClassVar[str] = (
        "HallusionBench.json of the repository, and hallusion_bench.zip from its README, unpacked beside. Or all of it "
        "as Parquet: the Hugging Face dataset lmms-lab/HallusionBench, commit "
        "ea5fd49f1b711d12cc8b0ec75be0c0593e17befe, as data_dir or as settings repo and repo_revision"
    )
    needs_data_dir: ClassVar[bool] = True
    unanswered: ClassVar[Mapping[str, Literal["left out", "wrong"]]] = {"strict": "wrong"}

    def load(self, split: Split) -> Sequence[Example]:
        """The questions by their numbers: files and Parquet, which has them in two splits, differ in their order."""
        examples: list[Example] = []
        seen: dict[str, str] = {}
        for where, row in self._rows(split):
            category = choice(row, "category", where, tuple(CATEGORIES))
            subcategory = choice(row, "subcategory", where, CATEGORIES[category])
            numbers = [integer(row, key, where) for key in ("visual_input", "set_id", "figure_id", "question_id")]
            id_ = new_id(seen, "_".join([category, subcategory, *map(str, numbers)]), where)
            blank = numbers[0] == 0
            if blank and self.rows == "image":
                continue
            examples.append(
                Example(
                    id=id_,
                    group=f"{category}_{subcategory}_{numbers[1]}",
                    image=no_image if blank else self._image(row, where),
                    question=text(row, "question", where),
                    claim="",
                    options=YES_NO,
                    gold=0 if choice(row, "gt_answer", where, ("0", "1")) == "1" else 1,
                    category=f"{category}_{subcategory}",
                    source=f"hallusionbench/{category}",
                )
            )
        return sorted(examples, key=lambda e: e.id)

    def _rows(self, split: Split) -> Iterator[tuple[str, Row]]:
        """From the published file; if it doesn't exist, from Parquet with the columns of lmms-lab/HallusionBench."""
        if self.data_dir is None or not (self.data_dir / FILE).is_file():
            parts = ("image", "non_image") if self.rows == "all" else ("image",)
            sources = [source_of(self, self.repo, self.repo_revision, part) for part in parts]
            if None not in sources:
                for source in filter(None, sources):
                    yield from rows_of(source)
                return
        yield from items(data_folder(self, split) / FILE)

    def _image(self, row: Row, where: str) -> ImageSource:
        if self.data_dir is None or "image" in row:
            return image_of(row, "image", where)
        inner = self.data_dir / "hallusion_bench"
        name = text(row, "filename", where).removeprefix("./").removeprefix("hallusion_bench/")
        return image_in(inner if inner.is_dir() else self.data_dir, name, where)

    def protocols(self) -> Mapping[str, Scorer]:
        scorers = (official, lmms_eval, lmms_eval_intern, vlmevalkit, strict)
        return {scorer.__name__: scorer for scorer in scorers}

    def names(self, example: Example) -> Sequence[str]:
        """The id; and the id without visual_input, which VLMEvalKit's files don't have."""
        return example.id, re.sub(r"_\d+_", "_*_", example.id, count=1)

    def answered_by(self, row: Mapping[str, Any]) -> Sequence[str]:
        """The authors' result file has the columns of the published file, VLMEvalKit's most of them."""
        category, sub = str(row.get("category")), str(row.get("subcategory") or row.get("l2-category"))
        numbers = [str(row.get(key, "*")) for key in ("visual_input", "set_id", "figure_id", "question_id")]
        known = category in CATEGORIES and "*" not in numbers[1:]
        return ("_".join([category, sub.removeprefix(f"{category}_"), *numbers]),) if known else ()

    def not_asked(self) -> Iterable[str]:
        """The questions without an image, if they are left out."""
        return (e.id for e in replace(self, rows="all").load("test") if self.rows == "image" and e.image is no_image)

    def asked(self, protocol: str, example: Example) -> bool:
        """Only the published script and `strict` use the questions without an image."""
        return protocol in ("official", "strict") or example.id.split("_")[2] != "0"


def no_image() -> Image.Image:
    """The image for a question that has none."""
    return Image.new("RGB", (64, 64), (128, 128, 128))


# ------------------------------------------------------------------------------------------- verdicts


class Judged(NamedTuple):
    """A judged answer. `code` is 1 correct, 0 incorrect, 2 unclear; `same` as the answer to figure 0."""

    category: str
    subcategory: str
    visual: int
    set: str
    figure: int
    question: str
    yes: bool
    """The truth."""
    code: int
    same: bool

    @property
    def right(self) -> bool:
        """Correct, or unclear if there is no image."""
        return self.code == 1 or (self.code == 2 and self.bare)

    @property
    def bare(self) -> bool:
        """Figure 0 of a VS set: no image."""
        return self.category == "VS" and self.figure == 0

    @property
    def by_question(self) -> tuple[str, ...]:
        return self.category, self.subcategory, self.set, self.question

    @property
    def by_figure(self) -> tuple[str, ...]:
        return self.category, self.subcategory, self.set, str(self.figure)


def judged(answers: Sequence[Answer], code_of: Callable[[Answer], int]) -> list[Judged]:
    """The answers with their codes; ids say which question they answer."""
    if not answers:
        raise DataError("hallusionbench: no answers to score")
    rows = []
    at_first: dict[tuple[str, ...], Answer] = {}
    for answer in answers:
        category, subcategory, visual, set_, figure, question = answer.id.split("_")
        gold, code = answer.gold == 0, code_of(answer)
        row = Judged(category, subcategory, int(visual), set_, int(figure), question, gold, code, False)
        if row.figure == 0:
            at_first[row.by_question] = answer
        rows.append(row)
    both = zip(rows, answers, strict=True)
    return [row._replace(same=_same(answer, at_first.get(row.by_question))) for row, answer in both]


def verdict(answer: Answer) -> int:
    """The judge's code if the text is one, as "01"; else 1 for the right option, 0 for another, 2 for none."""
    if re.fullmatch("[012][01]", answer.text):
        return int(answer.text[0])
    return 2 if answer.chosen < 0 else int(answer.chosen == answer.gold)


def _same(answer: Answer, first: Answer | None) -> bool:
    if re.fullmatch("[012][01]", answer.text):
        return answer.text[1] == "1"
    return first is not None and answer.chosen >= 0 and answer.chosen == first.chosen


def parsed(parser: Parser) -> Callable[[Answer], int]:
    """Codes from a parser of yes/no texts: 1 if its result is right, else 0."""
    return lambda answer: int(parser(answer.text) == gold_verdict(answer))


def shares(rows: Iterable[Judged]) -> dict[str, float]:
    """aAcc over questions, fAcc over figures (except figure 0 of VS sets), qAcc over question groups; fractions.

    A figure or group counts as right if all of its answers are right.
    """
    whole = list(rows)
    return {
        "aAcc": _share(row.right for row in whole),
        "fAcc": _share(map(all, _figures(whole).values())),
        "qAcc": _share(map(all, _groups(whole, lambda row: row.by_question).values())),
    }


def _figures(rows: Iterable[Judged]) -> dict[tuple[str, ...], list[bool]]:
    return _groups((row for row in rows if not row.bare), lambda row: row.by_figure)


def _groups(rows: Iterable[Judged], key: Callable[[Judged], tuple[str, ...]]) -> dict[tuple[str, ...], list[bool]]:
    groups: dict[tuple[str, ...], list[bool]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row.right)
    return groups


def _share(right: Iterable[bool]) -> float:
    values = list(right)
    return sum(values) / len(values) if values else 0.0


# ------------------------------------------------------------------------------------------ protocols


def lmms_eval(answers: Sequence[Answer]) -> Figures:
    """As lmms-eval's hallusion_bench_image: the official definitions on the 951 questions with an image.

    Per cent, four decimals. The original asks the judge; verdicts are used here as in `official`.
    """
    return {name: _pct(value) for name, value in shares(_with_image(answers, verdict)).items()}


def lmms_eval_intern(answers: Sequence[Answer]) -> Figures:
    """As lmms-eval's parser for InternVL, which its task file leaves out: yes if "yes" occurs anywhere. Fractions."""
    return shares(_with_image(answers, parsed(yes_inside)))


def vlmevalkit(answers: Sequence[Answer]) -> Figures:
    """As VLMEvalKit's HallusionBench without a judge model: exactly one of the words yes and no. Per cent.

    On the 951 questions with an image: overall, by category and by subcategory; an answer with both
    words or neither is wrong. Its leaderboard shows the mean of the three overall figures.
    """
    rows = _with_image(answers, parsed(either_word))
    parts = {"Overall": rows}
    for row in sorted(rows):
        for part in (row.category, f"{row.category}_{row.subcategory}"):
            parts.setdefault(part, []).append(row)
    return {f"{part}/{name}": 100 * value for part, some in parts.items() for name, value in shares(some).items()}


def strict(answers: Sequence[Answer]) -> Figures:
    """Our own variant: an answer that can't be read as one option is wrong, "unclear" or not.

    Fractions; positive class yes; on all questions. `unread` is the fraction of such answers.
    """
    rows = judged(answers, lambda answer: int(answer.chosen == answer.gold))
    return {**shares(rows), **strict_figures(answers, "yes")}


def _with_image(answers: Sequence[Answer], code_of: Callable[[Answer], int]) -> list[Judged]:
    return [row for row in judged(answers, code_of) if row.visual != 0]


def _pct(share: float) -> float:
    return round(100 * share, 4)


# -------------------------------------------------------------------------------------------- official


def official(answers: Sequence[Answer]) -> Figures:
    """As HallusionBench's evaluation.py, on all questions; verdicts as in the module docstring. Per cent, four
    decimals.

    `easy_aAcc` and `hard_aAcc` are over question groups, on the questions without and with an edited image.
    `pct_diff` is the fraction of "yes" among the answers minus that among the golds, where any wrong answer counts
    as the opposite of the gold; `fp_ratio` the fraction of wrong answers whose gold is no (both not rounded).
    LH, VI and Mixed (language hallucination, visual illusion) are fractions of the wrong answers. Without a wrong
    answer the original stops with a ZeroDivisionError after its leaderboard: bias and diagnosis are then undefined.
    """
    rows = judged(answers, verdict)
    n = counts(rows)
    figures: dict[str, float | None] = {
        "leaderboard/qAcc": _whole(n["question_pairs"]),
        "leaderboard/fAcc": _whole(n["figures"]),
        "leaderboard/easy_aAcc": _whole(n["pairs_easy"]),
        "leaderboard/hard_aAcc": _whole(n["pairs_hard"]),
        "leaderboard/aAcc": _pct(_share(row.right for row in rows)),
    }
    for part, suffix in PARTS.items():
        figures[f"per_question_pct/{part}"] = _pct(_share(row.right for row in _part(rows, part)))
        for name, counted in (("easy", "pairs_easy"), ("hard", "pairs_hard"), ("total", "question_pairs")):
            figures[f"per_question_pair_pct/{part}/{name}"] = _whole(n[counted + suffix])
        of = n["figures" + suffix]
        figures[f"per_figure/{part}/correct_pct"] = _whole(of)
        # The original adds the two rounded numbers.
        figures[f"per_figure/{part}/inconsistent_plus_wrong_pct"] = _whole(of, "inconsistent") + _whole(of, "wrong")
        figures[f"per_figure/{part}/score"] = round(of["score"], 4)
    wrong = [row for row in rows if not row.right]
    said = _share(row.right == row.yes for row in rows)
    figures["yes_no_bias/pct_diff"] = said - _share(row.yes for row in rows) if wrong else None
    figures["yes_no_bias/fp_ratio"] = _share(not row.yes for row in wrong) if wrong else None
    for name in ("correct", "inconsistent", "wrong"):
        figures[f"diagnostic_row/consistency_{name}_pct"] = _whole(n["figures"], name) if wrong else None
    for name, cause in (("LH", "LH_cg"), ("VI", "VI_cg"), ("Mixed", "Mix_cg")):
        figures[f"diagnostic_row/{name}_pct"] = _pct(n["question_pairs"][cause] / len(wrong)) if wrong else None
    return figures


Counts = Mapping[str, float]
PARTS = {"VD": "_VD", "VS": "_VS", "Overall": ""}


def counts(rows: Sequence[Judged]) -> dict[str, Counts]:
    """The counts behind the official figures, under the original's names, for all rows and by category.

    A question group's cause is mixed if its wrong answers have both; `_cg` counts answers, not groups.
    """
    found: dict[str, Counts] = {}
    for part, suffix in PARTS.items():
        some = _part(rows, part)
        found[f"figures{suffix}"] = _figure_counts(some)
        found[f"question_pairs{suffix}"] = _pair_counts(some) | _cause_counts(some)
        found[f"pairs_easy{suffix}"] = _pair_counts([row for row in some if row.visual != 2])
        found[f"pairs_hard{suffix}"] = _pair_counts([row for row in some if row.visual == 2])
    return found


def _part(rows: Sequence[Judged], part: str) -> Sequence[Judged]:
    return [row for row in rows if part in (row.category, "Overall")]


def _whole(n: Counts, which: str = "correct") -> float:
    return _pct(n[which] / (n["total"] or 1))


def _figure_counts(rows: Sequence[Judged]) -> Counts:
    """The numbers of figures: all, all right, all wrong, in between; and the mean over figures of the fraction
    right."""
    figures = list(_figures(rows).values())
    correct, wrong = sum(map(all, figures)), sum(not any(right) for right in figures)
    return {
        "total": len(figures),
        "correct": correct,
        "wrong": wrong,
        "inconsistent": len(figures) - correct - wrong,
        "score": sum(map(_share, figures)) / (len(figures) or 1),
    }


def _pair_counts(rows: Sequence[Judged]) -> dict[str, float]:
    groups = list(_groups(rows, lambda row: row.by_question).values())
    correct = sum(map(all, groups))
    return {"total": len(groups), "total_q": len(rows), "correct": correct, "wrong": len(groups) - correct}


def _cause_counts(rows: Sequence[Judged]) -> dict[str, float]:
    first = {row.by_question: row.code for row in rows if row.figure == 0}
    by_group: dict[tuple[str, ...], set[str]] = {}
    of_answers: Counter[str] = Counter()
    for row in rows:
        if not row.right:
            cause = _cause(row, first.get(row.by_question))
            of_answers[cause] += 1
            by_group.setdefault(row.by_question, set()).add(cause)
    of_groups = Counter(next(iter(causes)) if len(causes) == 1 else "Mix" for causes in by_group.values())
    counted: dict[str, float] = {name: of_groups[name] for name in ("LH", "VI", "Mix")}
    return counted | {f"{name}_cg": of_answers[name] for name in counted}


def _cause(row: Judged, first: int | None) -> Literal["LH", "VI", "Mix"]:
    """The likely cause of a wrong answer: language hallucination, visual illusion, or both.

    `first` is the code of the same question on figure 0, which is unedited or has no image.
    """
    repeats = row.code == 0 and row.same
    if row.category == "VD":
        return "Mix" if row.figure != 0 and first == 1 and repeats else "VI"
    if row.figure == 0:
        return "LH"
    if first == 0:
        return "LH" if repeats else "Mix"
    return "LH" if first == 1 and repeats and row.visual == 2 else "VI"
