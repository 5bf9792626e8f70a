"""Models as scorers of options: the answer position under any padding, letters, sizes, digests, damaged folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from harness.config import RungConfig
from harness.errors import ModelError
from harness.models import encoding, ladders, loading, prompts
from harness.models.scorer import MASKED_LOGIT, OptionScorer, token_counts
from helpers import families
from helpers.common import rung


@pytest.fixture(scope="module")
def folder(toy_ladder: str) -> Path:
    """The untrained rung S."""
    return Path(toy_ladder).parent / "S"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "S"))


# ----------------------------------------------------------------------------------- answer position


def test_padding_does_not_matter(folder: Path) -> None:
    """Padded left, padded right, or alone: the answer is read at the last word of each question."""
    scorer, encoder = families.loaded(folder)
    batches = {}
    for side in ("left", "right"):
        encoder.processor.tokenizer.padding_side = side
        batches[side] = encoder(families.examples())
    assert batches["left"]["attention_mask"].sum(1).unique().numel() == 3  # three lengths
    assert not torch.equal(batches["left"]["input_ids"], batches["right"]["input_ids"])
    with torch.inference_mode():
        left, right = scorer(batches["left"])["options"], scorer(batches["right"])["options"]
        alone = [scorer(encoder([example]))["options"][0] for example in families.examples()]
    torch.testing.assert_close(left, right, atol=1e-5, rtol=0)
    for together, single in zip(left, alone, strict=True):
        torch.testing.assert_close(together[: len(single)], single, atol=1e-5, rtol=0)
    assert left.dtype == torch.float32
    assert left.std() > 0.01  # else all of this would hold for a model that says nothing


def test_absent_options_have_no_probability(folder: Path) -> None:
    encoder = encoding.load_encoder(rung(folder))
    batch = encoder(families.examples())
    assert batch["options"].tolist() == [[True, True, True], [True, True, False], [True, True, True]]
    with torch.inference_mode():
        logits = OptionScorer(loading.load_vlm(rung(folder)), encoder.letters)(batch)["options"]
    assert logits[1, 2] == MASKED_LOGIT == -1e4
    assert logits.softmax(-1)[1, 2] == 0
    assert logits.log_softmax(-1).isfinite().all()


class Says(torch.nn.Module):
    """A model whose logits at position p of any row are `table[p]`."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__()
        self.table, self.head = torch.tensor(table), torch.nn.Identity()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.head(self.table.expand(len(input_ids), -1, -1)))


def test_spellings_of_a_letter_are_summed() -> None:
    """Odds 1 and 2 for the two spellings of A, 5 for B: A has 3 in all."""
    odds = torch.tensor([[1.0, 2.0, 5.0, 7.0]])
    scorer = OptionScorer(Says(odds.log().tolist()), [[(0,), (1,)], [(2,)], [(3,)]])
    batch = {
        "input_ids": torch.zeros(1, 1),
        "attention_mask": torch.ones(1, 1, dtype=torch.long),
        "options": torch.tensor([[True, True]]),
    }
    torch.testing.assert_close(scorer(batch)["options"].exp(), torch.tensor([[3.0, 5.0]]))


def test_each_row_is_read_at_its_own_end() -> None:
    """Rows of 1, 3 and 2 words, padded right: positions 0, 2 and 1."""
    scorer = OptionScorer(Says([[0.0], [10.0], [20.0]]), [[(0,)]])
    mask = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]])
    batch = {"input_ids": mask, "attention_mask": mask, "options": torch.ones(3, 1, dtype=torch.bool)}
    assert scorer(batch)["options"].flatten().tolist() == [0, 20, 10]


class Elsewhere(Says):
    """A model that doesn't use the output layer that it names."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.table.expand(len(input_ids), -1, -1))


def test_logits_of_more_than_one_position_are_refused() -> None:
    mask = torch.ones(2, 3, dtype=torch.long)
    batch = {"input_ids": mask, "attention_mask": mask, "options": torch.ones(2, 1, dtype=torch.bool)}
    with pytest.raises(ModelError, match=r"Elsewhere gives logits of shape \(2, 3, 1\) for 2 questions"):
        OptionScorer(Elsewhere([[0.0], [10.0], [20.0]]), [[(0,)]])(batch)


class Words:
    """A tokenizer that knows some letters: ` A` is a token of its own, ` B` and ` C` are two, `D` isn't known."""

    unk_token_id = 0

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        known = {"A": [1], " A": [2], "B": [3], " B": [4, 3], "C": [5, 6], " C": [4, 5, 6], "D": [0], " D": [4, 0]}
        return known[text]


@pytest.mark.parametrize(
    ("letter", "tokens"), [("A", [(1,), (2,)]), ("B", [(3,)]), ("C", [(4, 5, 6), (5, 6)]), ("D", [])]
)
def test_a_letter_is_any_single_token_that_spells_it_or_else_several(letter: str, tokens: list[Any]) -> None:
    assert prompts.spellings(Words(), letter) == tokens


def test_letters_that_cannot_be_told_apart_are_refused(folder: Path) -> None:
    encoder = encoding.load_encoder(rung(folder))
    encoder.letters[1], encoder.letters[3] = [(7,)], []
    encoder.letters[2] = [(7,)]
    encoder.check_letters(2)
    with pytest.raises(
        ModelError, match=r"'S': its tokenizer spells the option letters 'B' and 'C' in the same way \(token 7\)"
    ):
        encoder(families.examples())
    encoder.letters[2] = [(8,)]
    with pytest.raises(ModelError, match="'S': its tokenizer has no tokens for the option letter 'D'"):
        encoder.check_letters(4)


# --------------------------------------------------------------------- beside the option logits


def llava() -> Any:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 40}  # fmt: skip
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision, projection_dim=8),
        text_config=transformers.LlamaConfig(**text),
        image_token_id=39,
        vision_feature_layer=-1,
    )
    return transformers.LlavaForConditionalGeneration(config), {"pixel_values": torch.randn(3, 3, 16, 16)}, 4


def smolvlm() -> Any:
    config = transformers.SmolVLMConfig(
        vision_config={"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 16, "patch_size": 4},
        text_config=transformers.LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=40
        ),
        scale_factor=2,
        image_token_id=39,
        pad_token_id=0,
    )  # fmt: skip
    return transformers.SmolVLMForConditionalGeneration(config), {"pixel_values": torch.randn(3, 1, 3, 16, 16)}, 4


def qwen() -> Any:
    config = transformers.Qwen2_5_VLConfig(
        vision_config={"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "patch_size": 4,
                       "out_hidden_size": 16, "fullatt_block_indexes": [0], "window_size": 16},
        text_config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "num_key_value_heads": 2, "vocab_size": 40,
                     "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}},
        image_token_id=39,
    )  # fmt: skip
    # Three pictures of 4 x 4 patches, which 2 x 2 merging makes 4 tokens; a patch is of 2 frames x 3 x 4 x 4.
    pixels = {"pixel_values": torch.randn(48, 96), "image_grid_thw": torch.tensor([[1, 4, 4]] * 3)}
    types = {"mm_token_type_ids": torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0]] * 3)}
    return transformers.Qwen2_5_VLForConditionalGeneration(config), pixels | types, 4


@pytest.mark.parametrize("make", [llava, smolvlm, qwen])
def test_hidden_vision_and_vocabulary_of_any_class(make: Callable[[], Any]) -> None:
    """The output layer maps `hidden` to `vocab`; `vision` is what the model's own get_image_features gives."""
    torch.manual_seed(0)
    vlm, pixels, tokens = make()
    scorer = OptionScorer(vlm.eval(), [[(1,)], [(2,), (3,)], [(4,)]])
    batch = pixels | {
        "input_ids": torch.tensor([[5, 39, 39, 39, 39, 6, 7, 8]] * 2 + [[9, 39, 39, 39, 39, 4, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 8, [1] * 7 + [0], [1] * 6 + [0] * 2]),
        "options": torch.ones(3, 3, dtype=torch.bool),
    }
    outputs = scorer(batch, ("hidden", "vision", "vocab"))
    assert {name: tuple(t.shape) for name, t in outputs.items()} == {
        "options": (3, 3),
        "hidden": (3, 16),
        "vision": (3, tokens, 16),
        "vocab": (3, 40),
    }
    assert all(t.dtype == torch.float32 and t.requires_grad for t in outputs.values())
    torch.testing.assert_close(vlm.get_output_embeddings()(outputs["hidden"]), outputs["vocab"])
    torch.testing.assert_close(outputs["vocab"][:, [1, 4]], outputs["options"][:, [0, 2]])
    known = {key: value for key, value in pixels.items() if key != "mm_token_type_ids"}
    features = vlm.get_image_features(**known).pooler_output
    features = torch.cat(list(features)) if isinstance(features, tuple | list) else features
    torch.testing.assert_close(outputs["vision"].flatten(0, 1), features.reshape(-1, 16))
    plain = scorer(batch)
    assert set(plain) == {"options"}  # what isn't needed isn't kept
    assert torch.equal(plain["options"], outputs["options"])
    assert loading.hidden_size(vlm.config) == 16


def test_hidden_vision_and_vocabulary_of_the_tiny_ladder(folder: Path) -> None:
    encoder = encoding.load_encoder(rung(folder))
    vlm: Any = loading.load_vlm(rung(folder))
    scorer = OptionScorer(vlm, encoder.letters, "bf16").train()
    outputs = scorer(encoder(families.examples()), ("hidden", "vision", "vocab"))
    assert outputs["vision"].shape == (3, 16, 64)
    assert outputs["vocab"].shape == (3, len(encoder.tokens))
    assert {t.dtype for t in outputs.values()} == {torch.float32}  # also under autocast
    for name in ("hidden", "vision", "vocab"):
        vlm.zero_grad()
        outputs[name].square().sum().backward(retain_graph=True)
        assert vlm.model.multi_modal_projector.linear_1.weight.grad.any()


def test_states_of_layers_have_the_same_gradient_with_checkpointing(folder: Path) -> None:
    encoder = encoding.load_encoder(rung(folder))
    found = []
    for checkpointing in (False, True):
        vlm: Any = loading.load_vlm(rung(folder))
        if checkpointing:
            vlm.gradient_checkpointing_enable({"use_reentrant": False})
        scorer = OptionScorer(vlm, encoder.letters).train()
        layers_bnd = scorer(encoder(families.examples()), ("layers",))["layers"]
        layers_bnd.square().sum().backward()
        found.append((layers_bnd.detach(), [p.grad for p in vlm.parameters() if p.grad is not None]))
    assert found[0][0].shape == (3, vlm.config.get_text_config().num_hidden_layers, 64)
    torch.testing.assert_close(found[1], found[0])


def test_pictures_of_different_size_in_tokens_are_refused() -> None:
    vlm, pixels, _ = llava()
    ids = torch.tensor([[5, 39, 39, 39, 39, 39], [5, 39, 39, 39, 6, 6], [5, 39, 39, 39, 39, 6]])
    batch = pixels | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with pytest.raises(
        ModelError, match=r"Llava.*: \[3, 4, 5\] visual tokens per picture in one batch; expected the same"
    ):
        OptionScorer(vlm, [[(1,)]])(batch | {"options": torch.ones(3, 1, dtype=torch.bool)}, ("vision",))


# --------------------------------------------------------------------------------- size and digest


def test_parameters_are_those_of_the_loaded_model(folder: Path) -> None:
    info = ladders.inspect(rung(folder))
    vlm: Any = loading.load_vlm(rung(folder))
    assert info.parameters == sum(p.numel() for p in vlm.parameters())
    assert info.vision_parameters == sum(p.numel() for n, p in vlm.named_parameters() if "vision" in n)
    assert info.embedding_parameters == vlm.get_input_embeddings().weight.numel()


def write(folder: Path, tied: bool) -> RungConfig:
    """A folder with 2 x 3 embeddings, an output layer of the same size, and 5 weights of a vision tower."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"text_config": {"tie_word_embeddings": tied}}))
    (folder / "processor_config.json").write_text("{}")
    shapes = {
        "model.embed_tokens.weight": (2, 3),
        "language_model.lm_head.weight": (2, 3),
        "model.vision_tower.w": (5,),
    }
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    return RungConfig(name="S", model=str(folder))


def test_tied_weights_count_once(tmp_path: Path) -> None:
    tied, untied = (ladders.inspect(write(tmp_path / str(flag), flag)) for flag in (True, False))
    assert (tied.parameters, tied.vision_parameters, tied.embedding_parameters) == (11, 5, 6)
    assert (untied.parameters, untied.vision_parameters, untied.embedding_parameters) == (17, 5, 12)


def test_the_digest_is_that_of_what_changes_the_numbers(copied: Path, folder: Path) -> None:
    digests = [ladders.inspect(rung(folder)).digest]
    assert ladders.inspect(rung(copied)).digest == digests[0]  # wherever it lies
    (copied / "README.md").write_text("a card")
    assert ladders.inspect(rung(copied)).digest == digests[0]
    weights = load_file(copied / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, copied / "model.safetensors", metadata={"format": "pt"})
    digests.append(ladders.inspect(rung(copied)).digest)
    for file in ("config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja"):
        (copied / file).write_text((copied / file).read_text() + " ")
        digests.append(ladders.inspect(rung(copied)).digest)
    assert len(set(digests)) == 6


def test_flops_are_two_a_parameter_and_token() -> None:
    """100 parameters, 30 of them of the vision tower and 20 embeddings: 50 see 7 tokens, 30 see 4 patches."""
    info = ladders.ModelInfo(100, 30, 20, "")
    assert ladders.forward_flops(info, 7, 4) == 2 * (50 * 7 + 30 * 4)


def test_tokens_and_patches_are_counted(folder: Path) -> None:
    encoder = encoding.load_encoder(rung(folder))
    batch = encoder(families.examples())
    text, patches = token_counts(loading.load_config(rung(folder)), batch)
    assert text == sum(encoder([e])["attention_mask"].sum().item() for e in families.examples())  # padding is free
    assert patches == 3 * 64  # 8 x 8 patches a picture


# -------------------------------------------------------------------------------- damaged folders


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ("processor_config.json", r"model 'S' \(.*\): no processor in the folder; expected preprocessor_config.json"),
        ("model.safetensors", r"model 'S' \(.*\): no \*.safetensors weights in the folder"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_before_training(copied: Path, lacks: str, says: str) -> None:
    (copied / lacks).unlink()
    with pytest.raises(ModelError, match=says):
        ladders.inspect(rung(copied))


def test_no_processor(copied: Path) -> None:
    for file in copied.glob("*processor_config.json"):
        file.unlink()
    with pytest.raises(ModelError, match=r"model 'S' \(.*\): no (usable )?processor"):
        encoding.load_encoder(rung(copied))


def test_no_chat_template(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="'S': its processor has no chat template; add chat_template.jinja"):
        encoding.load_encoder(rung(copied))


@pytest.mark.parametrize("text", ["{", '{"model_type": "abacus"}', '{"model_type": "bert"}'])
def test_not_a_vision_language_model(copied: Path, text: str) -> None:
    (copied / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"model 'S' \(.*\): not a vision-language model that transformers can load"):
        loading.load_vlm(rung(copied))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model 'S': no such folder: .*gone"):
        ladders.inspect(rung(tmp_path / "gone"))


def test_damaged_weights(copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0hello")
    with pytest.raises(ModelError, match=r"model 'S' \(.*\): model.safetensors"):
        ladders.inspect(rung(copied))
