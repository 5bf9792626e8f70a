"""Task 1 of the challenge: which part of a generated caption does the image contradict?

Files as in `benchmarks.challenge.files`. An item asks about one caption (`system1_answer`) with
`system2_question`; one of its choices is "No hallucination". Tested on generated files in the published layout, not
on the published files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.challenge.files import Challenge, Item, read
from benchmarks.shared.annotations import text
from harness.api import Answer, DataError, Example, Figures, Scorer, Split

NONE = "No hallucination"


@dataclass(frozen=True)
class ChallengeHallucination(Challenge):
    """Captions with one hallucinated part or none; `group` is the image."""

    form: Literal["choice", "per_option"] = "choice"
    """choice: the original options, one of them right. per_option: each part separately, hallucinated or not
    (multi-label); "No hallucination" is dropped, because it means that none of them is."""

    name: ClassVar[str] = "challenge_hallucination"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    revision: ClassVar[str] = "1"
    folder: ClassVar[str] = "HallucinationDetection"
    positive: ClassVar[str] = "Yes"

    def load(self, split: Split) -> Iterator[Example]:
        """The examples of a split in the order of its file; `per_option` yields an item's parts one after another."""
        for item in read(self, split, "system1_answer"):
            if self.form == "per_option":
                yield from _parts(item)
                continue
            if len(item.golds) > 1:
                raise DataError(
                    f"{item.where}: correct_choice names {len(item.golds)} options; "
                    "use one question per option with benchmark_settings.form=per_option"
                )
            gold = item.golds[0]
            yield _example(
                item,
                id_=item.id,
                question=text(item.row, "system2_question", item.where),
                options=item.options,
                gold=gold,
                category="none" if item.options[gold].lower() == NONE.lower() else "hallucination",
            )

    def protocols(self) -> Mapping[str, Scorer]:
        """`per_caption` if options are separate questions: the fraction of captions with every part judged right."""
        return {"per_caption": per_caption} if self.form == "per_option" else {}


def per_caption(answers: Sequence[Answer]) -> Figures:
    """Exact match of the sets of hallucinated parts, over the captions that have an answer."""
    by_item: defaultdict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        by_item[str((answer.extra or {})["item"])].append(answer.chosen == answer.gold)
    if not by_item:
        raise DataError("challenge_hallucination: no answers to score")
    return {"exact_match": sum(map(all, by_item.values())) / len(by_item)}


def _parts(item: Item) -> Iterator[Example]:
    for place, option in enumerate(item.options):
        if option.lower() == NONE.lower():
            continue
        wrong = place in item.golds
        yield _example(
            item,
            id_=f"{item.id}-{place}",
            question=f"Is this part of the caption hallucinated: {option}?",
            options=("Yes", "No"),
            gold=0 if wrong else 1,
            category="hallucination" if wrong else "none",
        )


def _example(item: Item, id_: str, question: str, options: tuple[str, ...], gold: int, category: str) -> Example:
    return Example(
        id=id_,
        group=item.image.name,
        image=item.image,
        question=question,
        claim=text(item.row, "system1_answer", item.where),
        claim_label="Caption",
        options=options,
        gold=gold,
        category=category,
        source="challenge_hallucination",
        extra={"item": item.id},
    )
