"""The tiny ladder: its tokenizer, its folders, its pretraining, and the weights that ship with the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.scenes.curriculum import Curriculum, Lesson
from benchmarks.scenes.factuality import ScenesFactuality
from benchmarks.scenes.hallucination import ScenesHallucination
from harness.errors import ConfigError
from harness.models import tiny
from harness.models.pretrain import Recipe, collate, losses, pretrain, verify

WEIGHTS = Path(tiny.__file__).parents[1] / "weights" / "tiny"
WORDS = Curriculum().words()


@pytest.fixture(scope="module")
def text():  # type: ignore[no-untyped-def]
    return tiny.tokenizer(WORDS)


def tokens(text, prompt: str) -> list[str]:  # type: ignore[no-untyped-def]
    return text.convert_ids_to_tokens(text.encode(prompt, add_special_tokens=False))


# ----------------------------------------------------------------------------------------- tokenizer


def test_every_word_of_the_world_is_one_token(text) -> None:  # type: ignore[no-untyped-def]
    assert all(len(tokens(text, word)) == 1 for word in WORDS if word != "a")


def test_option_letters_are_single_tokens_and_a_is_not_the_article(text) -> None:  # type: ignore[no-untyped-def]
    letters = [tokens(text, letter) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    assert all(len(letter) == 1 for letter in letters)
    assert len({letter[0] for letter in letters}) == 26
    assert letters[0] != ["a"]
    asked = tokens(text, "Caption: A ring.\nA. a ring\nB. No hallucination\nAnswer with the letter.\nAnswer:")
    first, end = letters[0][0], "?"
    assert asked == ["caption", "a", "ring", end, first, "a", "ring", end, "b", "no", "hallucination", end, "answer"]


def test_ends_of_sentences_and_lines_are_one_sign(text) -> None:  # type: ignore[no-untyped-def]
    said = tokens(text, "A ring. A star?\nA fish.\n\nTwo")
    assert said == ["a", "ring", "?", "a", "star", "?", "a", "fish", "?", "two"]


def test_a_prompt_ends_in_the_token_after_which_the_letter_stands(text) -> None:  # type: ignore[no-untyped-def]
    assert text.decode(text.encode("B", add_special_tokens=False)).upper() == "B"
    assert text.decode(text.encode("A", add_special_tokens=False)) == "A"


@pytest.mark.parametrize(
    ("sentence", "unknown"),
    [
        ("There is exactly one black triangle not touching any edge.", 0),
        ("There are 2 yellow blocks at the base of the tower, aren't there?", 0),
        # A word that nobody foresaw falls apart into pieces, but isn't lost.
        ("zyzzyva", 0),
        ("\N{GREEK SMALL LETTER ALPHA}", 1),
    ],
)
def test_free_sentences_have_a_fallback(text, sentence: str, unknown: int) -> None:  # type: ignore[no-untyped-def]
    assert tokens(text, sentence).count("<unk>") == unknown


def test_different_words_stay_different(text) -> None:  # type: ignore[no-untyped-def]
    assert tokens(text, "blocks") == ["blocks"]
    assert tokens(text, "zyx") != tokens(text, "zyy")


# ----------------------------------------------------------------------------------- models, folders


def test_the_ladder_goes_down() -> None:
    built = [tiny.build(rung, WORDS, seed=0)[0] for rung in tiny.SIZES]
    sizes = [sum(p.numel() for p in model.parameters()) for model in built]
    assert list(tiny.SIZES) == ["L", "M", "S"]
    assert sizes[0] > 2 * sizes[1]
    assert sizes[1] > 1.5 * sizes[2]


def test_an_unknown_rung_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'XL'.*known: L, M, S"):
        tiny.build("XL", WORDS, seed=0)


def test_a_seed_gives_the_same_start() -> None:
    one, two, other = (tiny.build("S", WORDS, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(one[name], other[name])


def test_a_saved_folder_loads_through_the_auto_classes(tmp_path: Path) -> None:
    model, processor = tiny.build("S", WORDS, seed=0)
    tiny.save(model, processor, tmp_path / "S")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "S", dtype=torch.float32)
    ready = AutoProcessor.from_pretrained(tmp_path / "S")
    assert type(loaded).__name__ == "InternVLForConditionalGeneration"
    image = Curriculum().lesson(0, 0.0).image()
    inputs = ready(text=["<image>Is it true?\nAnswer:"], images=[[image]], return_tensors="pt")
    assert (inputs["input_ids"] == ready.image_token_id).sum() == tiny.IMAGE_TOKENS
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert loaded(**inputs).logits.shape[-1] == len(ready.tokenizer)
    # float16 on disk: 11 bits of mantissa.
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=2**-10, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["S"]


# ---------------------------------------------------------------------------------------- pretraining


@dataclass(frozen=True)
class OneLesson:
    """A curriculum of a single lesson."""

    lesson_: Lesson
    groups: tuple[tuple[str, ...], ...] = Curriculum().groups

    def words(self) -> tuple[str, ...]:
        return WORDS

    def lesson(self, index: int, progress: float) -> Lesson:
        return self.lesson_


def test_a_packed_question_sees_only_its_image_and_itself() -> None:
    """The loss over packed questions is the mean over each question asked alone, through the processor."""
    model, processor = tiny.build("S", WORDS, seed=0)
    model.eval()
    curriculum = Curriculum()
    taken = [curriculum.lesson(index, 1.0) for index in range(2)]
    batch = collate(taken, processor.tokenizer, curriculum.groups, width=400)
    groups = [torch.tensor(processor.tokenizer.convert_tokens_to_ids(list(g))) for g in curriculum.groups]
    model.set_attn_implementation("eager")
    _, packed, _ = losses(model, batch, groups)
    alone = []
    for lesson in taken:
        for _, prompt, answer in lesson.questions:
            inputs = processor(text=[f"<image>{prompt}"], images=[[lesson.image()]], return_tensors="pt")
            (gold,) = processor.tokenizer.encode(answer, add_special_tokens=False)
            logits = model(**inputs, logits_to_keep=1).logits[0, 0]
            alone.append(-logits.log_softmax(-1)[gold])
    assert len(alone) == len(batch.topics)
    torch.testing.assert_close(packed, torch.stack(alone).mean(), rtol=1e-4, atol=1e-4)


def test_questions_that_do_not_fit_are_left_out() -> None:
    curriculum = Curriculum()
    text = tiny.tokenizer(WORDS)
    lesson = curriculum.lesson(0, 0.0)
    full = collate([lesson], text, curriculum.groups, width=400)
    cut = collate([lesson], text, curriculum.groups, width=20)
    assert 0 < len(cut.answers) < len(full.answers) == len(lesson.questions)
    assert len(collate([lesson], text, curriculum.groups, width=0).answers) == 0


def test_the_recipe_is_seeded_learns_and_writes_its_provenance(tmp_path: Path) -> None:
    lessons = OneLesson(Curriculum().lesson(0, 0.0))
    recipe = Recipe(steps=100, align_steps=5, images=1, align_images=1, warmup=5)
    said: list[str] = []
    for folder in ("one", "two"):
        pretrain("S", tmp_path / folder, lessons, recipe, log=said.append)
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", "two")]
    assert weights[0] == weights[1]
    # One lesson again and again: its loss falls from ln(words), about 6, to nearly nothing.
    assert float(said[0].split("loss ")[1].split()[0]) < 1.0
    document = json.loads((tmp_path / "one" / "provenance.json").read_text())
    assert document["recipe"]["steps"] == 100
    assert list(verify(tmp_path / "one")) == []
    (tmp_path / "one" / "model.safetensors").write_bytes(b"broken")
    assert list(verify(tmp_path / "one")) == ["model.safetensors"]


# -------------------------------------------------------------------------------- the packaged weights


@pytest.mark.parametrize("rung", tiny.SIZES)
def test_packaged_weights_are_those_of_their_provenance(rung: str) -> None:
    folder = WEIGHTS / rung
    assert list(verify(folder)) == []
    document = json.loads((folder / "provenance.json").read_text())
    assert document["rung"] == rung
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    fresh = tiny.build(rung, WORDS, seed=0)[0]
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in fresh.state_dict().items()}
    assert AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() == tiny.vocabulary(WORDS)


def test_packaged_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*")) < 10 * 2**20


@pytest.mark.parametrize("benchmark", [ScenesHallucination(), ScenesFactuality()])
def test_prompts_of_the_benchmarks_stay_short(benchmark, text) -> None:  # type: ignore[no-untyped-def]
    for index in range(200):
        example = benchmark.example("test", index)
        options = "\n".join(f"{letter}. {o}" for letter, o in zip("ABCD", example.options, strict=True))
        prompt = (
            f"{example.question}\nContext: {example.context}\nClaim: {example.claim}\n{options}\n{tiny.BOILERPLATE}"
        )
        assert len(tokens(text, prompt)) + tiny.IMAGE_TOKENS < 110
        assert "<unk>" not in tokens(text, prompt)
