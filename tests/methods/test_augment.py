"""Augmentation: the gold stays true, the draw is the rng's alone, and image changes are lazy and mild."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from harness.api import DataError, Example
from methods.augment import PARAPHRASES, Distorted, augment
from methods.hkd4vlm.method import HKD4VLM

NO = "No hallucination"
OFF = {
    "shuffle_options": False,
    "fixed_first": True,
    "paraphrase": False,
    "resize": False,
    "degrade": False,
    "truncate_context": False,
}


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


def every(switch: str, count: int = 50, **changes: object) -> list[Example]:
    return [augment(example(**changes), random.Random(i), **OFF | {switch: True}) for i in range(count)]


def test_everything_off_is_the_same_example() -> None:
    original = example()
    assert augment(original, random.Random(0), **OFF) is original
    assert HKD4VLM(augmentation=False).augment(original, random.Random(0)) is original


def test_the_draw_is_a_function_of_the_rng() -> None:
    method = HKD4VLM(truncate_context=True)
    state = random.getstate()
    first = [method.augment(example(), random.Random(i)) for i in range(20)]
    assert first == [method.augment(example(), random.Random(i)) for i in range(20)]
    assert len({(e.options, e.question, e.context, e.image) for e in first}) > 10
    assert random.getstate() == state


def test_shuffled_options_keep_gold_and_no_hallucination() -> None:
    shuffled = every("shuffle_options")
    assert all(e.options[0] == NO and e.options[e.gold] == "ball" for e in shuffled)
    assert {e.gold for e in shuffled} == {1, 2, 3}
    free = [augment(example(), random.Random(i), **OFF | {"shuffle_options": True, "fixed_first": False})
            for i in range(50)]  # fmt: skip
    assert {e.gold for e in free} == {0, 1, 2, 3}
    assert all(e.options[e.gold] == "ball" for e in free)


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
    for switch in ("resize", "degrade"):
        changed = every(switch)
        assert {(e.id, e.group, e.claim, e.question, e.options, e.gold) for e in changed} == {
            ("e1", "i1", "a red ball", "Which part is wrong?", (NO, "red", "ball", "left"), 2)
        }
        assert 0 < sum(e.image is scene for e in changed) < 50  # an untouched image keeps its source


@pytest.mark.parametrize("switch", ["resize", "degrade"])
def test_image_changes_are_mild_and_keep_the_whole_scene(switch: str) -> None:
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
