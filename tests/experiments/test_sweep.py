"""Sweeps: the space and what is refused, and searches on a real Ray cluster of two CPUs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.tune.search import SearchGenerator

from harness.config import parse, read_toml
from harness.errors import ConfigError, StoreError
from harness.experiments import ray_tune, selection
from harness.experiments import sweep as sweeping
from harness.experiments.outcome import Trial, ranked
from harness.experiments.space import Dimension, Point
from harness.experiments.sweep import Search, SweepConfig, points
from harness.record import Record
from harness.store import Store
from helpers.cluster import CLUSTER, Start, ended
from helpers.common import ROOT, Cli


def config(**fields: Any) -> SweepConfig:
    """A sweep of offline_kd over one setting, with these fields."""
    method = {"method": "offline_kd", "space": {"settings.alpha": {"uniform": [0, 3]}}}
    base = {"name": "s", "trials": 4, "benchmarks": ["scenes_factuality"], "methods": [method]}
    return parse(SweepConfig, base | fields, "sweep.toml")


def with_space(space: dict[str, Any], **fields: Any) -> SweepConfig:
    return config(methods=[{"method": "offline_kd", "space": space}], **fields)


def drawn(sweep: SweepConfig) -> list[Point]:
    found = points(Search(sweep, 0, "scenes_factuality"))
    assert found is not None
    return found


def test_a_sweep_goes_on_with_its_own_code_only(tmp_path: Path) -> None:
    """Another version of training, or an edited plugin; other code than that changes no number."""
    store, ours = Store(tmp_path), {"training": 2, "plugins": {}}
    selection._claim(config(), {"offline_kd": ours}, store)
    selection._claim(config(), {"offline_kd": dict(ours)}, store)
    for other in ({"training": 3}, {"plugins": {"method acme": "0"}}):
        with pytest.raises(StoreError, match="sweep 's' was begun in .* with other code"):
            selection._claim(config(), {"offline_kd": ours | other}, store)


# -------------------------------------------------------------------------------------------------- space

SWITCHED = {
    "settings.divergence": {"choice": ["forward_kl", "jsd"]},
    "settings.jsd_beta": {"uniform": [0.2, 0.8], "steps": 3, "when": {"settings.divergence": "jsd"}},
}


def test_a_grid_leaves_out_what_a_switch_turns_off() -> None:
    grid = with_space(SWITCHED, search="grid", trials=4)
    assert sorted(drawn(grid), key=str) == [
        {"settings.divergence": "forward_kl"},
        {"settings.divergence": "jsd", "settings.jsd_beta": 0.2},
        {"settings.divergence": "jsd", "settings.jsd_beta": 0.5},
        {"settings.divergence": "jsd", "settings.jsd_beta": 0.8},
    ]
    assert drawn(grid) == drawn(grid)
    assert drawn(grid) != drawn(with_space(SWITCHED, search="grid", trials=4, seed=1))  # the seed gives the order


def test_random_points_are_seeded_distinct_and_inside() -> None:
    space = SWITCHED | {"train.lr": {"log_uniform": [1e-4, 1e-2]}, "settings.temperature": {"integer": [1, 8]}}
    first = drawn(with_space(space, trials=64))
    assert first == drawn(with_space(space, trials=64))
    assert first != drawn(with_space(space, trials=64, seed=1))
    assert first[:8] == drawn(with_space(space, trials=8))  # more trials begin with the same ones
    assert len({tuple(point.items()) for point in first}) == 64
    for point in first:
        assert ("settings.jsd_beta" in point) == (point["settings.divergence"] == "jsd")
        assert isinstance(point["settings.temperature"], int)
    rates = sorted(float(point["train.lr"]) for point in first)
    assert 1e-4 <= rates[0] < rates[-1] <= 1e-2
    assert 4e-4 < rates[32] < 2.5e-3  # the median of a log-uniform setting is the geometric mean: 1e-3


def test_values_of_a_grid() -> None:
    assert Dimension(log_uniform=(1, 100), steps=3).values() == pytest.approx((1, 10, 100))
    assert Dimension(integer=(2, 4)).values() == (2, 3, 4)
    assert Dimension(integer=(1, 9), steps=3).values() == (1, 5, 9)
    assert Dimension(uniform=(0, 1)).values() is None


def test_a_trial_sees_no_test_split_and_keeps_the_budget() -> None:
    sweep = config(train={"examples": 64}, seeds=[7])
    run = Search(sweep, 0, "scenes_factuality").trial({"settings.alpha": 2.0, "train.lr_by_rung.S": 0.1}, 7)
    assert run.evaluate.splits == ("validation",)
    assert (run.settings, run.train.lr_by_rung, run.train.examples) == ({"alpha": 2.0}, {"S": 0.1}, 64)
    assert run.tags == ("sweep:s", "trial")


def test_the_best_is_the_earlier_of_equal_ones() -> None:
    trials = [
        Trial(number=n, point={}, status=status, score=score)
        for n, status, score in ((1, "done", 0.5), (2, "stopped", 0.9), (3, "done", 0.7), (4, "done", 0.7))
    ]
    assert [trial.number for trial in ranked(trials)] == [3, 4, 1]  # a stopped trial's figure is of another kind


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"space": {"settings.alhpa": {"uniform": [0, 1]}}},
            "unknown setting 'settings.alhpa': did you mean 'settings.al",
        ),
        ({"space": {"train.lrr": {"uniform": [0, 1]}}}, "unknown setting 'train.lrr': did you mean 'train.lr'"),
        ({"space": {"alpha": {"uniform": [0, 1]}}}, "'alpha': expected settings.NAME or train.NAME"),
        ({"space": {"train.examples": {"integer": [1, 9]}}}, "train.examples is the same for all trials"),
        (
            {"space": {"settings.temperature": {"uniform": [0, 3]}}},
            "temperature=0: offline_kd: temperature = 0.0: expected",
        ),
        ({"space": {"settings.divergence": {"choice": ["kl"]}}}, "divergence=kl"),
        ({"space": {"settings.alpha": {"uniform": [2, 1]}}}, "uniform = [2, 1]: expected the smaller end first"),
        ({"space": {"settings.alpha": {"log_uniform": [0, 1]}}}, "log_uniform = [0, 1]: expected ends above 0"),
        ({"space": {"settings.alpha": {"uniform": [0, 1], "choice": [1]}}}, "expected one of choice, uniform"),
        (
            {"space": {"settings.alpha": {"uniform": [0, 1], "when": {"settings.tcrd": True}}}},
            "which doesn't come before it in the space",
        ),
        ({"search": "grid"}, "settings.alpha is a range, and a grid needs its values: give it steps = N"),
        ({"space": SWITCHED, "search": "grid", "trials": 5}, "has 4 points, trials = 5: every method gets the same"),
        ({"space": {"settings.alpha": {"choice": [1, 2]}}}, "hardly more than 2 points, trials = 4: lower trials"),
        ({"seeds": [0]}, "confirm.seeds has 0, which the trials have too: expected fresh seeds"),
        ({"cluster": {"workers": 0}}, "a sweep's trials run on Ray; expected at least 1"),
        ({"methods": [{"method": "offline_kdd", "space": {"settings.alpha": {"choice": [1]}}}]}, "offline_kd"),
        ({"trials": 0}, "trials = 0"),
        ({"name": "a/b"}, "name = 'a/b'"),
        ({"search": "bayes"}, "search = 'bayes'"),
    ],
    ids=str,
)
def test_what_is_refused_says_what_mends_it(fields: dict[str, Any], message: str) -> None:
    space = fields.pop("space", None)
    with pytest.raises(ConfigError) as refused:
        sweeping.check(with_space(space, **fields) if space else config(**fields))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_these_modules_import_ray(root: Path) -> None:
    importing = re.compile(r"^\s*(import ray|from ray)\b", re.MULTILINE)
    found = {
        p.relative_to(root).as_posix() for p in (root / "harness").rglob("*.py") if importing.search(p.read_text())
    }
    assert found == {
        "harness/execution/metrics.py",
        "harness/execution/ray_cluster.py",
        "harness/execution/ray_train.py",
        "harness/experiments/ray_tune.py",
    }


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.toml")), ids=lambda p: p.stem)
def test_sweeps_name_what_exists(file: Path) -> None:
    sweep = parse(SweepConfig, read_toml(file), file.name)
    assert sweep.name == file.stem
    sweeping.check(sweep)


# ------------------------------------------------------------------------------------------------ command


@pytest.fixture
def toy_sweep(toy: str, toy_ladder: str, tmp_path: Path) -> Any:
    """Writes a sweep's file: small runs of a method on the toy benchmark; the path."""

    def write(method: str, space: str, head: str = "", settings: str = "") -> Path:
        path = tmp_path / "sweep.toml"
        path.write_text(
            f'name = "toy"\nbenchmarks = ["toy"]\nladder = "{toy_ladder}"\nplugins = ["{toy}"]\n{head}\n'
            'train = { examples = 96, batch_size = 8, lr = 0.003, validations = 2, cache = "auto" }\n'
            "evaluate = { resamples = 100 }\n"
            f'[[methods]]\nmethod = "{method}"\nsettings = {{ {settings} }}\n[methods.space]\n{space}\n'
        )
        return path

    return write


def test_a_dry_run_prints_space_and_price(cli: Cli, toy_sweep: Any, tmp_path: Path) -> None:
    file = toy_sweep("offline_kd", '"settings.alpha" = { uniform = [0, 3] }', "trials = 5\nconfirm = { top = 2 }")
    said = cli("sweep", file, "--dry-run", "--store", tmp_path / "store", "--json")
    (row,) = said.json["searches"]
    assert row["runs"] == 5 + 2 * 3 + 3  # trials, two finalists from three seeds, the winner again
    # Of 4 L (tuned: 3, frozen: 1) and 3 S all but the first of each seed's 4 L can be shared.
    single = row["train_flops"] / row["runs"]
    shared = row["shared_flops"] / row["runs"]
    assert 0.5 < shared / single < 1
    assert row["least_flops"] == pytest.approx(row["train_flops"] - shared * (14 - 4))
    text = cli("sweep", file, "--dry-run").out
    assert "settings.alpha               uniform 0 to 3" in text
    assert "14 runs" in text
    assert not (tmp_path / "store").exists()


def test_a_searcher_gives_the_known_points_in_order_and_suggests_the_others() -> None:
    listed = with_space(SWITCHED, search="grid", trials=4)
    search = Search(listed, 0, "scenes_factuality")
    searcher = ray_tune._searcher(search)
    suggested = [ray_tune._unpack(searcher.suggest(f"trial-{n}")) for n in range(4)]
    assert suggested == list(enumerate(drawn(listed), 1))
    tpe = Search(with_space(SWITCHED, search="tpe"), 0, "scenes_factuality")
    first, second = ([ray_tune._searcher(tpe).suggest(str(n)) for n in range(3)] for _ in range(2))
    assert first == second
    for point in first:
        assert ("settings.jsd_beta" in point) == (point["settings.divergence"] == "jsd")


def test_a_damaged_state_says_what_is_damaged(tmp_path: Path) -> None:
    """As its driver leaves it that is killed while Tune copies the files."""
    search = Search(with_space(SWITCHED, search="tpe"), 0, "scenes_factuality")
    assert "No experiment snapshot file" in str(ray_tune.damaged(tmp_path))
    (tmp_path / "experiment_state-2026-01-02.json").write_text('{"trial_data": []}')
    assert "Unable to find checkpoint" in str(ray_tune.damaged(tmp_path))
    SearchGenerator(ray_tune._searcher(search)).save_to_dir(str(tmp_path), "2026-01-02")
    assert ray_tune.damaged(tmp_path) is None
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3  # of the trials, the search and Optuna
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        assert ray_tune.damaged(tmp_path)
        file.write_bytes(content)
    assert ray_tune.damaged(tmp_path) is None


def runs_of(store: Store, tag: str) -> list[Record]:
    return [r for r in store.records() if r.kind == "run" and tag in r.tags]


class TestCluster:
    """What needs the cluster."""

    pytestmark = CLUSTER

    def test_a_sweep_pays_for_its_teacher_once(self, start: Start, cli: Cli, toy_sweep: Any, tmp_path: Path) -> None:
        space = '"settings.temperature" = { choice = [1, 4] }\n"settings.alpha" = { choice = [0.5, 2] }'
        file = toy_sweep("offline_kd", space, 'trials = 4\nsearch = "grid"\nconfirm = { top = 2, seeds = [0] }')
        said = ended(start("sweep", file, "--store", "store", "--json"))
        assert said.code == 0, said.err
        (found,) = said.json["searches"].values()
        assert [trial["status"] for trial in found["trials"]] == ["done"] * 4
        store = Store(tmp_path / "store")
        trials = runs_of(store, "trial")
        assert {"sweep:toy"} == {tag for r in trials for tag in r.tags if tag.startswith("sweep")}
        assert [set(r.metrics) for r in trials] == [{"validation"}] * 4

        # One tuned teacher of 96 examples, one pass over the 48: whichever trial came first has the bill.
        billed = Counter({"tuned": 0, "frozen": 0, "shared": 0})
        for r in trials:
            teacher, frozen = r.cost.roles["teacher.teacher"], r.cost.roles["distil.teacher"]
            billed += Counter(tuned=teacher.trained, frozen=frozen.forwards, shared=frozen.shared)
            assert frozen.recalled == 96  # every example of every step
            assert r.cost.roles["distil.student"].trained == 96
        assert billed == {"tuned": 96, "frozen": 48, "shared": 3 * 48}
        assert sorted(r.stages[0].taken_over for r in trials) == [False, True, True, True]

        # Two finalists from fresh seeds on validation alone; the one that led, on test too.
        assert [set(r.metrics) for r in runs_of(store, "finalist")] == [{"validation"}] * 2
        (winner,) = runs_of(store, "winner")
        assert set(winner.metrics) == {"validation", "test"}
        assert found["winner"]["runs"] == [winner.run_id]
        assert winner.seed == 0
        assert found["figures"]["test"]["accuracy"]["value"] == winner.metrics["test"]["accuracy"].value

        # The numbers are those of a run by itself, bit for bit: nothing in them says that the teacher was shared.
        alone = next(r for r in trials if r.stages[0].taken_over)
        with_settings = [f"settings.{name}={value}" for name, value in alone.config["settings"].items()]
        args = ["--method", "offline_kd", "--benchmark", "toy", "--ladder", alone.config["ladder"], "--seed", 100]
        args += ["--plugin", alone.config["plugins"][0], "--workers", 0, "--store", tmp_path / "alone"]
        train = ["examples=96", "batch_size=8", "lr=0.003", "validations=2", "cache=auto"]
        sets = [
            *with_settings,
            *(f"train.{s}" for s in train),
            'evaluate.splits=["validation"]',
            "evaluate.resamples=100",
        ]
        assert cli("run", *args, *(x for s in sets for x in ("--set", s))).code == 0
        other = Store(tmp_path / "alone")
        frames = [s.predictions(alone.run_id).drop(columns="seconds") for s in (store, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
        pd.testing.assert_frame_equal(store.history(alone.run_id), other.history(alone.run_id), check_exact=True)

        # All of it is in the store: nothing is started. The name is this content's.
        again = cli("sweep", file, "--store", tmp_path / "store", "--json")
        assert (again.code, again.json) == (0, said.json)
        file.write_text(file.read_text().replace("[0.5, 2]", "[0.5, 3]"))
        refused = cli("sweep", file, "--store", tmp_path / "store")
        assert refused.code == 2
        assert "sweep 'toy' is already in" in refused.err
        assert (
            "with other content (methods differ): give this one another name, or delete .sweeps/toy.js" in refused.err
        )

    def test_a_killed_driver_goes_on_where_it_was(self, start: Start, toy_sweep: Any, tmp_path: Path) -> None:
        (tmp_path / "free").mkdir()
        (tmp_path / "free" / "go").touch()
        (tmp_path / "held").mkdir()
        space = '"settings.folder" = { choice = ["free", "held"] }\n"train.lr" = { choice = [0.001, 0.003] }'
        # The seed gives the order: free, free, held, held.
        sweep = toy_sweep("slow", space, 'trials = 4\nsearch = "grid"\nseed = 5\nconfirm = { top = 0 }')
        driver = start("sweep", sweep, "--store", "store", "--json")
        store, deadline = Store(tmp_path / "store"), time.monotonic() + 400
        while len(list((tmp_path / "held").glob("pid-*"))) < 1 or len(runs_of(store, "trial")) < 2:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        first = {r.run_id: r.provenance.started for r in runs_of(store, "trial")}
        state = tmp_path / "store" / ".sweeps" / "toy"
        shutil.copytree(state, tmp_path / "state")
        (tmp_path / "held" / "go").touch()
        said = ended(start("sweep", sweep, "--store", "store", "--json"))
        assert said.code == 0, said.err
        trials = runs_of(store, "trial")
        assert len(trials) == 4
        assert {r.run_id: r.provenance.started for r in trials if r.run_id in first} == first
        assert max(r.provenance.resumed for r in trials) == 1  # the one that waited goes on from its checkpoint
        (found,) = said.json["searches"].values()
        assert [trial["status"] for trial in found["trials"]] == ["done"] * 4

        # A driver that is killed while Tune writes its state: the search starts again, with the same points.
        (tmp_path / "state").rename(state)
        (kept,) = state.rglob("experiment_state-*.json")
        kept.write_bytes(kept.read_bytes()[:-100])
        (tmp_path / "store" / ".sweeps" / "toy.result.json").unlink()
        again = ended(start("sweep", sweep, "--store", "store", "--json"))
        assert "starts again, as its state can't be read: " in again.err
        assert "starts again" not in said.err
        assert again.json == said.json
        assert {r.run_id: r.provenance.started for r in runs_of(store, "trial")} == {
            r.run_id: r.provenance.started for r in trials
        }

    def test_one_trial_at_a_time_where_no_more_fit(self, start: Start, toy_sweep: Any, tmp_path: Path) -> None:
        """Two CPUs, and each trial needs both: a group of two workers; or one worker, and the worst is stopped."""
        space = '"train.lr" = { choice = [0.003, 1e-7] }'
        one = "trials = 1\nconfirm = { top = 0 }\ncluster = { workers = 2 }"
        said = ended(start("sweep", toy_sweep("finetune", space, one), "--store", "two", "--json"))
        assert said.code == 0, said.err
        assert [r.provenance.workers for r in runs_of(Store(tmp_path / "two"), "trial")] == [2]

        head = 'trials = 2\nsearch = "grid"\nseed = 1\nconfirm = { top = 0 }\ncluster = '

        asha = 'stop = "asha"\nreduction = 2\n' + head
        file = toy_sweep("finetune", space, asha + "{ cpus_per_worker = 2 }")
        (tmp_path / "one" / ".sweeps" / "toy" / "tune" / "1-finetune-S-toy").mkdir(parents=True)  # killed as it began
        said = ended(
            start(
                "sweep",
                file,
                "--store",
                "one",
                "--set",
                "train.validations=6",
                "--set",
                "train.examples=480",
                "--set",
                "train.shuffle_options=none",
                "--json",
            )
        )
        assert said.code == 0, said.err
        assert "note     1-finetune-S-toy  starts again, as its state can't be read: " in said.err
        assert "Traceback" not in said.err
        (found,) = said.json["searches"].values()
        assert [trial["status"] for trial in found["trials"]] == ["done", "stopped"]
        assert found["trials"][1]["validations"] < 6
        store = Store(tmp_path / "one")
        statuses = {r.config["train"]["lr"]: r for r in runs_of(store, "trial")}
        assert statuses[1e-7].status == "interrupted"
        assert statuses[1e-7].error is not None
        assert "the sweep's rule (asha) stopped its trial after" in statuses[1e-7].error.message
        assert not store.work(statuses[1e-7].run_id).exists()

    def test_a_trial_that_fails_or_loses_its_worker_costs_no_other(
        self,
        start: Start,
        toy_sweep: Any,
        tmp_path: Path,
    ) -> None:
        """Optuna suggests (once, always, never, never): one setting kills its worker once, one every time.

        Nor does a tracker that fails: the trial goes on without it and says so.
        """
        (tmp_path / "there").touch()
        space = '"settings.marker" = { choice = ["", "once", "there"] }'
        head = 'trials = 4\nseed = 1\nsearch = "tpe"\nconfirm = { top = 0 }\ncluster = { max_failures = 1 }'
        track = ["--set", f"track.tensorboard={tmp_path / 'there'}"]  # a file
        said = ended(start("sweep", toy_sweep("accident", space, head), "--store", "store", "--json", *track))
        assert said.code == 1
        assert said.err.count("track.tensorboard failed, and is switched off: ") == 2  # two trials are one run
        assert "Traceback" not in said.err
        (found,) = said.json["searches"].values()
        trials = [(t["point"]["settings.marker"], t["status"]) for t in found["trials"]]
        assert trials == [("once", "done"), ("", "failed"), ("there", "done"), ("there", "done")]
        assert "lost its worker 2 times" in found["trials"][1]["error"]
        store = Store(tmp_path / "store")
        records = {r.settings["marker"]: r for r in runs_of(store, "trial")}
        assert {marker: r.status for marker, r in records.items()} == dict(trials)
        assert records["once"].provenance.resumed == 1
