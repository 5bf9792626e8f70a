"""What the models of a stage are compared over: the options, or the whole vocabulary if they share one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.api import Method, Stage
from harness.config import RungConfig
from harness.models import encoding
from harness.models.vocabulary import prove
from harness.planning.plan import Plan
from harness.planning.stages import PlannedStage, rung_of
from harness.planning.tuning import trainer_of
from harness.record import Mix

if TYPE_CHECKING:
    from harness.models.encoding import Encoder


def mix(plan: Plan, planned: PlannedStage, encoders: Mapping[str, Encoder]) -> Mix | None:
    """What the stage's models are compared over, and how they are related; None if there is only one rung."""
    from harness.models.loading import load_config  # imports torch, which most plans don't need

    stage = planned.stage
    rungs = list(dict.fromkeys(rung_of(plan.stages, stage, role) for role in stage.roles))
    if len(rungs) < 2:
        return None
    configs = {name: load_config(plan.rungs[name]) for name in rungs}
    tokens = {name: encoders[name].tokens for name in rungs}
    families = {name: config.model_type for name, config in configs.items()}
    alike = all(tokens[name] == tokens[rungs[0]] for name in rungs)
    if "vocab" not in trainer_of(plan.method, stage).needs(stage.name):
        return Mix(over="options", tokenizers="one" if alike else "several", families=families)
    rows = {name: config.get_text_config().vocab_size for name, config in configs.items()}
    proof = prove(tokens, rows, f"method {plan.method.name!r}, stage {stage.name!r}")
    return Mix(over="vocabulary", tokenizers="one", families=families, tokens=proof.tokens, rows=dict(proof.rows))


def check_vocabularies(method: Method, planned: list[PlannedStage], stage: Stage, rungs: dict[str, RungConfig]) -> None:
    """Check that models compared over the vocabulary give equal tokens equal ids."""
    from harness.models import loading, vocabulary

    used = dict.fromkeys(rung_of(planned, stage, role) for role in stage.roles)
    vocabulary.prove(
        {name: encoding.load_encoder(rungs[name]).tokens for name in used},
        {name: loading.load_config(rungs[name]).get_text_config().vocab_size for name in used},
        f"method {method.name!r}, stage {stage.name!r}",
    )
