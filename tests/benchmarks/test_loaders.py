"""The loaders of published benchmarks: real annotation files, made-up ones in their layout, their protocols."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mfc_bench, mhalubench, naturalbench, sugar_crepe, verite
from benchmarks.challenge import hallucination
from benchmarks.challenge.factuality import ChallengeFactuality
from benchmarks.challenge.hallucination import ChallengeHallucination
from benchmarks.haloquest import HaloQuest
from benchmarks.mfc_bench import MFCBench
from benchmarks.mhalubench import MHaluBench
from benchmarks.naturalbench import NaturalBench
from benchmarks.sugar_crepe import SugarCrepe
from benchmarks.verite import VERITE
from harness.api import Answer, ConfigError, DataError, Example
from helpers.common import SHARED, present
from helpers.standins import (
    CHALLENGE_FACTUALITY,
    CHALLENGE_HALLUCINATION,
    HALOQUEST,
    MFC_BENCH,
    MHALUBENCH,
    NATURALBENCH,
    SUGAR_CREPE,
    VERITE_,
    cell,
    claim,
    encoded,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` keeps its copies with the test's other files."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def published(name: str) -> Path:
    return present(SHARED / "data" / name)


def answers(examples: Sequence[Example], right: Sequence[bool]) -> list[Answer]:
    """An answer to each example, the first wrong option where it is to be wrong."""
    found = []
    for e, good in zip(examples, right, strict=True):
        chosen = e.gold if good else next(k for k in range(len(e.options)) if k != e.gold)
        found.append(Answer(e.id, e.group, e.category, e.options, e.gold, chosen, e.options[chosen], e.extra))
    return found


# -------------------------------------------------------------------------------------- the challenge


def test_challenge_items_are_multiple_choice(tmp_path: Path) -> None:
    benchmark = ChallengeHallucination(CHALLENGE_HALLUCINATION.write(tmp_path))
    examples = list(benchmark.load("train"))
    assert [e.gold for e in examples] == [0, 1, 2, 3, 0, 1, 2, 3]
    third = examples[2]
    assert (third.id, third.group, third.category) == ("train-3", "2.jpg", "hallucination")
    assert third.options == ("No hallucination", "blue wire shelf", "two lamps", "a rug")
    assert "Caption: A room with a blue wire shelf" in third.prompt()
    assert examples[0].category == "none"
    assert [len(list(benchmark.load(split))) for split in ("validation", "test")] == [2, 1]


def test_challenge_parts_one_by_one(tmp_path: Path) -> None:
    """Of eight captions two have no hallucination (all parts No), six have one wrong part of three."""
    folder = CHALLENGE_HALLUCINATION.write(tmp_path)
    benchmark = ChallengeHallucination(folder, form="per_option")
    examples = list(benchmark.load("train"))
    assert len(examples) == 8 * 3
    assert Counter(e.options[e.gold] for e in examples) == {"Yes": 6, "No": 18}
    assert examples[3].question == "Is this part of the caption hallucinated: blue wire shelf?"
    assert examples[3].gold == 0  # the second caption's right choice is B
    right = [True] * 24
    right[4] = right[5] = False  # both in the second caption
    scorer = benchmark.protocols()["per_caption"]
    assert scorer(answers(examples, right)) == {"exact_match": 7 / 8}
    assert ChallengeHallucination(folder).protocols() == {}
    with pytest.raises(DataError, match="no answers"):
        hallucination.per_caption([])


def test_several_hallucinated_parts_need_the_multi_label_form(tmp_path: Path) -> None:
    answer = {"correct_choice": ["B", "D"], "correct_answer": ["blue wire shelf", "a rug"]}
    row = {**CHALLENGE_HALLUCINATION.rows[1], **answer}
    folder = CHALLENGE_HALLUCINATION.write(tmp_path, json.dumps([row]).encode())
    with pytest.raises(DataError, match=r"train\.json: item 1: correct_choice names 2 options.*form=per_option"):
        list(ChallengeHallucination(folder).load("train"))
    assert [e.gold for e in ChallengeHallucination(folder, form="per_option").load("train")] == [0, 1, 0]


def test_challenge_verdicts(tmp_path: Path) -> None:
    """Bare texts or truth values as choices, in any order, and items in the site's wrapper."""
    turned = CHALLENGE_FACTUALITY.rows[1] | {
        "choices": ["Not Verifiable", True, False, "partially true"],
        "correct_choice": "B",
    }
    turned |= {"correct_answer": True}
    folder = CHALLENGE_FACTUALITY.write(tmp_path, json.dumps([{"metadata": turned}]).encode())
    example = next(iter(ChallengeFactuality(folder).load("test")))
    assert (example.options, example.gold) == (("True", "False", "Partially True", "Not Verifiable"), 0)
    assert (example.category, example.context) == ("True", "It was built in 1910.")


@pytest.mark.parametrize("depth", ["root", "task", "flat"])
def test_where_the_challenges_files_may_lie(depth: str, tmp_path: Path) -> None:
    """The folder of both tasks; a task's own, its words apart; or all files in one folder."""
    folder = CHALLENGE_HALLUCINATION.write(tmp_path) / "HallucinationDetection"
    if depth == "flat":
        for file in (folder / "json").iterdir():
            file.rename(folder / file.name)
        (folder / "json").rmdir()
        (folder / "val.json").rename(folder / "validation.json")
    elif depth == "root":
        folder = folder.rename(tmp_path / "Hallucination Detection").parent
    benchmark = ChallengeHallucination(folder)
    assert [len(list(benchmark.load(split))) for split in benchmark.splits] == [8, 2, 1]
    assert all(e.load_image().size == (8, 8) for e in benchmark.load("train"))


def test_without_a_validation_file_images_are_drawn_for_it(tmp_path: Path) -> None:
    train_only = {"Fact Checking/json/train.json": [claim(number, "B") for number in range(34)]}
    benchmark = ChallengeFactuality(replace(CHALLENGE_FACTUALITY, others=train_only).write(tmp_path))
    train, validation = ({e.group for e in benchmark.load(split)} for split in ("train", "validation"))
    assert len(train) + len(validation) == 34
    assert train.isdisjoint(validation)
    assert validation
    assert train > validation or len(train) > len(validation)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"correct_answer": "two lamps"}, "correct_answer 'two lamps' is not the text of choice B, 'blue wire shelf'"),
        ({"correct_choice": "E"}, "correct_choice is 'E', expected one of 'A', 'B', 'C', 'D'"),
        ({"correct_choice": None}, "correct_choice is None, expected a letter, or several in a list"),
        ({"choices": []}, "choices is .., expected a list of 2 to 26 items"),
        ({"choices": ["a", "a"]}, "choices holds one text twice"),
        ({"image_id": "../1.jpg"}, "image is '../1.jpg', expected the name of a file inside"),
        ({"image_id": 3}, "image_id is 3, expected a text"),
    ],
)
def test_challenge_items_that_contradict_themselves(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    row = CHALLENGE_HALLUCINATION.rows[1] | change
    folder = CHALLENGE_HALLUCINATION.write(tmp_path, json.dumps([row]).encode())
    with pytest.raises(DataError, match=rf"train\.json: item 1: {says}"):
        list(ChallengeHallucination(folder).load("train"))


# ----------------------------------------------------------------------------------------- MHaluBench


def test_claims_and_segments(tmp_path: Path) -> None:
    folder = MHALUBENCH.write(tmp_path)
    claims = list(MHaluBench(folder).load("test"))
    assert (len(claims), Counter(e.gold for e in claims)) == (15, {0: 5, 1: 10})
    assert (claims[2].id, claims[2].claim) == ("val-1-1-1", "The cat weighs 0 kilograms.")
    assert claims[-1].image == folder / "data" / "text-to-image" / "4.jpg"
    assert (claims[-1].category, claims[-1].group) == ("text-to-image", "4.jpg")
    segments = list(MHaluBench(folder, level="segment").load("test"))
    assert [(e.claim, e.gold) for e in segments[:2]] == [
        ("A cat sleeps.", 1),
        ("It is red and weighs 0 kilograms.", 0),
    ]
    with pytest.raises(DataError, match=r"MHaluBench_val-v0\.2\.json: does not exist"):
        list(MHaluBench(folder, version="v0.2").load("test"))


def test_mhalubench_figures(tmp_path: Path) -> None:
    """Of nine claims on images three are wrong; all said to be right but one of the three: 7/9, F1 1/2 and 6/7."""
    examples = list(MHaluBench(MHALUBENCH.write(tmp_path)).load("test"))
    right = [e.gold != 0 for e in examples]
    right[2] = True
    figures = mhalubench.official(answers(examples, right))
    assert figures["image-to-text/accuracy"] == pytest.approx(7 / 9)
    assert figures["image-to-text/precision"] == pytest.approx((1 + 6 / 8) / 2)
    assert figures["image-to-text/recall"] == pytest.approx((1 / 3 + 1) / 2)
    assert figures["image-to-text/f1_score"] == pytest.approx((1 / 2 + 6 / 7) / 2)
    assert figures["text-to-image/f1_score"] == pytest.approx((0 + 4 / 5) / 2)


def test_training_claims_leave_the_benchmarks_images_out(tmp_path: Path) -> None:
    rows = [
        {
            "id": n,
            "image_path": f"/TextVQA/{n}.jpg",  # 0 to 4 are the benchmark's
            "claim_list": ["one", "two"],
            "ref_claim_label": ["hallucination", "non-hallucination"],
        }
        for n in range(60)
    ]
    folder = MHALUBENCH.write(tmp_path)
    (folder / "MHaluBench_train.json").write_text(json.dumps(rows))
    benchmark = MHaluBench(folder, train=True)
    groups = {split: {e.group for e in benchmark.load(split)} for split in benchmark.splits}
    assert list(groups) == ["train", "validation", "test"]
    assert len(groups["train"] | groups["validation"]) == 55
    assert groups["train"].isdisjoint(groups["validation"] | groups["test"])
    assert MHaluBench(folder).splits == ("test",)
    with pytest.raises(ConfigError, match="train = true goes with level = 'claim'"):
        MHaluBench(folder, level="segment", train=True)
    (folder / "MHaluBench_train.json").write_text(json.dumps([rows[7] | {"ref_claim_label": ["hallucination"]}]))
    with pytest.raises(DataError, match=r"MHaluBench_train\.json: item 1: ref_claim_label .* a list of 2 to 2 items"):
        list(benchmark.load("train"))


# --------------------------------------------------------------------------------------------- VERITE


def test_the_real_verite() -> None:
    folder = published("verite")
    examples = list(VERITE(folder).load("test"))
    assert Counter(e.category for e in examples) == {"true": 338, "miscaptioned": 338, "out-of-context": 325}
    assert len({e.image for e in examples}) == 663
    assert len({e.group for e in examples}) == 338
    rows = list(csv.DictReader((folder / "VERITE.csv").open(newline="")))
    assert [e.image for e in examples] == [folder / row["image_path"] for row in rows]
    assert all(e.options[e.gold].lower().replace(" ", "-") == e.category for e in examples)


def test_verite_figures(tmp_path: Path) -> None:
    """Nine pairs, a wrong answer on one true and one miscaptioned pair: 7/9; of true and OOC 5/6, and MC 4/6."""
    for form in ("three_way", "binary"):
        examples = list(VERITE(VERITE_.write(tmp_path), form=form).load("test"))  # type: ignore[arg-type]
        right = [True] * 9
        right[0] = right[4] = False
        assert verite.official(answers(examples, right)) == {
            "accuracy": 7 / 9,
            "true_vs_miscaptioned": 4 / 6,
            "true_vs_out_of_context": 5 / 6,
        }
    assert [e.options[e.gold] for e in examples[:3]] == ["Yes", "No", "No"]


# ----------------------------------------------------------------------------------------- SugarCrepe


def test_the_real_sugar_crepe() -> None:
    folder = published("sugar_crepe")
    examples = list(SugarCrepe(folder).load("test"))
    assert len(examples) == SugarCrepe.published["test"] == 7511
    assert Counter(e.category for e in examples)["replace_rel"] == 1406
    # The right caption is at either place about as often: 3 standard deviations of a fair coin are 1.7 points.
    assert abs(sum(e.gold for e in examples) / 7511 - 0.5) < 0.017
    for part in sugar_crepe.PARTS:
        rows = json.loads((folder / f"{part}.json").read_text())
        of_part = [e for e in examples if e.category == part]
        assert [e.options[e.gold] for e in of_part] == [" ".join(r["caption"].split()) for r in rows.values()]
        assert [e.options[1 - e.gold] for e in of_part] == [
            " ".join(r["negative_caption"].split()) for r in rows.values()
        ]


def test_the_order_of_a_pair_is_its_ids_alone(tmp_path: Path) -> None:
    folder = SUGAR_CREPE.write(tmp_path)
    first = list(SUGAR_CREPE.make(folder).load("test"))
    assert first == list(SUGAR_CREPE.make(folder).load("test"))
    folder = SUGAR_CREPE.write(tmp_path, encoded("table", SUGAR_CREPE.rows[:3]))
    assert list(SUGAR_CREPE.make(folder).load("test")) == first[:3]


def test_sugar_crepe_figures() -> None:
    def answer(part: str, right: bool) -> Answer:
        return Answer("x", "g", part, ("a", "b"), 0, 0 if right else 1, "a" if right else "b")

    parts = [("swap_obj", True), ("swap_att", True), ("swap_att", False), ("add_obj", False)]
    assert sugar_crepe.official([answer(*part) for part in parts]) == {
        "swap_obj": 1.0,
        "swap_att": 0.5,
        "add_obj": 0.0,
        "swap_mean": 0.75,
        "add_mean": 0.0,
    }


# ------------------------------------------------------------------------------------------ HaloQuest


def test_the_real_haloquest() -> None:
    """588 of 608 rows: labels and references of the others contradict each other."""
    folder = published("haloquest")
    examples = list(HaloQuest(folder).load("test"))
    assert Counter((e.category, e.options[e.gold]) for e in examples) == {
        ("false premises", "It can't be answered"): 302,
        ("insufficient context", "It can't be answered"): 121,
        ("visual challenge", "It can be answered"): 165,
    }
    rows = {row[""]: row for row in csv.DictReader((folder / "haloquest-eval.csv").open(newline=""))}
    assert len(rows) == 608
    left_out = [row for number, row in rows.items() if f"eval-{number}" not in {e.id for e in examples}]
    assert sum(row["hallucination type"] == "visual challenge" for row in left_out) == 18
    moon = next(row for row in left_out if "moon" in row["question"])
    assert moon["groundtruth responses"].startswith("There is no moon in this picture.")


def test_a_contradicting_row_is_left_out(tmp_path: Path) -> None:
    examples = list(HaloQuest(HALOQUEST.write(tmp_path)).load("test"))
    assert [e.gold for e in examples] == [1, 0, 1, 0]  # the fifth row is a visual challenge that nobody can answer
    assert "Question: What colour is the hat of person 0?" in examples[0].prompt()


def test_haloquests_training_file(tmp_path: Path) -> None:
    rows = [HALOQUEST.rows[1] | {"": str(n), "image_name": f"{n}.png", "split": "train"} for n in range(60)]
    folder = HALOQUEST.write(tmp_path)
    (folder / "haloquest-train.csv").write_bytes(encoded("csv", rows))
    benchmark = HaloQuest(folder, train=True)
    groups = {split: {e.group for e in benchmark.load(split)} for split in benchmark.splits}
    assert len(groups["train"] | groups["validation"]) == 55  # 0.png to 4.png are in the evaluation file
    assert groups["train"].isdisjoint(groups["validation"] | groups["test"])


# --------------------------------------------------------------------------------------- NaturalBench


def test_a_sample_makes_four_examples(tmp_path: Path) -> None:
    examples = list(NaturalBench(NATURALBENCH.write(tmp_path)).load("test"))
    assert [e.id for e in examples[:4]] == ["0-q0-i0", "0-q0-i1", "0-q1-i0", "0-q1-i1"]
    assert [e.options[e.gold] for e in examples[:4]] == ["Yes", "No", "No", "Yes"]
    assert [e.load_image().getpixel((0, 0)) for e in examples[:4]] == [
        (0, 100, 200),
        (1, 100, 200),
        (0, 100, 200),
        (1, 100, 200),
    ]
    assert (examples[8].question, examples[8].options) == ("What is it?", ("A dog.", "A cat."))
    assert [e.gold for e in examples[8:]] == [0, 1, 1, 0]


def test_the_older_name_of_naturalbenchs_type(tmp_path: Path) -> None:
    rows = [{"Question Type" if key == "Question_Type" else key: v for key, v in NATURALBENCH.rows[2].items()}]
    examples = NaturalBench(NATURALBENCH.write(tmp_path, encoded("parquet", rows))).load("test")
    assert [e.category for e in examples] == ["multiple_choice"] * 4


def test_options_that_cannot_be_told_apart_stay_in_the_question(tmp_path: Path) -> None:
    rows = [dict(NATURALBENCH.rows[2], Question_0="Which of both, A or B?")]
    example = next(iter(NaturalBench(NATURALBENCH.write(tmp_path, encoded("parquet", rows))).load("test")))
    assert (example.question, example.options) == ("Which of both, A or B?", ("A", "B"))


def test_naturalbench_figures(tmp_path: Path) -> None:
    """Three samples: all right; one of four wrong; both answers about the second image wrong.

    acc 9/12; questions 2 + 1 + 0 of 6; images 2 + 1 + 1 of 6; samples 1 of 3.
    """
    examples = list(NaturalBench(NATURALBENCH.write(tmp_path)).load("test"))
    right = [True, True, True, True, True, False, True, True, True, False, True, False]
    figures = naturalbench.official(answers(examples, right))
    assert figures == pytest.approx({"acc": 9 / 12, "q_acc": 3 / 6, "i_acc": 4 / 6, "g_acc": 1 / 3})
    part = naturalbench.official(answers(examples[:3], [True, False, True]))  # one image's second question is missing
    assert part == pytest.approx({"acc": 2 / 3, "q_acc": 0.0, "i_acc": 1.0})


@pytest.mark.parametrize(
    ("category", "text", "said"),
    [
        ("yes_no", "Yes.", 0),
        ("yes_no", "no, yes", 1),
        ("yes_no", "I know nothing", None),
        ("multiple_choice", "(B)", 1),
        ("multiple_choice", "It is a B", 0),  # the article counts as A, as in the original
        ("multiple_choice", "Cat", None),
    ],
)
def test_how_naturalbench_reads_a_text(category: str, text: str, said: int | None) -> None:
    assert naturalbench.read(Answer("x", "g", category, ("Yes", "No"), 0, -1, text)) == said


def test_a_question_with_one_answer_for_both_images(tmp_path: Path) -> None:
    rows = [dict(NATURALBENCH.rows[0], Image_1_Question_0="Yes")]
    with pytest.raises(DataError, match="item 1: Question_0 has one answer for both images"):
        list(NaturalBench(NATURALBENCH.write(tmp_path, encoded("parquet", rows))).load("test"))


# ----------------------------------------------------------------------------------------- MFC-Bench


def test_the_three_parts_of_mfc_bench(tmp_path: Path) -> None:
    MFC_BENCH.write(tmp_path)
    parts: dict[str, list[dict[str, Any]]] = {
        "ooc": [
            {"image_id": n // 2, "id": n, "caption": f"c {n}", "matched": n % 2 == 0, "image": cell(n)}
            for n in range(4)
        ],
        "veracity": [
            {
                "evidence_id": f"e{n}",
                "topic": n,
                "document_id": f"d{n}",
                "relevancy": n % 2,
                "claim": f"c {n}",
                "image": cell(n),
            }
            for n in range(4)
        ],
    }
    for part, rows in parts.items():
        replace(MFC_BENCH, file=f"{part}/train-00000-of-00001.parquet", rows=rows).write(tmp_path)
    golds = {}
    for part in ("manipulation", "ooc", "veracity"):
        examples = list(MFCBench(tmp_path, part=part).load("test"))  # type: ignore[arg-type]
        golds[part] = [(e.options[e.gold], e.category) for e in examples]
        assert len({e.load_image().getpixel((0, 0)) for e in examples}) == 4
    assert golds == {
        "manipulation": [("No", "authentic"), ("Yes", "face swap")] * 2,
        "ooc": [("No", "matched"), ("Yes", "mismatched")] * 2,
        "veracity": [("Yes", "false"), ("No", "true")] * 2,
    }


def test_an_id_of_mfc_bench_that_comes_with_another_text(tmp_path: Path) -> None:
    """It gets the row's number; the same row again is an error."""
    rows = [*MFC_BENCH.rows[:2], {**MFC_BENCH.rows[0], "caption": "Another one."}]
    folder = MFC_BENCH.write(tmp_path / "once", encoded("parquet", rows))
    assert [e.id for e in MFCBench(folder).load("test")] == ["m0", "m1", "m0-2"]
    folder = MFC_BENCH.write(tmp_path / "twice", encoded("parquet", [*rows, MFC_BENCH.rows[1]]))
    with pytest.raises(DataError, match="item 4: the id .* is already that of .* item 2"):
        list(MFCBench(folder).load("test"))


def test_mfc_bench_figures() -> None:
    """Two Yes, one found; two No, both found. F1 of Yes 2/3, of No 4/5."""

    def answer(gold: int, chosen: int) -> Answer:
        return Answer("x", "g", "c", ("Yes", "No"), gold, chosen, "")

    figures = mfc_bench.official([answer(0, 0), answer(0, 1), answer(1, 1), answer(1, 1)])
    assert figures == pytest.approx({"accuracy": 3 / 4, "macro_f1": (2 / 3 + 4 / 5) / 2})


# ---------------------------------------------------------------------------------------- repositories


@pytest.mark.parametrize(
    ("repo", "revision", "says"),
    [
        ("", "", "give their folder with --data-dir, or a Hugging Face repository"),
        ("nobody", "0" * 40, "repo = 'nobody', expected OWNER/NAME"),
        ("owner/name", "main", "repo_revision = 'main', expected the 40 hex digits of a commit"),
    ],
)
def test_a_repository_is_pinned(repo: str, revision: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        list(NaturalBench(repo=repo, repo_revision=revision).load("test"))


def test_a_folder_and_a_repository_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        list(NaturalBench(NATURALBENCH.write(tmp_path), repo="owner/name").load("test"))


def test_a_repository_goes_through_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub here: what is asked of `datasets` is checked, and a table of a local folder stands in for its answer."""
    import datasets

    from benchmarks.shared import hf_datasets

    hf_datasets._open.cache_clear()
    NATURALBENCH.write(tmp_path)
    asked: list[Any] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return real("parquet", data_files=[str(tmp_path / NATURALBENCH.file)], split="train")

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load)
    examples = list(NaturalBench(repo="BaiqiL/NaturalBench").load("test"))
    commit = "21c415e3d60cdbabad4a02feaa2e4643789612f4"
    assert asked == [(("BaiqiL/NaturalBench", None), {"split": "train", "revision": commit})]
    assert examples[1].load_image().getpixel((0, 0)) == (1, 100, 200)
    hf_datasets._open.cache_clear()


def test_an_unreachable_repository_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"^owner/name@00000000, split train: can't be loaded \(ConnectionError: .*Hub\)$"
    ):
        list(NaturalBench(repo="owner/name", repo_revision="0" * 40).load("test"))
