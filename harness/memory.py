"""How much memory a run needs, and how much there is."""

from __future__ import annotations

import psutil
import torch

from harness.plan import Plan, PlannedStage, rung_of

FROZEN, LEARNING = 4, 20
"""Bytes a weight: float32; and where it learns its gradient, AdamW's two moments and the best copy so far."""


def held(plan: Plan, planned: PlannedStage) -> int:
    """Bytes of the stage's weights and optimizers on each worker, without activations."""
    return sum(
        plan.infos[rung_of(plan.stages, planned.stage, name)].parameters * (LEARNING if role.trainable else FROZEN)
        for name, role in planned.stage.roles.items()
    )


def most_held(plan: Plan) -> int:
    """The same of the stage that needs most; of the student alone where nothing is trained."""
    return max((held(plan, planned) for planned in plan.stages), default=plan.student_parameters * FROZEN)


def free(device: torch.device) -> int:
    """Bytes that can still be had on the device."""
    if device.type == "cuda":
        available, _ = torch.cuda.mem_get_info(device)
        return int(available)
    return int(psutil.virtual_memory().available)
