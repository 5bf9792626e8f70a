"""From configurations to records: plan all, skip what is done, run the rest here or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness import provenance
from harness.config import RunConfig, TrackConfig
from harness.evaluation import scoring
from harness.execution.trackers import tracker
from harness.planning import plan
from harness.planning.plan import Plan
from harness.record import Record
from harness.store import Store
from harness.store.maintenance import relabel

Event = dict[str, Any]


def launch(
    configs: Sequence[RunConfig],
    store: Store,
    name: str,
    begin: Callable[[list[Plan], list[Plan]], None],
    watch: Callable[[Event], None],
) -> list[Record]:
    """Run the configurations that the store doesn't hold yet; all records, in the order of `configs`.

    Every configuration is checked before the first is run. `begin` gets all plans and those still to do,
    `watch` every event of a run: `run_id` with stage, step and steps, or with its final status; or a `note` about
    all. After Ctrl-C the runs that were under way have a record `interrupted`, and `KeyboardInterrupt` goes on.
    """
    plans = list({p.run_id: p for p in map(plan.make, configs)}.values())
    store.check_writable()  # after the checks: a refused run leaves no empty store behind
    done = {p.run_id: store.finished(p.run_id) for p in plans}
    todo = [p for p in plans if done[p.run_id] is None]
    _relabel(plans, done, store)
    for one in {(p.config.benchmark, p.dataset.fingerprint): p for p in plans}.values():
        scoring.ensure_controls(one, store)
    track = tracker(configs[0].track if configs else TrackConfig(), store, {p.run_id: p.config for p in plans}, watch)
    begin(plans, todo)
    begun: set[str] = set()
    by_id = {p.run_id: p for p in plans}
    started = provenance.now()

    def halt() -> None:
        for p in todo:
            under_way = p.run_id in begun or store.work(p.run_id).exists()  # a worker may be ahead of its word here
            if under_way and store.status(p.run_id) is None:
                store.write(scoring.interrupted(p, started, p.config.cluster.workers))

    def see(event: Event) -> None:
        if "run_id" in event:
            begun.add(event["run_id"])
        if event.get("error") and store.finished(event["run_id"]) is None:
            p = by_id[event["run_id"]]
            store.write(scoring.failed(p, RuntimeError(event["error"]), started, p.config.cluster.workers))
        track(event)
        watch(event)

    try:
        if todo:
            _run(todo, store, name, see, halt)
    except KeyboardInterrupt:
        halt()
        raise
    return [store.read(p.run_id) for p in plans]


def _relabel(plans: Sequence[Plan], done: Mapping[str, Record | None], store: Store) -> None:
    """Runs have the label that they are asked for with now: the records of finished ones stay as they are."""
    known, changed = store.labels(), {}
    for p in plans:
        record = done[p.run_id]
        now = known.get(p.run_id, record.config.get("label") if record else p.config.label)
        if p.config.label is not None and p.config.label != (now or ""):
            changed[p.run_id] = p.config.label
    if changed:
        relabel(store, changed)


def _run(todo: list[Plan], store: Store, name: str, watch: Callable[[Event], None], halt: Callable[[], None]) -> None:
    cluster = todo[0].config.cluster
    if cluster.workers > 0:
        from harness.execution import ray_train

        ray_train.execute([(p.run_id, p.config) for p in todo], store, cluster, watch, name, halt)
        return
    import torch

    from harness.execution import run
    from harness.models.distributed import PlainIo, device

    own = device(cluster.gpus_per_worker)
    threads = torch.get_num_threads()
    torch.set_num_threads(cluster.cpus_per_worker)
    try:
        for p in todo:
            watch({"run_id": p.run_id, "stage": "load", "step": 0, "steps": 1})
            record = run.execute(p, PlainIo(lambda event, p=p: watch({"run_id": p.run_id, **event}), own), store)  # type: ignore[misc]
            run.release_memory()
            watch({"run_id": p.run_id, "status": record.status})
    finally:
        torch.set_num_threads(threads)
