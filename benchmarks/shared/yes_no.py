"""The meaning of a written answer to a yes/no question, as in the published scoring scripts; and shared formulas.

Each parser was written from a description of the original's behaviour, not from its code, and returns "yes", "no"
or None (neither). They differ widely on anything but a bare word: "No." is no for the first and the third, nothing
for the second and the last. A chosen option ("Yes", "No") means the same for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from harness.api import Answer, DataError, Figures

Verdict = Literal["yes", "no"] | None
Parser = Callable[[str], Verdict]

YES_NO = ("Yes", "No")
"""The options of a yes/no item, in the order of every benchmark here."""

SIGNS = ';/[]"{}()=+\\_-><@`,?!'
"""The characters that `without_signs` treats as punctuation; not the colon, the asterisk and the apostrophe."""


def pope_official(text: str) -> Verdict:
    """No if a word of the first sentence is exactly "No", "no" or "not"; anything else is yes.

    The first sentence ends at the first "."; commas are dropped, words end at single spaces. So "NO", "no!"
    and an empty text are yes. Source: POPE's evaluate.py.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def bare_word(text: str) -> Verdict:
    """Only the bare word, ignoring case and outer spaces: "Yes." is neither. Source: lmms-eval, POPE."""
    word = text.lower().strip()
    return "yes" if word == "yes" else "no" if word == "no" else None


def exact_word(text: str) -> Verdict:
    """Only exactly "Yes" and "No". Source: AMBER's inference.py."""
    return "yes" if text == "Yes" else "no" if text == "No" else None


def yes_inside(text: str) -> Verdict:
    """Yes if "yes" occurs anywhere, also in "yesterday"; else no. Source: lmms-eval, HallusionBench (intern)."""
    return "yes" if "yes" in text.lower() else "no"


def either_word(text: str) -> Verdict:
    """The one of the words "yes" and "no" that occurs, ignoring punctuation; neither if both or none do.

    Punctuation is removed as in `without_signs`, but all of it is dropped if a digit, a comma and a digit follow
    each other anywhere. Source: VLMEvalKit, process_punctuation and YOrN_Extraction without a judge model.
    """
    lower = text.lower()
    spaced = without_signs(lower, drop_all=re.search(r"\d,\d", lower) is not None)
    words = set(re.sub(r"(?<!\d)\.(?!\d)", "", spaced, count=32).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"


def without_signs(text: str, drop_all: bool = False) -> str:
    """The text with each punctuation mark dropped if it touches a space anywhere (or with `drop_all`), else as a space.

    Source: the punctuation rule of the VQA evaluation, as VLMEvalKit and MMFakeBench use it.
    """
    spaced = text
    for sign in SIGNS:
        dropped = drop_all or f"{sign} " in text or f" {sign}" in text
        spaced = spaced.replace(sign, "" if dropped else " ")
    return spaced


def gold_verdict(answer: Answer) -> Verdict:
    """The right answer of a yes/no item."""
    return "yes" if answer.gold == 0 else "no"


def chosen_verdict(answer: Answer) -> Verdict:
    """The option that was chosen, or that the text was parsed as."""
    return None if answer.chosen < 0 else "yes" if answer.chosen == 0 else "no"


def picked(answer: Answer) -> bool:
    """Whether the answer is one of the options, as in an option-scored run, rather than a free text."""
    return answer.chosen >= 0 and answer.text == answer.options[answer.chosen]


# -------------------------------------------------------------------------------------------- formulas


def by_category(
    answers: Sequence[Answer], figures: Callable[[Sequence[Answer]], Figures], pooled: str = ""
) -> dict[str, float | None]:
    """The figures of each category as `{category}/{name}`, and of all answers as `{pooled}/{name}`."""
    if not answers:
        raise DataError("no answers to score")
    parts: dict[str, list[Answer]] = {}
    for answer in answers:
        parts.setdefault(answer.category, []).append(answer)
    named: list[tuple[str, Sequence[Answer]]] = [*parts.items(), *([(pooled, answers)] if pooled else [])]
    return {f"{part}/{name}": value for part, some in named for name, value in figures(some).items()}


def strict_figures(answers: Sequence[Answer], positive: Verdict) -> dict[str, float | None]:
    """Accuracy, precision, recall and F1 of `positive`, the fraction of such answers, and the fraction of unread
    answers."""
    pairs = [(chosen_verdict(a), gold_verdict(a)) for a in answers]
    hits = pairs.count((positive, positive))
    said, gold = sum(s == positive for s, _ in pairs), sum(g == positive for _, g in pairs)
    return {
        "accuracy": sum(s == g for s, g in pairs) / len(pairs),
        "precision": hits / said if said else None,
        "recall": hits / gold if gold else None,
        "f1": 2 * hits / (said + gold) if said + gold else None,
        f"{positive}_ratio": said / len(pairs),
        "unread": sum(s is None for s, _ in pairs) / len(pairs),
    }


def ratio(above: float, below: float) -> float:
    """The quotient, or 0 if the denominator is 0."""
    return above / below if below else 0.0


def macro_figures(gold: Sequence[int], said: Sequence[int | None], classes: int) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 summed over the classes and divided by `classes`; 0/0 is 0.

    A class without golds and answers adds 0, and so does None (unread).
    """
    pairs = list(zip(gold, said, strict=True))
    sums = {"precision": 0.0, "recall": 0.0, "f1_score": 0.0}
    for k in range(classes):
        hits = pairs.count((k, k))
        precision, recall = ratio(hits, said.count(k)), ratio(hits, gold.count(k))
        sums["precision"] += precision
        sums["recall"] += recall
        sums["f1_score"] += ratio(2 * precision * recall, precision + recall)
    accuracy = sum(g == s for g, s in pairs) / len(pairs)
    return {"accuracy": accuracy, **{name: value / classes for name, value in sums.items()}}
