"""NLVR: the authors' figures, splits that share nothing, and clear words for damaged files."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.nlvr import NLVR, SquareImage, figures, official
from harness.api import Answer, ConfigError, DataError
from harness.data import dataset, leakage

SQUARE = {"type": "square", "size": 20, "color": "Black", "x_loc": 40, "y_loc": 80}
CIRCLE = {"type": "circle", "size": 10, "color": "Yellow", "x_loc": 3, "y_loc": 5}


def row(identifier: str, directory: int, sentence: str, label: str = "true", **more: Any) -> dict[str, Any]:
    """An item as published; every item has boxes of its own unless `structured_rep` is given."""
    unique = {**SQUARE, "y_loc": identifier}
    scene = {"structured_rep": [[unique], [SQUARE], [SQUARE]]}
    fields = {"identifier": identifier, "directory": str(directory), "sentence": sentence, "label": label}
    return {**scene, **fields, **more}


def write(folder: Path, rows: list[dict[str, Any]], part: str = "dev") -> Path:
    """A small data set in the published layout; the images are empty files, which `load` never opens."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / part / f"{part}.json").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for r in rows:
        images = folder / part / "images" / r["directory"]
        images.mkdir(parents=True, exist_ok=True)
        for k in range(6):
            (images / f"{part}-{r['identifier']}-{k}.png").touch()
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One sentence in each of the directories 0, 4 and 5: two items, one and one."""
    rows = [row("1-0", 0, "a"), row("1-1", 0, "a", "false"), row("2-0", 4, "b"), row("3-0", 5, "c", "False")]
    return write(tmp_path, rows)


# ------------------------------------------------------------------------------------------- scoring


def test_accuracy_is_over_images_and_consistency_over_sentences() -> None:
    # Sentence 7: one of its three images is wrong. Sentence 9: its only image is right.
    right = [("7", True), ("7", True), ("7", False), ("9", True)]
    assert figures(right) == {"accuracy": 3 / 4, "consistency": 1 / 2}


def test_the_protocol_reads_answers() -> None:
    def answer(group: str, k: int, chosen: int) -> Answer:
        options = ("True", "False")
        return Answer(f"dev-{group}-{k}-0", group, "tower", options, gold=0, chosen=chosen, text=options[chosen])

    answers = [answer("7", 0, 0), answer("7", 1, 1), answer("12", 0, 0)]
    assert official(answers) == {"accuracy": 2 / 3, "consistency": 1 / 2}
    assert NLVR().protocols()["official"] is official


def test_no_answers_are_an_error() -> None:
    with pytest.raises(DataError, match="no answers"):
        official([])


def same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours["accuracy"] == pytest.approx(theirs["precision"], abs=1e-12)
    assert ours["consistency"] == pytest.approx(theirs["consistency"], abs=1e-12)


def test_the_protocol_gives_the_published_figures(golden: Path, nlvr_dir: Path) -> None:
    """The whole path: our examples of all three splits, the authors' predictions, their figures."""
    published = json.loads((golden / "nlvr_images_correlated.json").read_text())
    bench = NLVR(nlvr_dir)
    answers = []
    for split in bench.splits:
        for e in bench.load(split):
            said = published["predictions"][f"{e.id}.png"]
            chosen = ("true", "false").index(said)
            answers.append(Answer(e.id, e.group, e.category, e.options, e.gold, chosen, said))
    assert len(answers) == 5934
    same(official(answers), published["scores"])


# -------------------------------------------------------------------------------------------- splits


def test_an_example(small: Path) -> None:
    examples = list(NLVR(small).load("test"))
    assert len(examples) == 6
    first = examples[0]
    assert (first.id, first.group, first.claim) == ("dev-3-0-0", "3", "c")
    assert (first.options[first.gold], first.category) == ("False", "tower")
    assert first.image == small / "dev" / "images" / "5" / "dev-3-0-0.png"


def test_images_per_item_bounds_train_only(small: Path) -> None:
    bench = NLVR(small, images_per_item=2)
    assert [e.id for e in bench.load("train")] == ["dev-1-0-0", "dev-1-0-1", "dev-1-1-0", "dev-1-1-1"]
    assert len(list(bench.load("validation"))) == 6
    with pytest.raises(ConfigError, match="images_per_item = 7"):
        NLVR(small, images_per_item=7)


def test_scatter_scenes_are_a_category(tmp_path: Path) -> None:
    write(tmp_path, [row("1-0", 5, "a", structured_rep=[[SQUARE], [CIRCLE], [SQUARE]])])
    assert {e.category for e in NLVR(tmp_path).load("test")} == {"scatter"}


def items_of(bench: NLVR) -> dict[str, set[str]]:
    """The identifiers of the items in each split."""
    return {split: {bench.names(e)[2] for e in bench.load(split)} for split in bench.splits}


def test_all_images_of_a_sentence_are_one_group(small: Path) -> None:
    """Two items about one sentence, six orders each: one unit of statistics, and labelled together or not at all."""
    train = list(NLVR(small).load("train"))
    assert {e.group for e in train} == {"1"}
    assert [NLVR().names(e) for e in train[5:7]] == [
        ("dev-1-0-5", "dev-1-0-5.png", "1-0"),
        ("dev-1-1-0", "dev-1-1-0.png", "1-1"),
    ]


def test_one_text_under_two_numbers_stays_together(tmp_path: Path) -> None:
    """Numbers 1 (three items, directory 0) and 5 (one item, directory 5) say the same: all go to train."""
    rows = [row(f"1-{k}", 0, "There is a tower.") for k in range(3)]
    rows += [row("5-0", 5, "there is a  Tower"), row("2-0", 4, "b"), row("3-0", 5, "c")]
    assert items_of(NLVR(write(tmp_path, rows))) == {
        "train": {"1-0", "1-1", "1-2", "5-0"},
        "validation": {"2-0"},
        "test": {"3-0"},
    }


def test_one_image_set_under_two_numbers_stays_together(tmp_path: Path) -> None:
    """The same boxes in another order, objects too: a tie, so the lower directory (4) takes both."""
    rows = [row("1-0", 0, "a"), row("3-1", 5, "c"), row("4-0", 5, "d")]
    rows[1]["structured_rep"] = [[SQUARE, CIRCLE], [CIRCLE], []]
    rows.append(row("2-0", 4, "b", structured_rep=[[CIRCLE], [], [CIRCLE, SQUARE]]))
    assert items_of(NLVR(write(tmp_path, rows))) == {
        "train": {"1-0"},
        "validation": {"3-1", "2-0"},
        "test": {"4-0"},
    }


def test_the_published_test_set_displaces_what_it_shares(tmp_path: Path) -> None:
    rows = [
        row("1-0", 0, "a"),
        row("2-0", 4, "b"),
        row("2-1", 4, "b"),
        row("3-0", 5, "c"),
        row("6-0", 1, "z"),
    ]
    write(tmp_path, rows)
    write(tmp_path, [row("901-0", 2, "new"), row("902-0", 2, "Z!")], part="test")
    assert items_of(NLVR(tmp_path, official_test=True)) == {
        "train": {"1-0"},  # 6-0 says what the test set's 902-0 says
        "validation": {"2-0", "2-1", "3-0"},
        "test": {"901-0", "902-0"},
    }


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Five training items, two of dev, one of test. Train's 2-0 says what dev's 11-0 says, its 3-1 has the image set
    of the test item, its 4-0 has the text of the test item; dev's 12-0 has it, too."""
    tested = row("21-0", 7, "There is a tower.", structured_rep=[[CIRCLE], [], [SQUARE]])
    train = [row("1-0", 0, "a"), row("1-1", 0, "a", "false"), row("2-0", 4, "B?"), row("3-1", 78, "c")]
    train[3]["structured_rep"] = [[SQUARE], [CIRCLE], []]
    write(tmp_path, [*train, row("4-0", 5, "there is a tower")], part="train")
    write(tmp_path, [row("11-0", 1, "b"), row("12-0", 2, "There is a  tower")])
    return write(tmp_path, [tested], part="test")


def test_the_published_splits_without_what_a_later_one_has(published: Path) -> None:
    bench = NLVR(published, official_train="disjoint")
    assert items_of(bench) == {"train": {"1-0", "1-1"}, "validation": {"11-0"}, "test": {"21-0"}}
    train = list(bench.load("train"))
    assert [e.id for e in train] == [f"train-1-{m}-{k}" for m in (0, 1) for k in range(6)]
    assert train[6].image == published / "train" / "images" / "0" / "train-1-1-0.png"
    assert {e.source for e in train} == {"nlvr/train"}


def test_the_published_splits_as_they_are(published: Path) -> None:
    bench = NLVR(published, official_train="all", images_per_item=1)
    train = {"1-0", "1-1", "2-0", "3-1", "4-0"}
    assert items_of(bench) == {"train": train, "validation": {"11-0", "12-0"}, "test": {"21-0"}}
    assert dataset.load(bench).sizes == {"train": 5, "validation": 12, "test": 6}
    leaks = leakage.exact(dataset.load(bench))
    assert leaks["train/test"]["text"] == 6  # the six orders of 21-0 share their text with 4-0


def test_without_the_published_training_set_the_error_says_what_to_get(published: Path, nlvr_dir: Path) -> None:
    need = r"get nlvr/train of https://github\.com/lil-lab/nlvr \(the file and its images\)"
    with pytest.raises(DataError, match=rf"^{nlvr_dir}/train/train\.json: does not exist: {need}$"):
        NLVR(nlvr_dir, official_train="disjoint").load("train")
    shutil.rmtree(published / "train" / "images")
    with pytest.raises(DataError, match=rf"train/images: does not exist: {need}$"):
        NLVR(published, official_train="all").load("train")


def test_missing_training_images_are_counted(published: Path) -> None:
    (published / "train" / "images" / "0" / "train-1-0-3.png").unlink()
    with pytest.raises(DataError, match=r"images of 1 of 12 examples are missing, first .*train-1-0-3\.png"):
        dataset.load(NLVR(published, official_train="disjoint"))


def test_real_splits_share_no_sentence_and_no_image_set(nlvr_dir: Path) -> None:
    lines = (nlvr_dir / "dev" / "dev.json").read_text().splitlines()
    boxes = {}
    for r in map(json.loads, lines):
        scene = [sorted(json.dumps(o, sort_keys=True) for o in box) for box in r["structured_rep"]]
        boxes[r["identifier"]] = json.dumps(sorted(scene))
    bench = NLVR(nlvr_dir)
    examples = {split: list(bench.load(split)) for split in bench.splits}
    assert {s: len(es) for s, es in examples.items()} == {"train": 4236, "validation": 888, "test": 810}

    def letters(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    shared: list[Callable[[Any], str]] = [
        lambda e: e.group,
        lambda e: letters(e.claim),
        lambda e: boxes[bench.names(e)[2]],
        lambda e: e.image,
    ]
    for key in shared:
        train, validation, test = ({key(e) for e in examples[s]} for s in bench.splits)
        assert train.isdisjoint(validation | test)
        assert validation.isdisjoint(test)


# -------------------------------------------------------------------------------------------- images


def test_real_images_open(nlvr_dir: Path) -> None:
    example = next(iter(NLVR(nlvr_dir).load("test")))
    assert (example.load_image().size, example.load_image().mode) == ((400, 100), "RGB")


def test_square_layout_moves_the_boxes_only(tmp_path: Path) -> None:
    """A strip whose boxes are red, green and blue: they come in reading order, grey elsewhere."""
    strip = Image.new("RGB", (400, 100), (128, 128, 128))
    for left, colour in ((0, "red"), (150, "lime"), (300, "blue")):
        strip.paste(colour, (left, 0, left + 100, 100))
    strip.save(tmp_path / "x.png")
    square = pickle.loads(pickle.dumps(SquareImage(tmp_path / "x.png")))()
    assert square.size == (208, 208)
    seen = [square.getpixel(at) for at in ((0, 0), (207, 99), (99, 207), (104, 50), (150, 150))]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (128, 128, 128)]


def test_boxes_are_three_images_of_one_example(small: Path) -> None:
    path = small / "dev" / "images" / "5" / "dev-3-0-0.png"
    strip = Image.new("RGB", (400, 100), (128, 128, 128))
    for left, colour in ((0, "red"), (150, "lime"), (300, "blue")):
        strip.paste(colour, (left, 0, left + 100, 100))
    strip.save(path)
    example = pickle.loads(pickle.dumps(next(iter(NLVR(small, layout="boxes").load("test")))))
    seen = [one.load_image() for one in example.each_image()]
    assert [image.size for image in seen] == [(100, 100)] * 3
    assert [image.getpixel((99, 0)) for image in seen] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_a_strip_of_another_size_names_the_example(small: Path) -> None:
    Image.new("RGB", (10, 10)).save(small / "dev" / "images" / "5" / "dev-3-0-0.png")
    example = next(iter(NLVR(small, layout="square").load("test")))
    with pytest.raises(DataError, match=r"'dev-3-0-0'.*10 x 10 pixels, expected 400 x 100"):
        example.load_image()


def test_a_corrupt_image_names_the_example(small: Path) -> None:
    example = next(iter(NLVR(small).load("test")))
    with pytest.raises(DataError, match="'dev-3-0-0'"):
        example.load_image()


# -------------------------------------------------------------------------------------------- errors


def test_a_missing_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist or is not a folder"):
        NLVR(tmp_path / "nowhere").load("train")
    with pytest.raises(DataError, match=r"dev\.json: does not exist"):
        NLVR(tmp_path).load("train")
    with pytest.raises(ConfigError, match="--data-dir"):
        NLVR().load("train")


def test_missing_images_are_counted_or_skipped(small: Path) -> None:
    for path in small.rglob("*.png"):
        Image.new("RGB", (400, 100)).save(path)
    for k in (2, 4):
        (small / "dev" / "images" / "5" / f"dev-3-0-{k}.png").unlink()
    with pytest.raises(DataError, match=r"images of 2 of 6 examples are missing, first .*dev-3-0-2\.png of example"):
        dataset.load(NLVR(small))
    left = dataset.load(NLVR(small, layout="square"), skip_missing=True)
    assert (left.skipped, left.sizes) == ({"test": 2}, {"train": 12, "validation": 6, "test": 4})


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: an array, expected an object"),
        (json.dumps(row("1-0", 0, "a", "maybe")), "item 2: label is 'maybe', expected one of 'true', 'false'"),
        (json.dumps({**row("1-0", 0, "a"), "label": None}), "item 2: label is None"),
        (json.dumps({**row("1-0", 0, "a"), "label": True}), "item 2: label is True"),
        (json.dumps(row("1-0", 0, " ")), "item 2: sentence is ' '"),
        (
            json.dumps(row("../../1-0", 0, "a")),
            r"item 2: identifier is '\.\./\.\./1-0', expected like '1572-0'",
        ),
        (json.dumps({**row("1-0", 0, "a"), "directory": ".."}), r"item 2: directory is '\.\.'"),
        (json.dumps({**row("1-0", 0, "a"), "structured_rep": None}), "item 2: structured_rep is not a list"),
        (
            json.dumps({**row("1-0", 0, "a"), "structured_rep": [["x"]]}),
            "item 2: structured_rep is not a list",
        ),
        (json.dumps(row("9-9", 0, "a")), "item 2: the id '9-9' is already used by .*item 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, says: str) -> None:
    write(tmp_path, [row("9-9", 0, "fine")])
    with (tmp_path / "dev" / "dev.json").open("a") as file:
        file.write(bad + "\n")
    with pytest.raises(DataError, match=says):
        NLVR(tmp_path).load("train")


def test_an_empty_file_and_an_empty_split(tmp_path: Path) -> None:
    write(tmp_path, [row("1-0", 0, "a")])
    with pytest.raises(DataError, match="the test split of .* is empty"):
        NLVR(tmp_path).load("test")
    (tmp_path / "dev" / "dev.json").write_text("\n")
    with pytest.raises(DataError, match="contains no items"):
        NLVR(tmp_path).load("train")


def test_an_unknown_split() -> None:
    with pytest.raises(ConfigError, match="no split 'ood'"):
        NLVR(Path()).load("ood")
