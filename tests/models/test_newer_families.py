"""Families that came later: their scores are those of plain transformers, and an image's questions share its pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import is_torchvision_available

from harness.api import Example
from harness.errors import ModelError, StepLocation
from harness.models.distributed import SingleProcess
from harness.models.encoding import Encoder, load_encoder
from harness.models.shared_prefix import PrefixSharingScorer
from harness.train import batches, loop
from harness.train.learner import Learner
from harness.train.role import RoleModel
from helpers import families
from helpers.common import ToyPlan, rung
from helpers.newer_families import NEEDS_TORCHVISION, NEWER
from helpers.photos import photographed

SWALLOW = ("video_llama_3", "minicpmv4_6")
"""Classes that take `logits_to_keep` among their other arguments and give all logits."""
TRAINED = ("llava", "glm4v", "video_llama_3", pytest.param("qwen3_5", marks=pytest.mark.slow))
"""The quickest of them, and linear attention."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("newer")

    def of(family: str) -> Path:
        built = root / family
        if family in NEEDS_TORCHVISION and not is_torchvision_available():
            pytest.skip("torchvision isn't installed")
        return built if built.is_dir() else families.build(NEWER[family], built, rows=1301)

    return of


@pytest.mark.parametrize("family", NEWER)
def test_scores_are_those_of_plain_transformers(family: str, folder: Callable[[str], Path]) -> None:
    """All logits of each question alone, read at its last token: the same to 1e-5 as in a padded batch."""
    scorer, encoder = families.loaded(folder(family))
    asked = photographed()
    with torch.inference_mode():
        got = scorer(encoder(asked))["options"]
        for example, row in zip(asked, got, strict=True):
            inputs = encoder.unpadded(example)
            del inputs["options"]
            logits_v = scorer.vlm(**inputs).logits[0, -1]
            want = torch.stack([logits_v[[t[0] for t in s]].logsumexp(-1) for s in encoder.letters])
            torch.testing.assert_close(row[: len(example.options)], want[: len(example.options)], atol=1e-5, rtol=0)
    assert got[:, 0].std() > 0.05  # else all of this would hold for a model that says nothing


@pytest.mark.parametrize("family", NEWER)
def test_questions_about_an_image_share_its_pass(family: str, folder: Callable[[str], Path]) -> None:
    """Linear attention's states (Qwen3.5, MiniCPM-V) follow the questions as keys and values do.

    Mllama's text looks at images across, through a mask that its tokens behind a cached prefix don't get: that is
    noticed, and each question is answered alone.
    """
    scorer, encoder = families.loaded(folder(family))
    asked = families.questions()
    shared = PrefixSharingScorer(scorer, encoder, torch.device("cpu"))
    apart = PrefixSharingScorer(scorer, encoder, torch.device("cpu"), share=False)
    for one, other in zip(shared(asked, 8), apart(asked, 8), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)
    assert shared.share == (family != "mllama"), shared.note


@pytest.mark.parametrize("family", SWALLOW)
def test_a_class_may_ignore_logits_to_keep(family: str, folder: Callable[[str], Path]) -> None:
    """Asked for one position, these give them all; the scorer sees the one of the answer."""
    scorer, encoder = families.loaded(folder(family))
    batch = encoder(families.examples())
    inputs = {key: value for key, value in batch.items() if key != "options"}
    with torch.inference_mode():
        assert scorer.vlm(**inputs, logits_to_keep=1).logits.shape[1] == batch["input_ids"].shape[1] > 1
        assert scorer(batch, ("vocab",))["vocab"].shape == (3, 1301)


def test_a_type_that_transformers_does_not_have_is_told(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from harness.models import loading

    for text, says in (
        ('{"model_type": "qwen2_5_omni"}', "its type 'qwen2_5_omni' isn't one that transformers' .* has"),
        ('{"model_type": "molmo", "auto_map": {}}', "'molmo' needs the code in its repository .*-hf in its name"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=rf"model 'S' \(.*\): not a vision-language model .*: {says}"):
            loading.load_vlm(rung(tmp_path))


# ------------------------------------------------------------------------------------ a step of distillation


@pytest.mark.parametrize("family", TRAINED)
def test_a_step_of_distillation_is_that_of_plain_transformers(family: str, toy_plan: ToyPlan, tmp_path: Path) -> None:
    """Two micro-batches of four: the loss is CE + t^2 KL by hand, and so are the gradients of all weights.

    The image's part learns too, with all weights or with adapters alone, and the loss of the batch falls.
    """
    made = NEWER[family]
    ladder = families.ladder(tmp_path, L={"family": made, "rows": 1301}, S={"family": made, "seed": 1})
    encoder = load_encoder(rung(tmp_path / "S"))
    want, grads = None, {}
    for adapters in ({}, {"lora": {"rank": 2, "alpha": 2.0}}):
        train = {"examples": 8, "micro_batch_size": 4, "lr": 0.003} | adapters
        plan = toy_plan("offline_kd", ladder=ladder, benchmark_settings={"size": 8}, train=train)
        ranks, planned = SingleProcess(), plan.stages[1]
        torch.manual_seed(0)
        roles = {
            name: RoleModel(name, of, plan, ranks, encoder, None, planned.stage.roles[name])
            for name, of in (("teacher", "L"), ("student", "S"))
        }
        learner = Learner(roles["student"], None, plan, ranks)
        parts = next(batches.of_stage(plan, planned, ranks, roles, frozenset(), 0))
        assert [len(part.examples) for part in parts] == [4, 4]
        if want is None:
            want, grads = by_plain_transformers(tmp_path, encoder, [e for part in parts for e in part.examples])
        losses, seen = [], set()
        for step in range(4):
            sums: dict[tuple[str, str], torch.Tensor] = {}
            location = StepLocation("offline_kd", "distil", step)
            loop._step(plan, ranks, location, planned.stage, 0.0, parts, roles, {"student": learner}, {}, sums)
            losses.append(float(sum(sums.values()) / 8))
            moved = {name: p.grad for name, p in learner.parameters.items() if p.grad is not None}
            assert all(grad.isfinite().all() for grad in moved.values())
            seen |= {name for name, grad in moved.items() if grad.any()}
            for name, grad in moved.items() if step == 0 and not adapters else ():
                torch.testing.assert_close(grad, grads[name.removeprefix("vlm.")], atol=2e-5, rtol=1e-3)
            learner.update(1.0, 1.0)
        assert abs(losses[0] - want) < 1e-5  # the adapters begin as nothing
        assert losses[-1] < losses[0]
        of_images = {name for name in learner.parameters if "vis" in name}
        assert len(seen & of_images) >= len(of_images) / 2 > 2, of_images - seen  # LLaVA reads its last layer but one


def by_plain_transformers(
    folder: Path, encoder: Encoder, examples: Sequence[Example]
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a batch and its gradients: each question alone, all logits, the letters' at the last position."""
    models = [AutoModelForImageTextToText.from_pretrained(folder / rung, dtype=torch.float32) for rung in ("L", "S")]
    first = [[tokens[0] for tokens in spelled] for spelled in encoder.letters]
    total = torch.zeros(())
    for example in examples:
        inputs = encoder.unpadded(example)
        del inputs["options"]
        logits = [model.train()(**inputs).logits[0, -1] for model in models]
        z_t, z_s = (torch.stack([of[tokens].logsumexp(0) for tokens in first[: len(example.options)]]) for of in logits)
        p_t = (z_t.detach() / 2).softmax(0)
        divergence = (p_t * (p_t.log() - (z_s / 2).log_softmax(0))).sum()
        total = total - z_s.log_softmax(0)[example.known_gold] + 4 * divergence
    loss = total / len(examples)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in models[1].named_parameters() if p.grad is not None}
