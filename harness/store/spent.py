"""What a run's training cost, by whom: the student that is scored, and all that taught it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.record import Record


@dataclass(frozen=True)
class Spent:
    """Of training. FLOPs and seconds are those of forward and backward passes."""

    student_flops: float
    teacher_flops: float
    """Of every other role: frozen or learning teachers, assistants, peers, anchors."""
    student_seconds: float
    teacher_seconds: float
    cache_share: float | None
    """Of the examples that frozen roles were shown, those that took no forward pass; None: nothing was frozen."""


def spent(record: Record) -> Spent:
    """By role, from the record. A role is the student's where it learns on the rung that is scored."""
    mine, frozen = set(), set()
    shown = 0
    rungs: dict[str, str] = {}  # the rung that a role's weights go back to
    for stage in record.stages:
        for name, role in stage.roles.items():
            key = f"{stage.name}.{name}"
            rungs[key] = rungs.get(role.weights, role.weights)
            if not role.trainable:
                frozen.add(key)
                shown += stage.examples
            elif rungs[key] == record.student:
                mine.add(key)
    roles = record.cost.roles
    forwards = sum(role.forwards for key, role in roles.items() if key in frozen)
    return Spent(
        student_flops=sum(role.flops for key, role in roles.items() if key in mine),
        teacher_flops=sum(role.flops for key, role in roles.items() if key not in mine),
        student_seconds=sum(role.seconds for key, role in roles.items() if key in mine),
        teacher_seconds=sum(role.seconds for key, role in roles.items() if key not in mine),
        cache_share=max(0.0, 1 - forwards / shown) if shown else None,
    )
