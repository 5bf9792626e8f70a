"""Runs in an experiment tracker, besides the store: TensorBoard, MLflow, Weights & Biases.

One process writes them, from the events of all workers: once per run, whatever the number of workers. The store
remains the record: nothing reads back what is written here. If a tracker fails, it is switched off and the run
continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.config import RunConfig, TrackConfig
from harness.errors import ConfigError, first_line
from harness.events import Event, OnEvent
from harness.record import Record
from harness.store import Store
from harness.store.index import flat

EXPERIMENT = "hkdbench"
"""The MLflow experiment of the runs."""


class RunLog(Protocol):
    """One run in a tracker."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Figures by name at a step."""

    def close(self, status: str) -> None:
        """The run has ended, `done` or otherwise."""


Open = Callable[[str, RunConfig], RunLog]
"""Starts the log of a run, given its id."""


def tracker(
    track: TrackConfig, store: Store, configs: Mapping[str, RunConfig], on_note: Callable[[str], None]
) -> OnEvent:
    """A callback for all events of the runs. It logs losses by stage as they come, and a finished run's figures.

    `on_note` is called once for a tracker that fails. Raises `ConfigError` if a tracker's library is missing.
    """
    openers: dict[str, Open] = {}
    for name, (opened, library, how_to_get) in TRACKERS.items():
        if (where := getattr(track, name)) is not None:
            try:
                openers[name] = opened(where)
            except ImportError:
                raise ConfigError(f"track.{name} needs {library}, which isn't installed: {how_to_get}") from None
    logs: dict[tuple[str, str], RunLog] = {}

    def on_event(event: Event) -> None:
        run_id = event.get("run_id", "")
        if run_id not in configs or not {"losses", "validation", "status"} & event.keys():
            return
        for name, begin in list(openers.items()):
            try:
                log = logs.get((name, run_id)) or logs.setdefault((name, run_id), begin(run_id, configs[run_id]))
                _write(log, event, store)
                if "status" in event:
                    logs.pop((name, run_id)).close(event["status"])
            except Exception as error:  # a tracker's library or server may raise anything
                del openers[name]
                on_note(f"track.{name} failed, and is switched off: {first_line(error)}")

    return on_event


def _write(log: RunLog, event: Event, store: Store) -> None:
    """Log an event's figures, as `stage/role.term` and `stage/validation.role`; with the last event the record's
    metrics.

    A "/" in a metric's name becomes ".": some trackers store `split/metric` as a file, which can't also be a folder.
    """
    values = dict(event.get("losses", {}))
    values |= {f"validation.{role}": value for role, value in event.get("validation", {}).items()}
    if values:
        log.write({f"{event['stage']}/{name}": value for name, value in values.items()}, event["step"])
    if event.get("status") == "done" and isinstance(record := store.load(event["run_id"]), Record):
        for split, figures in record.metrics.items():
            log.write({f"{split}/{name.replace('/', '.')}": figure.value for name, figure in figures.items()}, 0)


# ---------------------------------------------------------------------------------------------- trackers


def _tensorboard(folder: Path) -> Open:
    """Event files, with one folder per run under `folder`."""
    from tensorboardX import SummaryWriter

    @dataclass(frozen=True)
    class TensorBoardLog:
        writer: Any

        def write(self, values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

        def close(self, status: str) -> None:
            self.writer.close()

    return lambda run_id, config: TensorBoardLog(SummaryWriter(str(folder / run_id)))


def _mlflow(uri: str) -> Open:
    """Runs in the experiment `hkdbench` of a tracking server, with the configuration as parameters."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    @dataclass(frozen=True)
    class MlflowLog:
        client: Any
        own: str

        def write(self, values: Mapping[str, float], step: int) -> None:
            now = int(time.time() * 1000)
            self.client.log_batch(self.own, metrics=[Metric(name, value, now, step) for name, value in values.items()])

        def close(self, status: str) -> None:
            self.client.set_terminated(self.own, "FINISHED" if status == "done" else "FAILED")

    def begin(run_id: str, config: RunConfig) -> RunLog:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
        own = client.create_run(experiment, run_name=run_id).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in flat(config.model_dump(mode="json")).items()]
        for start in range(0, len(params), 100):  # the maximum per call
            client.log_batch(own, params=params[start : start + 100])
        return MlflowLog(client, own)

    return begin


def _wandb(project: str) -> Open:
    """Runs of a project, online or offline (`wandb login`, `WANDB_MODE=offline`); the id is the run's own."""
    import wandb

    @dataclass(frozen=True)
    class WandbLog:
        own: Any

        def write(self, values: Mapping[str, float], step: int) -> None:
            self.own.log({**values, "step": step})  # its own step counter doesn't restart with each stage

        def close(self, status: str) -> None:
            self.own.finish(exit_code=int(status != "done"))

    def begin(run_id: str, config: RunConfig) -> RunLog:
        return WandbLog(
            wandb.init(
                project=project,
                id=run_id,
                name=run_id,
                config=config.model_dump(mode="json"),
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        )

    return begin


TRACKERS: dict[str, tuple[Callable[[Any], Open], str, str]] = {
    "tensorboard": (_tensorboard, "tensorboardX", "it comes with Ray Train; pip install tensorboardX"),
    "mlflow": (_mlflow, "mlflow-skinny", "pip install 'hkdbench[mlflow]'"),
    "wandb": (_wandb, "wandb", "pip install 'hkdbench[wandb]'"),
}
"""By the field of `TrackConfig`: the function that creates its logs, the library needed, and how to get it."""
