"""Before the first step: what can't come to anything is told in one line, and nothing of the run depends on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_hook
from transformers import PreTrainedModel

from harness.config import RunConfig, RungConfig
from harness.errors import ConfigError, ModelError, TrainingError
from harness.execution.launch import launch
from harness.models import encoding, loading
from harness.models.distributed import SingleProcess
from harness.models.encoding import Encoder
from harness.planning import memory, plan
from harness.record import Preflight
from harness.store import Store
from harness.train import preflight
from helpers import families
from helpers.common import ToyConfig

METHODS = '''
from dataclasses import dataclass
from torch.nn.functional import cross_entropy
from harness.api import Method, Role, Stage

@dataclass(frozen=True)
class Idle(Method):
    """Tunes the student with a loss of a weight."""
    name = "idle"
    summary = "a loss of a weight"
    weight: float = 0.0
    """Of the loss."""
    late: bool = False
    """The weight grows from nothing."""
    power: float = 1.0
    """Of the loss."""

    def stages(self, ladder, student):
        return (Stage("only", {"student": Role(student, trainable=True)}, 1.0),)

    def loss(self, step):
        ce = cross_entropy(step.forward("student"), step.labels_b, reduction="none")
        return {"student": {"ce": (self.weight * (step.progress if self.late else 1) * ce) ** self.power}}
'''


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.build("qwen2_5_vl", tmp_path_factory.mktemp("qwen") / "S")


@pytest.fixture
def copied(qwen: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(qwen, tmp_path / "S"))


def config_of(toy_config: ToyConfig, *rungs: Path, **changes: Any) -> RunConfig:
    """A run on models in folders: S alone, or L and S."""
    ladder = [{"name": n, "model": str(folder)} for n, folder in zip("LS"[2 - len(rungs) :], rungs, strict=True)]
    small = {"benchmark_settings": {"size": 8}, "evaluate": {"resamples": 100}, "ladder": ladder}
    train = {"examples": 16, "validations": 1} | changes.pop("train", {})
    return toy_config(train=train, **small | changes)


def checked(toy_config: ToyConfig, *rungs: Path, **changes: Any) -> Preflight:
    return check(plan.make(config_of(toy_config, *rungs, **changes)))


def encoders_of(made: plan.Plan) -> dict[str, Encoder]:
    return encoding.load_encoders({name: made.rungs[name] for name in made.infos})


def check(made: plan.Plan, encoders: dict[str, Encoder] | None = None) -> Preflight:
    return preflight.check(made, encoders or encoders_of(made), SingleProcess())


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# -------------------------------------------------------------------------------------------- good runs


def test_it_costs_little_and_draws_nothing(toy_config: ToyConfig, toy_ladder: str) -> None:
    """The stages of three tiny models; the generators stand where they stood."""
    made = plan.make(config_of(toy_config, method="hkd4vlm", ladder=toy_ladder))
    encoders = encoders_of(made)
    state, passes = torch.get_rng_state(), 0

    def count(module: torch.nn.Module, *_: object) -> None:
        nonlocal passes
        passes += isinstance(module, PreTrainedModel) and module.can_generate()

    hook = register_module_forward_hook(count)
    found = check(made, encoders)
    hook.remove()
    assert passes == (4 + 3) * 3  # of each rung: scored, and in the plain way; the stages' roles, six here, take none
    assert torch.equal(torch.get_rng_state(), state)
    assert set(found.rungs) == {"L", "M", "S"}
    assert found.rungs["S"].image_tokens == (16, 16)
    assert found.examples == 9
    assert {key.split(".")[0] for key in found.losses} == {p.stage.name for p in made.stages}
    assert found.memory_bytes < found.memory_free  # type: ignore[operator]
    assert check(made, encoders).losses == found.losses


def test_the_losses_are_those_of_the_first_step(toy_config: ToyConfig, qwen: Path, tmp_path: Path) -> None:
    """A batch of four is tried whole: its mean is what the history begins with."""
    config = config_of(toy_config, qwen, train={"examples": 4, "batch_size": 4, "validations": 1})
    (record,) = launch([config], Store(tmp_path), "test", lambda _: None)
    assert record.status == "done", record.error
    first = Store(tmp_path).history(record.run_id).query("term == 'loss/ce'")["value"].iloc[0]
    assert record.preflight is not None
    assert record.preflight.losses == {"tune.student.ce": pytest.approx(first, rel=1e-5)}


def test_an_untrained_model_is_tried_too(toy_config: ToyConfig, qwen: Path) -> None:
    found = checked(toy_config, qwen, method="zero_shot")
    assert found.losses == {}
    assert found.rungs["S"].longest > found.rungs["S"].image_tokens[1] == 16


def test_a_teacher_smaller_than_its_student_is_a_warning(
    toy: str, toy_config: ToyConfig, qwen: Path, tmp_path: Path, cli: Any
) -> None:
    small = families.build("qwen2_5_vl", tmp_path / "small", width=16, layers=1)
    found = checked(toy_config, small, qwen, method="offline_kd")
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("stage 'distil': teacher has ")
    assert "fewer than the " in found.warnings[0]
    file = tmp_path / "run.toml"
    file.write_text(f'[[ladder]]\nname = "L"\nmodel = "{small}"\n[[ladder]]\nname = "S"\nmodel = "{qwen}"\n')
    said = cli("plan", file, "--method", "offline_kd", "--benchmark", "toy", "--plugin", toy)
    assert said.code == 0
    assert f"  warning: {found.warnings[0]}" in said.out


# ------------------------------------------------------------------------------------------- bad models


def other_processor(folder: Path, built: Path) -> None:
    """All of another family's files but its model."""
    other = families.build("llava_onevision", built)
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    for file in other.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)


def no_image(folder: Path, built: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<|vision_start|><|image_pad|><|vision_end|>", ""))


def another_token(folder: Path, built: Path) -> None:
    edit(folder / "config.json", image_token_id=7)


def few_positions(folder: Path, built: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 20
    (folder / "config.json").write_text(json.dumps(config))


def small_vocabulary(folder: Path, built: Path) -> None:
    other = families.build("qwen2_5_vl", built, more="grey black white " * 4, rows=40)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(other / name, folder)


def damaged(folder: Path, built: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "visual" in name and weights[name].ndim == 2)
    save_file(weights | {name: weights[name] * float("nan")}, folder / "model.safetensors", metadata={"format": "pt"})


def incomplete(folder: Path, built: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "q_proj.weight" in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def two_parts(folder: Path, built: Path) -> None:
    edit(folder / "config.json", is_encoder_decoder=True)


def not_a_vlm(folder: Path, built: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


def ends_with_a_sign(folder: Path, built: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    end = next(t for t in tokenizer["added_tokens"] if t["content"] == "<|endoftext|>")
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end["content"], "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {end["content"]: {"id": end["content"], "ids": [end["id"]], "tokens": [end["content"]]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def letters_alike(folder: Path, built: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"C": tokenizer["model"]["vocab"]["B"]}
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "C"}, "content": "B"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_processor, "(can't use the output of its processor|no image token|makes token)"),
        (no_image, r"its processor fails on example 't0': .* Found total 0 <\|image_pad\|> tokens and 2 images"),
        (another_token, r"the prompt of example 't0' has no image token \(7\); expected a chat template"),
        (few_positions, r"has \d\d tokens with its image, the model's context length is 20; reduce images"),
        (
            small_vocabulary,
            r"its tokenizer makes token \d\d, but the model knows 40 tokens; expected the tokenizer that belongs",
        ),
        (damaged, "its options are not finite on the first examples; damaged weights"),
        (incomplete, r"the weights lack 'model.*q_proj.weight', which would be random; expected a complete checkpoint"),
        (two_parts, "encodes the question and the answer separately; expected a model that continues the question"),
        (not_a_vlm, "not a vision-language model that transformers can load"),
        (ends_with_a_sign, r"its tokenizer ends the prompt with '<\|endoftext\|>', but the answer should follow"),
        (letters_alike, r"its tokenizer spells the option letters 'B' and 'C' in the same way \(token \d+\)"),
    ],
)
def test_a_model_that_does_not_fit_is_told_in_a_line(
    damage: Callable[[Path, Path], None], says: str, copied: Path, toy_config: ToyConfig, tmp_path: Path
) -> None:
    damage(copied, tmp_path / "other")
    with pytest.raises(ModelError, match=says) as raised:
        checked(toy_config, copied, method="zero_shot")
    assert "\n" not in str(raised.value)
    assert "model 'S'" in str(raised.value)


def test_image_tokens_and_features_must_be_as_many(toy_config: ToyConfig, tmp_path: Path) -> None:
    folder = families.build("internvl", tmp_path / "S")
    edit(folder / "processor_config.json", image_seq_length=5)
    with pytest.raises(
        ModelError, match="InternVLForConditionalGeneration can't use the output of its processor .*do not match"
    ):
        checked(toy_config, folder, method="zero_shot")


class Cut(Encoder):
    """A processor that cuts prompts to 30 tokens."""

    def __call__(self, examples: Any) -> encoding.Batch:
        batch = super().__call__(examples)
        cut = {key: batch[key][:, :30] for key in ("input_ids", "attention_mask", "mm_token_type_ids")}
        return batch | cut


def test_a_prompt_that_is_cut_off(toy_config: ToyConfig, qwen: Path) -> None:
    made = plan.make(config_of(toy_config, qwen, method="zero_shot"))
    processor = encoding.load_encoder(RungConfig(name="S", model=str(qwen))).processor
    processor.tokenizer.padding_side = "right"
    with pytest.raises(ModelError, match="'S' .* is truncated before the answer position .*remove the truncation"):
        check(made, {"S": Cut(processor, "S")})


def test_a_model_that_answers_by_chance(toy_config: ToyConfig, copied: Path) -> None:
    """Dropout that stays on shows in the same question asked twice."""
    made = plan.make(config_of(toy_config, copied, method="zero_shot"))
    whole = loading.load_vlm

    def noisy(rung: RungConfig, dtype: torch.dtype) -> torch.nn.Module:
        vlm: Any = whole(rung, dtype)
        drop = torch.nn.Dropout(0.5)
        vlm.get_decoder().layers[0].register_forward_hook(
            lambda module, args, output: torch.nn.functional.dropout(output, drop.p, training=True)
        )
        return vlm  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_vlm", noisy)
        with pytest.raises(ModelError, match=r"its answers to the same question in two batches differ \(KL"):
            check(made)


# -------------------------------------------------------------------------------------------- bad runs


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight": 0.0}, "the loss of student is zero on the first examples, so there is nothing to learn"),
        ({"weight": 0.0, "late": True}, "the loss of student is zero on the first examples"),
        ({"weight": 1e300}, r"loss term student.ce is not finite on the first examples \(progress 0\)"),
        ({"weight": 1.0, "power": 0.5, "late": True}, "a gradient is not finite though the loss is; .*role 'student'"),
    ],
)
def test_a_loss_that_teaches_nothing(
    settings: dict[str, Any], says: str, toy: str, toy_config: ToyConfig, qwen: Path, tmp_path: Path
) -> None:
    (tmp_path / "idle.py").write_text(METHODS)
    plugins = [toy, str(tmp_path / "idle.py")]
    with pytest.raises(TrainingError, match=f"method 'idle', stage 'only', step 0: (preflight: )?{says}"):
        checked(toy_config, qwen, method="idle", settings=settings, plugins=plugins)


def test_a_loss_that_begins_at_nothing_and_grows(toy: str, toy_config: ToyConfig, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text(METHODS)
    plugins = [toy, str(tmp_path / "idle.py")]
    found = checked(toy_config, qwen, method="idle", settings={"weight": 1.0, "late": True}, plugins=plugins)
    assert found.losses == {"only.student.ce": 0}


def test_a_tuned_copy_of_the_student_may_teach_it(toy: str, toy_config: ToyConfig, qwen: Path) -> None:
    """Before it is tuned, the teacher answers as the student: their divergence is 0 for now."""
    found = checked(toy_config, qwen, method="born_again", settings={"ce_weight": 0.0}, plugins=[toy])
    assert (found.losses["distil.student.kd"], found.losses["distil.student.ce"]) == (0, 0)


def test_a_bad_student_stops_the_run_before_its_teacher_is_tuned(
    toy_config: ToyConfig, qwen: Path, copied: Path, tmp_path: Path
) -> None:
    damaged(copied, copied)
    config = config_of(toy_config, qwen, copied, method="offline_kd")
    (record,) = launch([config], Store(tmp_path / "runs"), "test", lambda _: None)
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.type == "ModelError"
    assert record.error.message.startswith("model 'S'")
    assert record.error.traceback is None
    assert record.stages == []


def test_a_run_too_large_for_the_memory(toy_config: ToyConfig, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 bytes a weight that learns."""
    made = plan.make(config_of(toy_config, qwen))
    assert memory.most_held(made) == 20 * made.student_parameters
    monkeypatch.setattr(memory, "free", lambda device: 2**19)
    with pytest.raises(
        ConfigError, match=r"the run needs 0.0 GiB for weights and optimizers alone, but cpu has 0.0 GiB free"
    ):
        check(made)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_where_one_is_wanted(toy_run: list[str], tmp_path: Path, cli: Any) -> None:
    said = cli("run", *toy_run, "--set", "cluster.gpus_per_worker=1", "--store", tmp_path)
    assert said.code == 2
    assert "cluster.gpus_per_worker = 1, but this machine has no GPU that torch" in said.err
