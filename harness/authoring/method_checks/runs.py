"""Checks of complete runs: resumed after an interruption, divided among two workers, and the bill."""

from __future__ import annotations

import math
import os
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from harness.authoring.method_checks.case import Broken, Case
from harness.config import RunConfig
from harness.evaluation.predict import evaluate
from harness.events import Event
from harness.models.distributed import SingleProcess, TorchGroup, silent, torch_threads
from harness.planning import plan
from harness.planning.tuning import trainer_of
from harness.train import loop
from harness.train.step import MOST_READ

SECONDS = 300
"""How long two workers may wait for each other: the machine may be busy."""

TOLERANCE = 1e-3


class _Stop(Exception):
    pass


@torch_threads(1)  # sums in one order: equal results are equal to the bit
def resume(case: Case) -> None:
    """A run that is killed once in every stage, and resumed, ends with the same bits."""
    straight = case.straight
    stops = {(p.stage.name, math.ceil(p.steps / 2) + 1) for p in case.plan.stages if p.steps > 1}

    def stop(event: Event) -> None:
        if (at := (event["stage"], event["step"])) in stops:
            stops.remove(at)
            raise _Stop

    with TemporaryDirectory() as folder:
        resumed = None
        while resumed is None:
            try:
                resumed = loop.train(case.planned(), SingleProcess(stop if stops else silent), Path(folder))
            except _Stop:
                continue
    advice = (
        "the method keeps state between steps (an attribute, a module variable, its own random generator), "
        "which isn't in a checkpoint: compute everything from the step"
    )
    for one, other in zip(straight.history, resumed.history, strict=True):
        if one != other:
            raise Broken(
                f"stage {one['stage']!r}, step {one['step']}: {one['role']}.{one['term']} is {one['value']:.6g} in an "
                f"uninterrupted run and {other['value']:.6g} in a resumed one: {advice}"
            )
    before, after = straight.student.vlm.state_dict(), resumed.student.vlm.state_dict()
    if not all(torch.equal(before[key], after[key]) for key in before):
        raise Broken(f"the student's weights differ after a resumed run: {advice}")
    counts, again = (_billed(t) for t in (straight, resumed))
    if counts != again:
        raise Broken(f"a resumed run is billed for {again} forwards, an uninterrupted one for {counts}: {advice}")


@torch_threads(1)  # sums in one order: equal results are equal to the bit
def two_workers(case: Case) -> None:
    """Two workers of 3 and 2 examples per step give the losses and the bill of one worker with 5."""
    if any(trainer_of(case.method, p.stage).couples(p.stage.name) for p in case.plan.stages) or not case.plan.stages:
        return  # the planner refuses several workers
    straight = case.straight
    with TemporaryDirectory() as folder:
        context = start_processes(
            _rank, args=(2, case.config(), Path(folder)), nprocs=2, join=False, start_method=_start_method()
        )
        try:
            _wait(context)
        except ProcessRaisedException as error:
            message = str(error).strip().splitlines()[-1]
            raise Broken(f"a run fails with two workers but not with one: {message}") from None
        finally:
            for process in context.processes:
                process.kill()
        both = torch.load(Path(folder) / "out.pt", weights_only=True)
    single = _losses(straight)
    for (name, one), (_, other) in zip(single, both["losses"], strict=True):
        if abs(one - other) > TOLERANCE * (1 + abs(one)):
            raise Broken(
                f"{name} is {one:.6g} with one worker and {other:.6g} with two: a loss may depend only on its own "
                "example, the stage and its progress, not on the number of examples or on earlier calls"
            )
    counts = _billed(straight)
    if both["bill"] != counts:
        raise Broken(
            f"two workers are billed for {both['bill']} forwards, one for {counts}: forward every role in every step"
        )


def _start_method() -> str:
    """Fork saves both workers ten seconds of imports, but autograd's threads don't survive it on a GPU."""
    return "fork" if sys.platform == "linux" and not torch.cuda.is_available() else "spawn"


def _wait(context: Any) -> None:
    waited = 0
    while not context.join(timeout=1):
        waited += 1
        if waited > 2 * SECONDS:
            raise Broken(
                "two workers waited for each other forever: they don't forward the same roles in the same order"
            )


def _rank(rank: int, world: int, config: RunConfig, folder: Path) -> None:
    """One of the workers; rank 0 writes losses and bill to the folder."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides DDP's warnings; errors reach the parent otherwise
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=SECONDS)
    )
    group = dist.group.WORLD
    assert group is not None
    result = loop.train(plan.make(config), TorchGroup(group), folder / "work")
    if rank == 0:
        torch.save({"losses": _losses(result), "bill": _billed(result)}, folder / "out.pt")
    dist.destroy_process_group()


def _billed(result: loop.Trained) -> dict[str, int]:
    """Examples forwarded, and tokens of responses written and read, by role."""
    return {
        f"{role}{unit}": count
        for role, cost in result.costs.items()
        for unit, count in (("", cost.forwards), (" (written)", cost.generated), (" (read)", cost.scored))
        if count or not unit
    }


def _losses(result: loop.Trained) -> list[tuple[str, float]]:
    return [
        (f"stage {row['stage']!r}, step {row['step']}: {row['role']}.{row['term']}", row["value"])
        for row in result.history
        if row["term"].startswith("loss/")
    ]


@torch_threads(1)  # sums in one order: equal results are equal to the bit
def cost(case: Case) -> None:
    """The bill contains every role of every stage, and every view at test time."""
    trained = case.straight
    for stage in trained.stages:
        for name, role in stage.roles.items():
            billed = trained.costs[f"{stage.name}.{name}"]
            passes = billed.forwards / stage.examples  # one per view
            most = MOST_READ + 2 if billed.scored else 2  # one per view, and one per set of responses
            if role.trainable and (passes not in range(1, most + 1) or billed.trained != billed.forwards):
                raise Broken(
                    f"stage {stage.name!r}: the learner {name!r} is billed for {billed.forwards} forwards and "
                    f"{billed.trained} backward passes of {stage.examples} examples: forward it in every step"
                )
            if passes > most or (passes and not billed.flops > 0):
                raise Broken(
                    f"stage {stage.name!r}: role {name!r} is billed for {billed.forwards} forwards of "
                    f"{stage.examples} examples, {billed.flops:g} FLOPs: forward it once per step and view"
                )
    examples = case.plan.dataset.splits["test"]
    asking = case.plan.asking
    asked = sum(len(asking.views(example)) for example in examples)
    rows, forwards, _ = evaluate((trained.student, trained.encoder), asking, examples, "test", 4, SingleProcess())
    if forwards != asked or len(rows) != len(examples):
        raise Broken(f"{len(examples)} test examples in {asked} views were billed as {forwards} forwards")
