"""Augmentation: the gold stays true, the draw is the rng's alone, and image changes are lazy and mild."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from harness.api import Augmentation, DataError, Example
from harness.data.augmentation import PARAPHRASES, Distorted, augment
from harness.data.options import fixed_options, shuffled

NO = "No hallucination"
EVERYTHING: tuple[Augmentation, ...] = ("paraphrase", "resize", "degrade", "truncate_context")


def scene() -> Image.Image:
    """A red square in a grey field, 64 pixels."""
    image = Image.new("RGB", (64, 64), (120, 120, 120))
    ImageDraw.Draw(image).rectangle((4, 40, 15, 51), fill=(230, 20, 20))
    return image


def example(**changes: object) -> Example:
    settings: dict[str, object] = {
        "id": "e1",
        "group": "i1",
        "image": scene,
        "question": "Which part is wrong?",
        "claim": "a red ball",
        "options": (NO, "red", "ball", "left"),
        "gold": 2,
        "category": "object",
        "source": "test",
        "context": "One. Two! Three? Four.",
    }
    return Example(**settings | changes)  # type: ignore[arg-type]


def every(name: Augmentation, count: int = 50, **changes: object) -> list[Example]:
    return [augment(example(**changes), random.Random(i), (name,)) for i in range(count)]


def test_without_augmentations_it_is_the_same_example() -> None:
    original = example()
    assert augment(original, random.Random(0), ()) is original


def test_the_draw_is_a_function_of_the_rng() -> None:
    state = random.getstate()
    first = [augment(example(), random.Random(i), EVERYTHING) for i in range(20)]
    assert first == [augment(example(), random.Random(i), EVERYTHING) for i in range(20)]
    assert len({(e.options, e.question, e.context, e.image) for e in first}) > 10
    assert random.getstate() == state


def test_shuffled_options_keep_no_hallucination_and_verdicts() -> None:
    options = (NO, "red", "ball", "left")
    orders = {shuffled(options, "content", random.Random(i)) for i in range(50)}
    assert len(orders) == 6
    assert {order[0] for order in orders} == {0}
    assert {shuffled(options, "all", random.Random(i))[0] for i in range(50)} == {0, 1, 2, 3}
    verdicts = ("True", "False", "Partially True", "Not Verifiable")
    assert {shuffled(verdicts, "content", random.Random(i)) for i in range(50)} == {(0, 1, 2, 3)}
    assert len({shuffled(verdicts, "all", random.Random(i)) for i in range(200)}) == 24


def test_which_options_keep_their_letter() -> None:
    assert fixed_options((NO, "red"), "content") == 1
    assert fixed_options(("no hallucination ", "red"), "content") == 1
    assert fixed_options((NO, "red"), "all") == 0
    assert fixed_options(("red", NO), "content") == 0
    assert fixed_options(("yes", "no"), "content") == 2
    assert fixed_options(("yes", "no", "a red ring"), "content") == 0  # one that is no verdict: a list of contents


def test_paraphrase_keeps_the_question_in_its_frame() -> None:
    questions = {e.question for e in every("paraphrase", question="Is {this} so?")}
    assert questions == {frame.replace("{question}", "Is {this} so?") for frame in PARAPHRASES}


def test_truncation_drops_a_tail_of_at_most_half() -> None:
    assert {e.context for e in every("truncate_context")} == {
        "One. Two!",
        "One. Two! Three?",
        "One. Two! Three? Four.",
    }
    assert {e.context for e in every("truncate_context", context="Only one.")} == {"Only one."}


def test_no_switch_changes_image_claim_and_identity() -> None:
    names: tuple[Augmentation, ...] = ("resize", "degrade")
    for name in names:
        changed = every(name)
        assert {(e.id, e.group, e.claim, e.question, e.options, e.gold) for e in changed} == {
            ("e1", "i1", "a red ball", "Which part is wrong?", (NO, "red", "ball", "left"), 2)
        }
        assert 0 < sum(e.image is scene for e in changed) < 50  # an untouched image keeps its source


@pytest.mark.parametrize("switch", ["resize", "degrade"])
def test_image_changes_are_mild_and_keep_the_whole_scene(switch: Augmentation) -> None:
    """Same size, the square still red, still at lower left, and of much the same area (144 pixels)."""
    for changed in every(switch):
        image = pickle.loads(pickle.dumps(changed)).load_image()
        assert (image.mode, image.size) == ("RGB", (64, 64))
        assert image.tobytes() == changed.load_image().tobytes()
        pixels = np.asarray(image).astype(int)
        rows, columns = np.nonzero((pixels[..., 0] > 170) & (pixels[..., 1] < 80))
        assert 100 <= len(rows) <= 160
        assert abs(rows.mean() - 45.5) <= 4
        assert abs(columns.mean() - 9.5) <= 4


def test_nothing_is_cut_off_by_shrinking() -> None:
    """A one-pixel frame around a scene of 100 pixels is still there on all four sides, at any place."""
    framed = Image.new("RGB", (100, 80), (0, 0, 0))
    ImageDraw.Draw(framed).rectangle((0, 0, 99, 79), outline=(255, 255, 255))
    framed.putpixel((0, 0), (0, 0, 0))  # what the border is filled with
    for at in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        pixels = np.asarray(Distorted(framed.copy, shrink=0.06, at=at)())[..., 0]
        rows, columns = np.nonzero(pixels > 60)
        assert (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1) == (75, 94)


def test_files_and_bytes_are_sources_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    scene().save(buffer, "PNG")
    (tmp_path / "scene.png").write_bytes(buffer.getvalue())
    want = Distorted(scene, blur=0.004)().tobytes()
    assert Distorted(buffer.getvalue(), blur=0.004)().tobytes() == want
    assert Distorted(tmp_path / "scene.png", blur=0.004)().tobytes() == want


@pytest.mark.parametrize("source", [Path("missing.png"), b"not an image"])
def test_a_broken_source_is_still_a_data_error(source: Path | bytes) -> None:
    with pytest.raises(DataError, match="'e1'"):
        example(image=Distorted(source, jpeg=80)).load_image()
