"""The protocols give, to the last digit, what the authors' own scripts gave for the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import amber, hallusionbench, mmfakebench, pope
from benchmarks.shared import yes_no as answers
from harness.api import Answer, Benchmark, DataError, Example
from harness.evaluation.choices import read_choice
from harness.evaluation.scoring import answer

Read = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def stored(golden: Path) -> Read:
    return lambda name: json.loads((golden / f"{name}.json").read_text(encoding="utf-8"))


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as paths, which is how our figures are named."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return found


def same(ours: Mapping[str, float | None], theirs: Mapping[str, Any], rename: tuple[str, str] = ("", "")) -> None:
    """All of their figures are ours (1e-9 relative), and what their script never came to is undefined here."""
    expected = {key.replace(*rename): value for key, value in flat(theirs).items()}
    known = {key: value for key, value in expected.items() if "error" not in key}
    defined = {key: value for key, value in ours.items() if value is not None}
    assert defined == pytest.approx(known, rel=1e-9, abs=1e-12)
    stopped = {key.rpartition("/")[0] for key in expected if "error" in key}
    undefined = {key.partition("/")[0] for key, value in ours.items() if value is None}
    assert bool(stopped) == bool(undefined)


def written(example: Example, text: str) -> Answer:
    return answer(example, read_choice(text, example.options), text)


def load(benchmark: Benchmark) -> list[Example]:
    return list(benchmark.load("test"))


# ------------------------------------------------------------------------------------------- parsers


def test_each_parser_reads_a_text_as_its_original_does(stored: Read) -> None:
    table = stored("yesno_parsing")
    parsers: dict[str, answers.Parser] = {
        "pope_official": answers.pope_official,
        "lmms_eval_pope": answers.bare_word,
        "vlmevalkit": answers.either_word,
        "lmms_eval_hallusion_intern": answers.yes_inside,
        "amber_official": answers.exact_word,
    }
    assert len(table["predictions"]) == 81
    for key, text in table["predictions"].items():
        theirs = {name: said.lower() for name, said in table["scores"][key].items()}
        ours = {
            name: parser(text) or ("unknown" if name == "vlmevalkit" else "other") for name, parser in parsers.items()
        }
        assert ours == theirs, text


def test_signs_are_dropped_where_they_touch_a_space_else_become_one() -> None:
    assert answers.without_signs("yes/true") == "yes true"
    assert answers.without_signs("yes /true a/b") == "yes true ab"
    assert answers.without_signs("a-b", drop_all=True) == "ab"
    assert answers.either_word("yes,1,000") is None  # digit, comma, digit: "yes1000"
    assert answers.either_word("yes." + "." * 40) is None  # at most 32 full stops are dropped
    assert answers.either_word("no. 1.5") == "no"


def test_a_picked_option_means_the_same_to_every_parser() -> None:
    for parser in (
        answers.pope_official,
        answers.bare_word,
        answers.either_word,
        answers.yes_inside,
        answers.exact_word,
    ):
        assert [parser(option) for option in answers.YES_NO] == ["yes", "no"]


# ---------------------------------------------------------------------------------------------- POPE

POPE_FILES = ["clean85", "yes_biased", "messy", "all_yes", "all_no", "all_NO_upper", "all_unclear"]


@pytest.fixture(scope="module")
def pope_examples(published: Callable[[str], Path]) -> list[Example]:
    return load(pope.POPE(published("pope")))


@pytest.mark.parametrize("name", POPE_FILES)
def test_pope(name: str, stored: Read, pope_examples: list[Example]) -> None:
    table = stored(f"pope_{name}")
    given = table["predictions"]
    texts = {} if "constant" in given else {f"{variant}/{n}": t for variant in given for n, t in given[variant].items()}
    told = [written(e, texts.get(e.id, given.get("constant"))) for e in pope_examples]
    assert len(told) == 9000
    same(pope.official(told), table["scores"]["pope_official"])
    same(pope.lmms_eval(told), table["scores"]["lmms_eval"], ("pooled_9000", "pooled"))
    same(pope.vlmevalkit(told), table["scores"]["vlmevalkit"])


def test_pope_small_cases(stored: Read) -> None:
    table = stored("pope_small_cases")
    cases = list(zip(table["predictions"], table["scores"], strict=True))
    assert len(cases) == 6
    for case, scores in cases:
        assert [answers.pope_official(text) for text in case["answers"]] == scores["parsed"]
        same(pope.official_figures(case["answers"], case["labels"]), scores["result"])


def yes_no(gold: str, text: str, category: str = "random") -> Answer:
    chosen = read_choice(text, answers.YES_NO)
    return Answer(text, "image", category, answers.YES_NO, answers.YES_NO.index(gold), chosen, text)


def test_strict_counts_the_unread_as_wrong_and_as_neither() -> None:
    """Gold yes: yes, no, unread. Gold no: yes. So 1 of 4 is right, 1 of 2 said yes, 1 of 3 found."""
    told = [yes_no("Yes", "Yes."), yes_no("Yes", "No, there isn't."), yes_no("Yes", "hm"), yes_no("No", "yes")]
    assert pope.strict(told) == pytest.approx(
        {
            f"{part}/{name}": value
            for part in ("random", "pooled")
            for name, value in {
                "accuracy": 1 / 4,
                "precision": 1 / 2,
                "recall": 1 / 3,
                "f1": 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3),
                "yes_ratio": 2 / 4,
                "unread": 1 / 4,
            }.items()
        }
    )
    assert answers.strict_figures(told, "no")["precision"] == 0
    assert answers.strict_figures([yes_no("No", "no")], "yes")["f1"] is None


# --------------------------------------------------------------------------------------------- AMBER

AMBER_FILES = ["clean85", "yes_biased", "no_biased", "messy", "subset2000", "one_label_only", "all_yes", "all_no"]
COUNTERS = {
    "qa": amber.SHOWN["Descriminative Task"],
    "as_qa": ("state",),
    "an_qa": ("number",),
    "aa_qa": ("action",),
    "asso_qa": ("relation",),
    "ha_qa": ("existence",),
}


@pytest.fixture(scope="module")
def amber_examples(published: Callable[[str], Path]) -> list[Example]:
    return load(amber.AMBER(published("amber")))


@pytest.mark.parametrize("name", AMBER_FILES)
def test_amber(name: str, stored: Read, amber_examples: list[Example]) -> None:
    table = stored(f"amber_{name}")
    given = table["predictions"]
    texts = dict.fromkeys((e.id for e in amber_examples), given["constant"]) if "constant" in given else given
    told = [written(e, texts[e.id]) for e in amber_examples if e.id in texts]
    assert len(told) == len(texts)
    same(amber.official(told), table["scores"]["amber_official_d"])
    same(amber.vlmevalkit(told), table["scores"]["vlmevalkit"])
    counters = {}
    for prefix, categories in COUNTERS.items():
        n = amber.counts([a for a in told if a.category in categories])
        counters |= {f"{prefix}_correct_score": n["right"], f"{prefix}_correct_num": n["all"] + 0.001}
        counters |= {f"{prefix}_no_score": n["no_right"], f"{prefix}_no_num": n["no_gold"] + 0.001}
        counters |= {f"{prefix}_ans_no_score": n["no_right"], f"{prefix}_ans_no_num": n["no_said"] + 0.001}
    assert counters == pytest.approx(table["scores"]["amber_official_counters"], rel=1e-9)


# ------------------------------------------------------------------------------------ HallusionBench


@pytest.fixture(scope="module")
def hallusion_examples(published: Callable[[str], Path]) -> list[Example]:
    return load(hallusionbench.HallusionBench(published("hallusionbench")))


def same_as_judged(told: list[Answer], scores: dict[str, Any]) -> None:
    theirs = dict(scores["hallusionbench_official"])
    counts = theirs.pop("counts")
    same(hallusionbench.official(told), theirs)
    assert flat(hallusionbench.counts(hallusionbench.judged(told, hallusionbench.verdict))) == pytest.approx(
        flat(counts)
    )
    same(hallusionbench.lmms_eval(told), scores["lmms_eval_image_split_951"])


@pytest.mark.parametrize("name", ["mixed", "correlated", "high", "uncertain_heavy"])
def test_hallusionbench_codes(name: str, stored: Read, hallusion_examples: list[Example]) -> None:
    table = stored(f"hallusion_codes_{name}")
    same_as_judged([written(e, table["predictions"][e.id]) for e in hallusion_examples], table["scores"])


@pytest.mark.parametrize("name", ["all_correct_same1", "all_incorrect_same1", "all_unclear_same1"])
def test_hallusionbench_constant_codes(name: str, stored: Read, hallusion_examples: list[Example]) -> None:
    table = stored("hallusion_codes_constant")
    given = table["predictions"][name]
    code = given["constant_code"] + given["constant_same"]
    same_as_judged([written(e, code) for e in hallusion_examples], table["scores"][name])


@pytest.mark.parametrize("name", ["clean", "messy", "yes_biased"])
def test_hallusionbench_texts(name: str, stored: Read, hallusion_examples: list[Example]) -> None:
    table = stored(f"hallusion_text_{name}")
    told = [written(e, table["predictions"][e.id]) for e in hallusion_examples if e.id in table["predictions"]]
    assert len(told) == 951
    same(hallusionbench.lmms_eval_intern(told), table["scores"]["lmms_eval_intern_yes_substring"])
    same(hallusionbench.vlmevalkit(told), table["scores"]["vlmevalkit"])


def test_hallusionbench_options_are_their_own_verdicts(hallusion_examples: list[Example]) -> None:
    """Picked options: the truth is correct, its opposite incorrect, and "same" is the same option."""
    e = next(e for e in hallusion_examples if e.id == "VS_chart_1_0_1_0")
    bare = next(e for e in hallusion_examples if e.id == "VS_chart_0_0_0_0")
    wrong, right = (answer(e, chosen, None) for chosen in (1 - e.gold, e.gold))
    assert [hallusionbench.verdict(a) for a in (right, wrong, written(e, "who knows"))] == [1, 0, 2]
    rows = hallusionbench.judged([answer(bare, wrong.chosen, None), wrong], hallusionbench.verdict)
    assert [row.same for row in rows] == [True, True]
    assert hallusionbench.judged([answer(bare, right.chosen, None), wrong], hallusionbench.verdict)[1].same is False


# --------------------------------------------------------------------------------------- MMFakeBench


def test_mmfakebench_labels(stored: Read) -> None:
    table = stored("mmfakebench_labels")
    assert len(table["predictions"]) == 13
    for name, case in table["predictions"].items():
        said = [None if label == "X" else label for label in case["y_pred"]]
        same(mmfakebench.macro_figures(case["y_true"], said, case["n_classes_divisor"]), table["scores"][name])


def test_mmfakebench_parser(stored: Read) -> None:
    """Where the original stops for want of a counter, the text is the unread "X" that it was about to count."""
    table = stored("mmfakebench_parsing")
    assert len(table["predictions"]) == 41
    for key, text in table["predictions"].items():
        assert mmfakebench.label(text) == table["scores"][key].get("four_way"), text


def mmfake(truth: str, text: str, chosen: int = -1) -> Answer:
    return Answer("0", "image", truth, mmfakebench.OPTIONS, mmfakebench.CLASSES.index(truth), chosen, text)


def test_mmfakebench_texts(stored: Read) -> None:
    table = stored("mmfakebench_text")
    told = []
    for item in table["predictions"].values():
        text = item["answer"][-1] if isinstance(item["answer"], list) else item["answer"]
        told.append(mmfake(item["multiple_gt_answers"], text))
    printed = {name: float(value) for name, value in table["scores"]["printed"].items()}
    figures = dict(mmfakebench.official(told))
    assert figures.pop("X_label_num") == printed["X_label_num"]
    same(figures, table["scores"]["result_json"])


def test_mmfakebench_takes_picked_options_too() -> None:
    """Right, fake for the wrong reason, unread: 1 of 3 of four classes, 2 of 3 of two."""
    mismatch, text_false = mmfakebench.OPTIONS[3], mmfakebench.OPTIONS[1]
    told = [mmfake("mismatch", mismatch, 3), mmfake("mismatch", text_false, 1), mmfake("original", "no idea")]
    figures = mmfakebench.official(told)
    assert (figures["mlc_ACC"], figures["bina_ACC"], figures["X_label_num"]) == (1 / 3, 2 / 3, 1)


# ----------------------------------------------------------------------------------------------- all


def test_no_answers_are_an_error() -> None:
    scorers = [pope.official, pope.lmms_eval, pope.vlmevalkit, pope.strict, amber.official, amber.vlmevalkit]
    scorers += [
        amber.strict,
        hallusionbench.official,
        hallusionbench.lmms_eval,
        hallusionbench.strict,
        mmfakebench.official,
    ]
    for scorer in scorers:
        with pytest.raises(DataError, match="no answers to score"):
            scorer([])


@pytest.mark.parametrize(
    "benchmark", [pope.POPE(), pope.RePOPE(), amber.AMBER(), hallusionbench.HallusionBench(), mmfakebench.MMFakeBench()]
)
def test_protocols_say_what_they_do(benchmark: Benchmark) -> None:
    assert "official" in benchmark.protocols()
    for name, scorer in benchmark.protocols().items():
        assert scorer.__doc__, name
        assert "raction" in scorer.__doc__ or "er cent" in scorer.__doc__, name
    assert set(benchmark.unanswered) <= set(benchmark.protocols())
