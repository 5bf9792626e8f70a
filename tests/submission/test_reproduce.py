"""A run is trained again from its record: equal bits here, forged answers found, another version of the code said."""

from __future__ import annotations

import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.config import RunConfig, parse
from harness.execution.launch import launch
from harness.leaderboard import leaderboard
from harness.record import Provenance, Record
from harness.report.run import command, configuration
from harness.settings import overlay
from harness.store import Store, checksums
from harness.store.maintenance import merge
from harness.store.packed.pack import pack
from harness.submission import reproduce
from harness.submission.verify import verify
from harness.versions import TRAINING
from helpers.common import Cli, Said, ToyConfig
from helpers.runs import add

SMALL = {"examples": 48, "shuffle_options": "content", "lr_by_rung": {"S": 0.002}}


@pytest.fixture(scope="module")
def trained(toy_config: ToyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one row, trained here, and the controls."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    configs = [toy_config(seed=seed, train=SMALL, tags=["a tag"]) for seed in range(3)]
    records = launch(configs, Store(root), "three", lambda _: None)
    assert [record.status for record in records] == ["done"] * 3
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    """A copy that a test may spoil."""
    shutil.copytree(trained, tmp_path / "runs")
    return Store(tmp_path / "runs")


def of_seed(store: Store, seed: int) -> str:
    return next(r.run_id for r in store.records() if r.kind == "run" and r.seed == seed)


@pytest.fixture
def again(cli: Cli, toy: str, store: Store) -> Callable[..., Said]:
    """`reproduce` with the toy plugin."""
    return lambda *args: cli("reproduce", *args, "--store", store.url, "--plugin", toy)


def replaced(
    store: Store, run_id: str, change: Callable[[pd.DataFrame], None] = lambda _: None, **provenance: Any
) -> None:
    """The run with changed answers or another origin, and with sums that fit them, as a forger would write it."""
    record, frame, history = store.read(run_id), store.predictions(run_id), store.history(run_id)
    change(frame)
    made_by = Provenance.model_validate({**record.provenance.model_dump(), **provenance})
    shutil.rmtree(store.root / run_id)
    store.write(record.model_copy(update={"provenance": made_by}), frame, history)


def flip(frame: pd.DataFrame, count: int = 1) -> None:
    """The first wrong answers to the test split become right, or right ones wrong if none is; the scores with them."""
    rows = frame.index[(frame["split"] == "test") & (frame["chosen"] != frame["gold"])]
    rows = rows if len(rows) else frame.index[frame["split"] == "test"]
    for row in rows[:count]:
        now = (frame.at[row, "chosen"] + 1) % 3 if frame.at[row, "chosen"] == frame.at[row, "gold"] else None
        chosen = frame.at[row, "gold"] if now is None else now
        scores = np.array(frame.at[row, "scores"])
        scores[[frame.at[row, "chosen"], chosen]] = scores[[chosen, frame.at[row, "chosen"]]]
        frame.at[row, "chosen"], frame.at[row, "scores"] = chosen, scores


def row_of(store: Store) -> leaderboard.Row:
    (row,) = (row for row in leaderboard.tables(store)[0].rows if row.kind == "run")
    return row


# -------------------------------------------------------------------------------------------- reproduced


def test_bit_for_bit(store: Store, again: Callable[..., Said], cli: Cli) -> None:
    run_id = of_seed(store, 1)
    assert (row_of(store).reproduced, row_of(store).refuted) == ((), ())
    said = again(run_id, "--json")
    assert (said.code, said.json["verdict"], said.json["reproduced"]) == (0, "equal", True)
    assert said.json["differences"] == []
    assert {one["equal"] for one in said.json["splits"].values()} == {1.0}
    assert (store.root / said.json["file"]).is_file()
    assert not list((store.root / ".work").glob(".reproduce-*"))  # nothing is left of the training
    assert row_of(store).reproduced == (run_id,)
    assert " 1/3 " in cli("rank", "--store", store.url).out
    shown = cli("show", run_id, "--store", store.url).out
    assert ": reproduced, bit for bit\n" in shown
    assert next(f.state for f in verify(store, run_id).findings if f.check == "reproduced") == "ok"
    # the result goes where its run goes
    assert merge(Store(store.root.parent / "merged"), store).copied
    assert row_of(Store(store.root.parent / "merged")).reproduced == (run_id,)


def test_an_edited_result_counts_for_nothing(store: Store, again: Callable[..., Said]) -> None:
    run_id = of_seed(store, 0)
    file = store.root / again(run_id, "--json").json["file"]
    text = file.read_text()
    file.write_text(text.replace('"equal": 1.0', '"equal": 0.9'))
    assert row_of(store).reproduced == ()
    assert "the result of reproducing it is damaged" in row_of(store).note
    assert "reproduced" in {f.check for f in verify(store, run_id).of("changed")}
    file.write_text(text)
    assert row_of(store).reproduced == (run_id,)
    replaced(store, run_id, workers=5)  # another record of the same id
    assert row_of(store).reproduced == ()
    assert "is of another record" in row_of(store).note


# ------------------------------------------------------------------------------------------------ forged


def test_one_forged_answer_is_found(store: Store, again: Callable[..., Said]) -> None:
    run_id = of_seed(store, 2)
    replaced(store, run_id, flip)
    assert "answers" not in {f.check for f in verify(store, run_id).of("changed")}  # it goes with its scores
    said = again(run_id)
    assert said.code == 1
    assert f"{run_id}: NOT reproduced" in said.out
    assert "The same code on the same machine gives other answers" in said.out
    assert (row_of(store).reproduced, row_of(store).refuted) == ((), (run_id,))
    assert "reproduced" in {f.check for f in verify(store, run_id).of("changed")}


def test_answers_that_do_not_fit_their_sums_are_named(store: Store, again: Callable[..., Said]) -> None:
    run_id = of_seed(store, 2)
    (store.root / run_id / "predictions.parquet").write_bytes(b"PAR1")
    said = again(run_id)
    assert (said.code, said.out) == (2, "")
    assert "predictions.parquet is damaged" in said.err


# ---------------------------------------------------------------------------------- other code, elsewhere


def test_another_version_of_the_code_is_said(store: Store, again: Callable[..., Said]) -> None:
    """Equal bits are equal bits, whatever made them."""
    run_id = of_seed(store, 0)
    versions = store.read(run_id).provenance.versions | {"torch": "1.0"}
    replaced(store, run_id, training=2, git_commit="0" * 40, versions=versions)
    said = again(run_id, "--json").json
    assert said["verdict"] == "equal"
    assert f"code: version 2 of training, now {TRAINING}" in said["differences"]
    assert any(text.startswith("packages: torch 1.0, now ") for text in said["differences"])
    assert "at commit 000000000000" in said["notes"][0]


def test_elsewhere_the_seeds_decide(store: Store, again: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = of_seed(store, 0)
    replaced(store, run_id, flip, machine={"processor": "another"})
    splits = ["test", "validation"]
    for limit, code, verdict in ((0.5, 0, "agrees"), (0.001, 1, "differs"), (None, 1, "differs")):
        monkeypatch.setattr(reproduce, "_limits", lambda *_, limit=limit: dict.fromkeys(splits, limit))
        said = again(run_id, "--json")
        assert (said.code, said.json["verdict"]) == (code, verdict)
        assert said.json["splits"]["test"]["equal"] == pytest.approx(23 / 24)
        assert any(text.startswith("machine: ") for text in said.json["differences"])
    assert row_of(store).refuted == (run_id,)  # the last time counts
    assert "reproduced" in {f.check for f in verify(store, run_id).of("unverified")}


def test_how_much_two_seeds_differ(tmp_path: Path) -> None:
    """Other seeds have 4 and 6 of 8 right: a variance of 1/32. The row itself has 1/24 more or less with 8 of 8."""
    few = Store(tmp_path / "few")
    add(few, "finetune", 8, seed=0)
    doubted = few.read(few.ids()[0])
    assert reproduce._limits(few, doubted, ["test"]) == {"test": None}
    for seed, right in ((1, 4), (2, 6)):
        add(few, "finetune", right, seed=seed)
    limit = reproduce._limits(few, doubted, ["test"])["test"]
    for seed, right in ((1, 5), (2, 5)):
        add(few, "offline_kd", right, seed=seed)  # a steadier row: seeds of this table differ less
    less = reproduce._limits(few, doubted, ["test"])["test"]
    assert limit is not None
    assert less is not None
    # between z and t with 2 df, times sqrt(2) times a sigma between those of two and of three seeds
    assert 1.96 * 2**0.5 * (1 / 32) ** 0.5 <= limit <= 4.31 * 2**0.5 * (1 / 24) ** 0.5 * 1.3
    assert less < limit
    both = reproduce._limits(few, doubted, ["test", "ood"])["test"]
    assert both is not None
    assert both > less  # two comparisons


# ------------------------------------------------------------------------------------------------- audit


def test_an_audit_of_a_random_sample(store: Store, cli: Cli, toy: str) -> None:
    replaced(store, of_seed(store, 2), lambda frame: flip(frame, 3))
    assert reproduce.sample(store, 2, 5) == reproduce.sample(store, 2, 5)
    assert len({tuple(reproduce.sample(store, 2, seed)) for seed in range(20)}) > 1
    everyone = [of_seed(store, seed) for seed in range(3)]
    assert reproduce.sample(store, 99, 0) == sorted(everyone)  # no controls without a model
    (store.root / of_seed(store, 1) / "predictions.parquet").write_bytes(b"PAR1")
    said = cli("audit", "--sample", 3, "--seed", 4, "--store", store.url, "--plugin", toy)
    assert said.code == 1
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == sorted(everyone)
    assert sum("NOT reproduced" in line for line in lines) == 1
    assert sum("can't be checked" in line and "predictions.parquet is damaged" in line for line in lines) == 1
    assert "1 of 3 runs reproduced; on average -6.25 points again minus recorded" in said.out  # 3 / 24 in one of two
    assert "the sample is that of --seed 4" in said.out
    assert (len(row_of(store).reproduced), len(row_of(store).refuted)) == (1, 1)
    assert "1/2, 1 NOT" in cli("rank", "--store", store.url).out


def test_what_cannot_be_trained_again(store: Store, again: Callable[..., Said]) -> None:
    control = next(run_id for run_id in store.ids() if run_id.startswith("control-majority"))
    assert "a control without a model, which `hkdbench verify` computes again" in again(control).err
    run_id = of_seed(store, 0)
    replaced(store, run_id, imported="answers.csv")
    said = again(run_id)
    assert (said.code, said.out) == (2, "")
    assert "its answers were imported" in said.err
    assert not checksums.attested_names(store.backend)


def test_a_packed_store_is_only_read(store: Store, cli: Cli, toy: str, tmp_path: Path) -> None:
    run_id = of_seed(store, 0)
    before = cli("reproduce", run_id, "--store", store.url, "--plugin", toy)
    assert before.code == 0
    pack(store, tmp_path / "all.tar.xz")
    packed = Store(tmp_path / "all.tar.xz")
    assert row_of(packed).reproduced == (run_id,)
    said = cli("reproduce", run_id, "--store", packed.url, "--plugin", toy)
    assert (said.code, said.out.splitlines()[-1]) == (0, "  not written: a packed store can only be read")


# -------------------------------------------------------------------------------- command and configuration


def test_command_and_configuration_give_the_run(store: Store, cli: Cli, toy: str, tmp_path: Path) -> None:
    record = store.read(of_seed(store, 1))
    words = shlex.split(command(record))
    assert words[:2] == ["hkdbench", "run"]
    assert "--seed" in words
    assert "train.lr_by_rung.S=0.002" in words
    assert not any("tag" in word for word in words)
    assert cli("plan", *words[2:], "--json").json["run_id"] == record.run_id
    (tmp_path / "RUN.toml").write_text(configuration(record))
    assert cli("plan", tmp_path / "RUN.toml", "--json").json["run_id"] == record.run_id
    assert command(record) in cli("show", record.run_id, "--store", store.url).out


def test_every_setting_survives_toml(toy_ladder: str) -> None:
    """Odd names and values, and a ladder that is written out."""
    rungs = [{"name": "L.1", "model": "a/b", "revision": None}, {"name": "S", "model": 'q"\\é', "revision": "1" * 40}]
    table = {
        "method": "finetune",
        "benchmark": "scenes_factuality",
        "benchmark_settings": {"train": 40, "label_noise": 1e-05},
        "ladder": rungs,
        "train": {"lr_by_rung": {"L.1": 1e-4, "S": 0.001}, "shuffle_options": "none", "augmentations": ["resize"]},
        "evaluate": {"splits": ["test"], "shifts": "cyclic"},
        "skip_missing": True,
    }
    config = parse(RunConfig, table, "test")
    record = Record.model_construct(
        kind="run", student="S", config=RunConfig.model_dump(config, mode="json", exclude={"data_dir"})
    )
    assert parse(RunConfig, tomllib.loads(configuration(record)), "toml") == config
    sets = [word for word in shlex.split(command(record)) if "=" in word]
    assert parse(RunConfig, overlay({"method": "finetune", "benchmark": "scenes_factuality"}, sets), "sets") == config
