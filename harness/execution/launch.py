"""From configurations to records: plan all runs, skip those that are done, run the rest here or on Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import provenance
from harness.api import Example
from harness.config import RunConfig, TrackConfig
from harness.data import opening
from harness.events import Event, OnEvent, of_run, raise_if_stopped
from harness.execution import records
from harness.execution.trackers import tracker
from harness.planning import plan
from harness.planning.plan import Plan
from harness.record import Record
from harness.store import Store
from harness.store.maintenance import relabel


def launch(configs: Sequence[RunConfig], store: Store, name: str, on_event: OnEvent) -> list[Record]:
    """Run the configurations that the store doesn't have yet. Returns all records, in the order of `configs`.

    Every configuration is checked before the first run starts. `on_event` gets notes and the number of runs to do, then
    every event of the runs. After Ctrl-C, the runs in progress get a record `interrupted`, and `KeyboardInterrupt` is
    raised again.
    """
    with opening.reporting(lambda done, count: on_event({"images": (done, count)})):
        plans = {p.run_id: p for p in map(plan.make, configs)}
        done = {run_id: record for run_id in plans if (record := store.finished(run_id)) is not None}
        todo = [p for run_id, p in plans.items() if run_id not in done]
        for note in _open_images(todo):
            on_event({"note": note})
    store.check_writable()  # after the checks: a refused run creates no empty store
    _relabel(plans, done, store)
    for one in {(p.config.benchmark, p.dataset.fingerprint): p for p in plans.values()}.values():
        records.ensure_controls(one, store)
    track = tracker(
        configs[0].track if configs else TrackConfig(),
        store,
        {run_id: p.config for run_id, p in plans.items()},
        lambda text: on_event({"note": text}),
    )
    if len(plans) > len(todo):
        on_event({"note": f"{len(plans) - len(todo)} of {len(plans)} runs are in the store already"})
    if changed := _changed(list(plans.values()), done):
        on_event({"note": changed})
    if todo:
        on_event({"to_run": len(todo)})
    for warning in dict.fromkeys(warning for p in todo for warning in p.warnings):
        on_event({"note": f"warning: {warning}"})
    begun: set[str] = set()
    started = provenance.now()

    def on_run_event(event: Event) -> None:
        raise_if_stopped()
        if "run_id" in event:
            begun.add(event["run_id"])
        if event.get("error") and store.finished(event["run_id"]) is None:
            p = plans[event["run_id"]]
            store.write(records.failed(p, RuntimeError(event["error"]), started, p.config.cluster.workers))
        track(event)
        on_event(event)

    def on_interrupt() -> None:
        for p in todo:
            # A worker may have started before its event arrives.
            under_way = p.run_id in begun or store.work(p.run_id).exists()
            if under_way and store.status(p.run_id) is None:
                store.write(records.interrupted(p, started, p.config.cluster.workers))

    try:
        if todo and (cluster := todo[0].config.cluster).workers:
            from harness.execution import ray_train

            ray_train.execute([(p.run_id, p.config) for p in todo], store, cluster, on_run_event, name, on_interrupt)
        elif todo:  # in this process
            from harness.execution.run import execute, release_memory
            from harness.models.distributed import SingleProcess, device, torch_threads

            own_device = device(cluster.gpus_per_worker)
            with torch_threads(cluster.cpus_per_worker):
                for p in todo:
                    io = SingleProcess(of_run(p.run_id, on_run_event), own_device)
                    io.report({"stage": "load", "step": 0, "steps": 1})
                    record = execute(p, io, store)
                    release_memory()
                    io.report({"status": record.status})
    except KeyboardInterrupt:
        on_interrupt()
        raise
    return [store.read(run_id) for run_id in plans]


def _open_images(plans: Sequence[Plan]) -> list[str]:
    """Open all images that the runs read, once; returns notes about them. Raises `DataError`."""
    splits: dict[int, tuple[str, Sequence[Example]]] = {}
    for p in plans:
        learned = (*plan.LEARNT_FROM, "pool") if p.stages else ()
        for data, names in ((p.dataset, p.config.evaluate.splits), (p.training, learned)):
            for split in data.splits.keys() & set(names):
                where = f"benchmark {data.benchmark.name!r}, split {split!r}"
                splits[id(data.splits[split])] = where, data.splits[split]
    return opening.check(list(splits.values()), min((p.config.max_image_pixels for p in plans), default=1))


def _relabel(plans: Mapping[str, Plan], done: Mapping[str, Record], store: Store) -> None:
    """Give runs the labels that they have in `plans` now. The records of finished ones don't change."""
    known, changed = store.labels(), {}
    for run_id, p in plans.items():
        own = done[run_id].config.get("label") if run_id in done else p.config.label
        now = known.get(run_id, own)
        if p.config.label is not None and p.config.label != (now or ""):
            changed[run_id] = p.config.label
    if changed:
        relabel(store, changed)


def _changed(plans: Sequence[Plan], done: Mapping[str, Record]) -> str:
    """The note about finished runs whose method or benchmark has changed since (a plugin's change gives a new id)."""
    changed: dict[str, list[str]] = {}
    for p in plans:
        for name, digest in p.sources.items() if p.run_id in done else ():
            if done[p.run_id].provenance.sources.get(name) != digest:
                changed.setdefault(name, []).append(p.run_id)
    if not changed:
        return ""
    runs = list(dict.fromkeys(run_id for ids in changed.values() for run_id in ids))
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return (
        f"not run again, although the source of {', '.join(changed)} has changed since: {', '.join(runs[:3])}{more}; "
        "if that changes numbers, raise TRAINING in harness/versions.py or delete the folders of these runs"
    )
