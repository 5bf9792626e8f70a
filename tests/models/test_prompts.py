"""Prompts: a model that would think first is refused, templates can be changed, letters are spelled in place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from harness.config import RungConfig, TemplateConfig
from harness.errors import ModelError
from harness.models import encoding, ladders
from harness.models.scorer import OptionScorer
from harness.models.text import prompts
from helpers import families
from helpers.common import Cli, rung

ANSWER = "{% if add_generation_prompt %}<|im_start|>assistant\n"
OFF = "{% if enable_thinking is defined and not enable_thinking %}"
QWEN3_5 = ANSWER + OFF + "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
HYBRID = ANSWER + OFF + "<think></think>\n{% endif %}"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.build("qwen3_vl", tmp_path_factory.mktemp("qwen") / "S")


@pytest.fixture
def copied(qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "S"))


def ending(folder: Path, end: str) -> Path:
    """The folder with a template whose prompts end so."""
    file = folder / "chat_template.jinja"
    text = file.read_text()
    assert ANSWER in text
    file.write_text(text.replace(ANSWER, end))
    return folder


def with_template(folder: Path, **values: Any) -> RungConfig:
    return RungConfig(name="S", model=str(folder), template=TemplateConfig(**values))


# ------------------------------------------------------------------------------------------- thinking


@pytest.mark.parametrize("tag", ["<think>\n", "<think>", "<thinking>\n\n", "[THINK]", "◁think▷"])
def test_a_prompt_that_ends_in_a_thought_is_refused(tag: str, copied: Path) -> None:
    """Qwen3-VL-Thinking: nothing turns it off."""
    with pytest.raises(ModelError, match=r"'S': its prompt ends in .*: set template = { file = 'NAME.jinja' }"):
        encoding.load_encoder(rung(ending(copied, ANSWER + tag)))


def test_a_thought_that_is_over_is_no_thought(copied: Path) -> None:
    encoder = encoding.load_encoder(rung(ending(copied, ANSWER + "<think>\n\n</think>\n\n")))
    assert encoder.text(prompts.PROBE).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(("end", "says"), [(QWEN3_5, "ends in <think>"), (HYBRID, "lets it think unless")])
def test_a_switch_turns_thinking_off(end: str, says: str, copied: Path) -> None:
    """Qwen3.5 opens a thought itself, GLM-4.xV leaves that to the model: the first token is no answer in either."""
    ending(copied, end)
    with pytest.raises(ModelError, match=f"its prompt {says}.*: set template = {{ enable_thinking = false }} for"):
        encoding.load_encoder(rung(copied))
    encoder = encoding.load_encoder(with_template(copied, enable_thinking=False))
    assert encoder.text(prompts.PROBE).split("</think>")[1].strip() == ""


def test_a_switch_that_is_set_on_purpose_is_kept(copied: Path) -> None:
    ending(copied, HYBRID)
    encoder = encoding.load_encoder(with_template(copied, enable_thinking=True))
    assert encoder.text(prompts.PROBE).endswith("assistant\n")


def test_a_switch_does_not_excuse_an_open_thought(copied: Path) -> None:
    with pytest.raises(ModelError, match="its prompt ends in <think>"):
        encoding.load_encoder(with_template(ending(copied, QWEN3_5), enable_thinking=True))


# ------------------------------------------------------------------------------------------- templates


def test_a_variable_that_the_template_lacks_is_refused(copied: Path) -> None:
    with pytest.raises(ModelError, match=r"template.enable_thinkin: its chat .* no such .*, like enable_thinking"):
        encoding.load_encoder(with_template(ending(copied, HYBRID), enable_thinkin=False))


def test_a_template_of_ones_own(copied: Path, tmp_path: Path) -> None:
    """Its file stands beside the ladder's; both change the digest, so runs with it are other runs."""
    text = (copied / "chat_template.jinja").read_text()
    (tmp_path / "own.jinja").write_text(text.replace(ANSWER, ANSWER + "{{ lead }}"))
    (tmp_path / "ladder.toml").write_text(
        'name = "own"\n[[rungs]]\nname = "S"\nmodel = "S"\ntemplate = { file = "own.jinja", lead = "answer :" }\n'
    )
    (own,) = ladders.find(str(tmp_path / "ladder.toml")).rungs
    assert own.template is not None
    assert own.template.file == str(tmp_path / "own.jinja")
    encoder = encoding.load_encoder(own)
    assert encoder.text(prompts.PROBE).endswith("<|im_start|>assistant\nanswer :")
    digests = {ladders.inspect(rung(copied)).digest, ladders.inspect(own).digest}
    (tmp_path / "own.jinja").write_text(text)
    with pytest.raises(ModelError, match="template.lead: its chat template has no such variable"):
        encoding.load_encoder(own)
    digests.add(ladders.inspect(own).digest)
    assert len(digests) == 3
    (tmp_path / "own.jinja").unlink()
    with pytest.raises(ModelError, match=r"template.file = '.*own.jinja' can't be read"):
        ladders.inspect(own)


def test_a_rung_without_a_template_is_written_as_before() -> None:
    """Older ladders keep the identity of their sweeps and runs."""
    assert "template" not in RungConfig(name="S", model="x").model_dump(mode="json")
    said = RungConfig(name="S", model="x", template=TemplateConfig(enable_thinking=False))
    assert RungConfig(**json.loads(said.model_dump_json())) == said
    assert hash(said) == hash(RungConfig(**said.model_dump()))


def test_a_kept_student_has_the_template_with_its_variables(copied: Path, tmp_path: Path) -> None:
    encoder = encoding.load_encoder(with_template(ending(copied, QWEN3_5), enable_thinking=False))
    for file in copied.iterdir():
        shutil.copy(file, tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    assert encoding.load_encoder(rung(tmp_path)).text(prompts.PROBE) == encoder.text(prompts.PROBE)


def test_a_template_that_fails_is_told_in_a_line(copied: Path) -> None:
    (copied / "chat_template.jinja").write_text("{{ messages[0]['content'] + 'x' }}")
    with pytest.raises(ModelError, match="'S': its chat template fails on a question with one image: ") as raised:
        encoding.load_encoder(rung(copied))
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------------- describe --prompt


def test_describe_shows_how_a_model_is_asked(qwen: Path, cli: Cli) -> None:
    (shown,) = cli("describe", qwen, "--prompt", "--json").json
    encoder = encoding.load_encoder(rung(qwen))
    assert shown["prompt"] == encoder.text(prompts.PROBE)
    assert shown["last_tokens"][-1]["id"] == encoder.prompts([prompts.PROBE])[0][-1]
    assert [[token["id"] for token in spelled] for spelled in shown["options"]["B"]] == [
        list(s) for s in encoder.letters[1]
    ]
    assert shown["image_tokens"]["64x64"] == 16  # 8 x 8 patches, merged by 2 x 2
    said = cli("describe", qwen, "--prompt")
    assert "  scored: the token that follows them\n  option A: 'A' (" in said.out
    assert "    <|im_start|>assistant\n" in said.out


def test_describe_shows_each_rung_of_a_ladder(cli: Cli) -> None:
    assert [shown["name"] for shown in cli("describe", "tiny", "--prompt", "--json").json] == ["L", "M", "S"]


def test_tiles_that_the_files_deny_are_told(tmp_path: Path, cli: Cli) -> None:
    """InternVL's processor cuts tiles whatever preprocessor_config.json says; max_patches = 1 makes one."""
    folder = families.build("internvl", tmp_path / "S")
    file = folder / "preprocessor_config.json"
    published = json.loads(file.read_text())
    file.write_text(json.dumps(published | {"crop_to_patches": False, "max_patches": 12}))
    (shown,) = cli("describe", folder, "--prompt", "--json").json
    assert shown["image_tokens"]["640x480"] > 4  # of one tile
    assert "crop_to_patches = false, but its processor cuts images into tiles all the same" in shown["notes"][0]
    file.write_text(json.dumps(published | {"crop_to_patches": False, "max_patches": 1}))
    (shown,) = cli("describe", folder, "--prompt", "--json").json
    assert set(shown["image_tokens"].values()) == {4}
    assert shown["notes"] == []


# ------------------------------------------------------------------------------------------- spellings


def sentencepiece() -> Any:
    """As Llama's: a space is ▁, and the beginning of a text is a space too."""
    known = ["<unk>", "▁", "A", "B", "▁A", "▁B", ":", "S", "▁S", "S:"]
    merges = [("▁", "A"), ("▁", "B"), ("▁", "S")]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(known)}, merges, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def test_letters_are_spelled_behind_the_prompt() -> None:
    """Alone, A is always ▁A, as if a word began there; behind "S:" the model may as well write A."""
    tokenizer = sentencepiece()
    a, space_a = tokenizer.convert_tokens_to_ids(["A", "▁A"])
    assert prompts.spellings(tokenizer, "A") == [(space_a,)]
    assert prompts.spellings(tokenizer, "A", "S:") == [(a,), (space_a,)]


def test_a_letter_that_merges_with_the_prompt_is_read_alone() -> None:
    """A prompt that ends in a space: the tokenizer would make ▁A of that space and the letter."""
    tokenizer = sentencepiece()
    assert prompts.spellings(tokenizer, "A", "S: ") == [tuple(tokenizer.convert_tokens_to_ids(["▁A"]))]


def test_letters_of_the_tiny_ladder_stay() -> None:
    """Its tokenizer lower-cases what isn't an option: behind the prompt, A would be the article."""
    (small,) = [found for found in ladders.find("tiny").rungs if found.name == "S"]
    encoder = encoding.load_encoder(small)
    for letter, spelled in zip("ABCD", encoder.letters, strict=False):
        assert spelled == prompts.spellings(encoder.processor.tokenizer, letter)


def test_both_spellings_count(qwen: Path) -> None:
    """What is scored is the sum over the tokens that were found behind the prompt."""
    scorer, encoder = families.loaded(qwen)
    batch = encoder(families.examples())
    with torch.inference_mode():
        outputs = OptionScorer(scorer.vlm, encoder.letters).eval()(batch, ("vocab",))
    ids = [tokens[0] for tokens in encoder.letters[1]]
    torch.testing.assert_close(outputs["options"][:, 1], outputs["vocab"][:, ids].logsumexp(-1))
