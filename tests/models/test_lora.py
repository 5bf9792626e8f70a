"""Adapters, gradient checkpointing, frozen teachers, and the memory that all of it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.config import LoraSettings, RunConfig, RungConfig, parse
from harness.errors import ConfigError, TrainingError
from harness.models import encoding, loading, lora
from harness.models.distributed import SingleProcess, silent
from harness.models.scorer import OptionScorer, token_counts
from harness.planning import memory, plan
from harness.train import loop
from helpers import families
from helpers.common import ToyConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder of two: `L` and `S`."""
    root = tmp_path_factory.mktemp("lora")
    families.ladder(root, L={"family": "internvl", "width": 48}, S={"family": "internvl", "seed": 1})
    return root


@pytest.fixture
def scorer(folder: Path) -> OptionScorer:
    rung = RungConfig(name="S", model=str(folder / "S"))
    return OptionScorer(loading.load_vlm(rung), encoding.load_encoder(rung).letters).eval()


def config(folder: Path, toy_config: ToyConfig, **train_: Any) -> RunConfig:
    return toy_config("offline_kd", benchmark_settings={"size": 12}, ladder=str(folder / "ladder.toml"),
                      train={"examples": 48} | train_)  # fmt: skip


def batch(folder: Path) -> encoding.Batch:
    return encoding.load_encoder(RungConfig(name="S", model=str(folder / "S")))(families.examples())


# ---------------------------------------------------------------------------------------------- adapters


def test_what_is_merged_answers_as_the_adapters_do(folder: Path, scorer: OptionScorer) -> None:
    """At first nothing is changed; W + (alpha / rank) B A by hand, under the model's own names."""
    given = batch(folder)
    before, own = scorer(given)["options"], {k: v.clone() for k, v in scorer.vlm.state_dict().items()}
    lora.insert(scorer.vlm, LoraSettings(rank=2, alpha=3.0, targets=("q_proj", "down_proj")), "S")
    torch.testing.assert_close(scorer(given)["options"], before)
    learning = {n for n, p in scorer.vlm.named_parameters() if p.requires_grad}
    assert learning == set(lora.adapters(scorer.vlm))
    assert len(learning) == 2 * (2 * 2 + 1)  # A and B of both in each of two blocks, and of the tower's one q_proj
    for name, tensor in lora.adapters(scorer.vlm).items():
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    changed, whole = scorer(given)["options"], lora.merged(scorer.vlm)
    assert (changed - before).abs().max() > 1e-3
    assert whole.keys() == own.keys()
    name = "model.language_model.layers.1.mlp.down_proj"
    a, b = (scorer.vlm.state_dict()[f"{name}.lora_{x}.default.weight"] for x in "AB")
    torch.testing.assert_close(whole[f"{name}.weight"], own[f"{name}.weight"] + 1.5 * b @ a)
    same = [key for key in own if torch.equal(whole[key], own[key])]
    assert len(same) == len(own) - 5
    rung = RungConfig(name="S", model=str(folder / "S"))
    plain = OptionScorer(loading.load_vlm(rung), scorer.spelled).eval()
    plain.vlm.load_state_dict(whole)
    torch.testing.assert_close(plain(given)["options"], changed, atol=1e-5, rtol=0)


class _Stop(Exception):
    pass


def test_a_run_with_adapters(folder: Path, toy_config: ToyConfig, tmp_path: Path) -> None:
    """Linear layers alone move, checkpoints within a stage hold adapters only, a stopped run ends in the same bits."""
    made = plan.make(config(folder, toy_config, lora={"rank": 4}))
    straight = loop.train(made, SingleProcess(), tmp_path / "straight")
    sizes: dict[str, set[str]] = {}

    def kept(checkpoint: Path) -> None:
        names = load_file(checkpoint / "tensors-00000.safetensors")
        sizes[checkpoint.name] = {n for n in names if n.startswith("role/") and "optimizer" not in n}

    stops = {("distil", 5)}

    def stop(event: dict[str, Any]) -> None:
        if (at := (event["stage"], event["step"])) in stops:
            stops.remove(at)
            raise _Stop

    work = tmp_path / "stopped"
    with pytest.raises(_Stop):
        loop.train(made, SingleProcess(stop), work, on_checkpoint=kept)
    resumed = loop.train(made, SingleProcess(silent), work, on_checkpoint=kept)
    assert resumed.resumed == 1
    ends, again = straight.student.vlm.state_dict(), resumed.student.vlm.state_dict()
    assert all(torch.equal(ends[key], again[key]) for key in ends)
    middle = [names for names in sizes.values() if names]
    assert len(middle) == 2  # one within each stage
    assert all(".lora_" in name for names in middle for name in names)
    began = loading.load_vlm(RungConfig(name="S", model=str(folder / "S"))).state_dict()
    moved = {key for key in began if not torch.equal(began[key], ends[key])}
    assert began.keys() == ends.keys()
    assert moved
    assert not any("embed" in key or "norm" in key or "lm_head" in key for key in moved)
    losses = [r["value"] for r in straight.history if r["role"] == "student" and r["term"] == "loss/ce"]
    assert losses[-1] < losses[0]
    # The frozen weights' gradients are not computed, and not billed.
    plain = loop.train(plan.make(config(folder, toy_config)), SingleProcess(), tmp_path / "plain")
    for name, cost in plain.costs.items():
        assert straight.costs[name].flops == pytest.approx(cost.flops * (2 / 3 if cost.trained else 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"lora": {"targets": ["q_porj"]}}}, r"q_porj.*linear layers named .*q_proj"),
        ({"train": {"lora_by_rung": {"XL": {}}}}, r"train\.lora_by_rung: unknown rung 'XL'"),
        (
            {"train": {"lora": {}}, "cluster": {"workers": 2, "shard_above": 0}},
            r"train\.lora for rung 'L'.*sharded over",
        ),
    ],
)
def test_wrong_settings(
    settings: dict[str, Any], message: str, folder: Path, toy_config: ToyConfig, tmp_path: Path
) -> None:
    table = config(folder, toy_config).model_dump()
    wrong = {key: {**table[key], **value} for key, value in settings.items()}
    with pytest.raises(ConfigError, match=message):
        loop.train(plan.make(parse(RunConfig, table | wrong, "test")), SingleProcess(), tmp_path)


# -------------------------------------------------------------------------------------------- step memory


def kept_bytes(run: Callable[[], torch.Tensor], vlm: torch.nn.Module) -> tuple[int, torch.Tensor]:
    """What is kept for the backward pass, weights left out, each piece of memory once."""
    own = {p.untyped_storage().data_ptr() for p in vlm.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(found.values()), result


def test_checkpointing_keeps_less_and_changes_nothing(folder: Path, scorer: OptionScorer) -> None:
    """The same gradients to rounding, from less than half of what is kept."""
    given = batch(folder)
    grads, sizes = [], []
    for on in (False, True):
        scorer.train()
        if on:
            scorer.vlm.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        scorer.zero_grad()
        size, options = kept_bytes(lambda: scorer(given)["options"][:, :2], scorer.vlm)
        options.log_softmax(-1)[:, 0].sum().backward()
        sizes.append(size)
        grads.append({n: p.grad.clone() for n, p in scorer.named_parameters() if p.grad is not None})
    assert sizes[1] < sizes[0] / 2
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


def test_a_run_with_checkpointing_learns_the_same(folder: Path, toy_config: ToyConfig, tmp_path: Path) -> None:
    plain, less = (
        loop.train(
            plan.make(config(folder, toy_config, gradient_checkpointing=on)), SingleProcess(), tmp_path / str(on)
        )
        for on in (False, True)
    )
    for one, other in zip(plain.history, less.history, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_activations_are_estimated(family: str, tmp_path: Path) -> None:
    """What the formula says against what is kept, at a width at which layers count more than trifles."""
    families.build(family, tmp_path, width=128, layers=6)
    rung = RungConfig(name="S", model=str(tmp_path))
    encoder = encoding.load_encoder(rung)
    scorer = OptionScorer(loading.load_vlm(rung), encoder.letters)
    given = encoder(families.examples())
    size, _ = kept_bytes(lambda: scorer(given)["options"], scorer.vlm)
    config_ = loading.load_config(rung)
    _, patches = token_counts(config_, given)
    tokens = given["input_ids"].shape[1]
    estimate = memory.activations(config_, tokens, patches / 3, 3, learns=True, checkpointing=False)
    assert estimate == pytest.approx(size, rel=0.25)


MEASURE = """
import ctypes, gc, sys, json
from pathlib import Path
import torch
torch.set_num_threads(1)
from harness import provenance
from harness.planning import cost, plan
from harness.train import loop
from harness.config import RunConfig, parse
from harness.models.distributed import SingleProcess
warmup, made = (plan.make(parse(RunConfig, table, "test")) for table in json.loads(sys.argv[1]))
said = cost.of(made)
loop.preflight.check = lambda *_: None
loop.train(warmup, SingleProcess(), Path(sys.argv[2]) / "warmup")
base = []
def high():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
import harness.train.role as role
opened = role.RoleModel.__init__
def first(*args, **more):
    if not base:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        provenance.reset_peak_memory()
        base.append(high())
    opened(*args, **more)
role.RoleModel.__init__ = first
loop.train(made, SingleProcess(), Path(sys.argv[2]) / "work")
print(json.dumps({"said": said["peak_bytes"], "held": said["memory_bytes"], "measured": high() - base[0]}))
"""
"""Runs in a process of its own: the highest resident memory less what was there before the model. A small model is
trained first: 90 MB of the libraries' own pages are loaded by the first forward and backward pass. What it freed goes
back to the system: else the second model would be built in memory that is counted already."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("batch_size", "adapters"), [(32, None), (4, {"rank": 4})], ids=["all weights", "adapters"])
def test_plan_predicts_the_peak(
    batch_size: int, adapters: dict[str, int] | None, toy_config: ToyConfig, tmp_path: Path
) -> None:
    """Within 25 % of what a run of a model of 19 million weights takes."""
    tables = []
    for name, size in {"small": {}, "large": {"width": 512, "layers": 8}}.items():
        (tmp_path / name).mkdir()
        ladder = families.ladder(tmp_path / name, S={"family": "internvl", **size})
        table = config(tmp_path / name, toy_config).model_dump(mode="json") | {"method": "finetune", "ladder": ladder}
        table["train"] |= {"examples": 2 * batch_size, "batch_size": batch_size, "validations": 1, "lora": adapters}
        tables.append(table)
    done = subprocess.run([sys.executable, "-c", MEASURE, json.dumps(tables), str(tmp_path)],
                          capture_output=True, text=True, check=True)  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["said"] == pytest.approx(found["measured"], rel=0.25), found


def test_plan_says_what_to_change(folder: Path, toy_config: ToyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.planning import cost as price

    monkeypatch.setattr(memory, "free", lambda _: 1000)
    (warning,) = price.of(plan.make(config(folder, toy_config)))["warnings"]
    for mend in ("micro_batch_size", "gradient_checkpointing", "train.lora", "shard_above", "smaller rungs"):
        assert mend in warning
    adapted = price.of(plan.make(config(folder, toy_config, lora={}, gradient_checkpointing=True)))
    assert "train.lora" not in adapted["warnings"][0]


def test_out_of_memory_says_what_to_change(
    folder: Path, toy_config: ToyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU torch's allocator says it; here a layer asks for a petabyte in the first step."""
    made = plan.make(config(folder, toy_config))
    monkeypatch.setattr(loop.preflight, "check", lambda *_: None)
    monkeypatch.setattr(OptionScorer, "forward", lambda *_: {"options": torch.empty(2**50)})
    with pytest.raises(TrainingError, match=r"step 0: out of memory on cpu: .*tried to allocate.*micro_batch_size"):
        loop.train(made, SingleProcess(), tmp_path)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
