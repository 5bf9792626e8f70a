"""A changed digit is found: anywhere in a sealed run, and in an unsealed one wherever it can be computed anew."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import registry
from harness.execution import run
from harness.models.distributed import SingleProcess
from harness.record import Record
from harness.store import HISTORY, PREDICTIONS, Store
from harness.submission import verify as verify_module
from harness.submission.checks import Report
from harness.submission.flops import plan_flops
from helpers.common import ROOT, Cli, ToyPlan

verify = partial(verify_module.verify, flops=plan_flops)
"""As `hkdbench verify` does it."""
FILES = ("record.json", "predictions.parquet", "history.parquet")


@pytest.fixture
def store(small_store: Path, tmp_path: Path) -> Store:
    """A copy of the small store that a test may spoil."""
    shutil.copytree(small_store, tmp_path / "runs")
    return Store(tmp_path / "runs")


def run_of(store: Store) -> str:
    (run_id,) = (name for name in store.ids() if not name.startswith("control-"))
    return run_id


def edit(store: Store, run_id: str, change: Callable[[dict[str, Any]], None], keep_seal: bool = False) -> None:
    """Change the record's values; without its seal, so that only what is computed anew can tell."""
    path = store.root / run_id / "record.json"
    table = json.loads(path.read_text())
    change(table)
    if not keep_seal:
        table["seal"] = None
    path.write_text(json.dumps(table, indent=1))


def rewrite(store: Store, run_id: str, name: str, change: Callable[[pd.DataFrame], None]) -> None:
    """Change a table, and take the seal off."""
    path = store.root / run_id / f"{name}.parquet"
    frame = pq.read_table(path).to_pandas()
    change(frame)
    schema = PREDICTIONS if name == "predictions" else HISTORY
    pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), path)
    edit(store, run_id, lambda _: None)


def states(report: Report) -> dict[str, str]:
    """Each check's worst state."""
    order = ("ok", "unverified", "changed")
    worst: dict[str, str] = {}
    for finding in report.findings:
        worst[finding.check] = max(worst.get(finding.check, "ok"), finding.state, key=order.index)
    return worst


def changed(report: Report) -> set[str]:
    return {finding.check for finding in report.of("changed")}


# --------------------------------------------------------------------------------- what is as it was


def test_a_fresh_run_is_ok_in_every_check(store: Store) -> None:
    found = states(verify(store, run_of(store)))
    assert found.pop("commit") in ("ok", "unverified")  # tests run from changed and from exported trees too
    assert found == dict.fromkeys(
        (
            *("record", "seal", "data", "code", "config", "run id"),
            *("answers", "golds", "figures", "history", "cost", "bill"),
        ),
        "ok",
    )


@pytest.mark.parametrize(("method", "learner"), [("gkd", "student"), ("seq_kd", "teacher")])
def test_flops_of_responses_follow_from_their_tokens(
    toy_plan: ToyPlan, tmp_path: Path, method: str, learner: str
) -> None:
    """`learner` is who writes. seq_kd's teacher writes about an example once, and is asked for no letter."""
    planned = toy_plan(method, settings={"max_tokens": 3}, train={"examples": 64, "validations": 1})
    store = Store(tmp_path / "responses")
    record = run.execute(planned, SingleProcess(), store)
    cost = record.cost.roles[f"distil.{learner}"]
    assert 0 < cost.wrote < 64
    assert cost.wrote <= cost.generated <= 3 * cost.wrote
    assert record.cost.roles["distil.student"].read == 64
    report = verify(store, record.run_id)
    assert states(report)["bill"] == "ok", report.findings
    assert "how many tokens of responses were written and read" in report.not_checked
    for field, value in (("flops", cost.flops * 1.2), ("generated", cost.generated * 9), ("wrote", cost.wrote * 3)):

        def change(table: dict[str, Any], field: str = field, value: float = value) -> None:
            roles = table["cost"]["roles"]
            roles[f"distil.{learner}"] = cost.model_dump() | {field: value}
            table["cost"]["train_flops"] = sum(role["flops"] for role in roles.values())

        edit(store, record.run_id, change)
        assert "bill" in changed(verify(store, record.run_id)), field


def test_without_tokenizers_all_but_flops_is_checked(store: Store) -> None:
    """As the dashboard does it, which loads no torch."""
    code = (
        "import sys\n"
        "from harness.store import Store\n"
        "from harness.submission.verify import verify\n"
        "report = verify(Store(sys.argv[1]), sys.argv[2])\n"
        "print([f.detail for f in report.of('unverified') if f.check == 'bill'], report.of('changed'))\n"
        "print([f.detail for f in report.of('ok') if f.check == 'bill'])\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))\n"
    )
    run = [sys.executable, "-c", code, str(store.root), run_of(store)]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        '["exact FLOPs take the models\' tokenizers: hkdbench verify computes them"] []',
        "['examples and forwards of 1 roles follow from the plan']",
        "[]",
    ]


def test_fresh_controls_are_ok(store: Store) -> None:
    for run_id in (name for name in store.ids() if name.startswith("control-")):
        found = states(verify(store, run_id))
        found.pop("commit")
        assert found == dict.fromkeys(("record", "seal", "data", "answers", "golds", "control", "figures"), "ok")


def test_another_source_is_said(store: Store) -> None:
    edit(store, run_of(store), lambda r: r["provenance"]["sources"].update({"method finetune": "0" * 64}))
    findings = {f.check: f for f in verify(store, run_of(store)).of("unverified")}
    assert re.fullmatch(r"method finetune is \w{12}, the run's 0{12}", findings["code"].detail)


def test_a_control_of_other_scoring_is_not_judged(store: Store) -> None:
    """Where the answers of a control have another definition by now, an old one isn't wrong."""
    run_id = next(name for name in store.ids() if name.startswith("control-random"))

    def turn(frame: pd.DataFrame) -> None:
        frame["chosen"] = 1 - frame["chosen"]
        frame["scores"] = [list(scores)[::-1] for scores in frame["scores"]]

    rewrite(store, run_id, "predictions", turn)
    assert states(verify(store, run_id))["control"] == "changed"
    edit(store, run_id, lambda r: r["provenance"].update(scoring=1))
    assert states(verify(store, run_id))["control"] == "unverified"


def test_protocols_need_the_data(cli: Cli, golden: Path, nlvr_dir: Path, tmp_path: Path) -> None:
    given = json.loads((golden / "nlvr_images_correlated.json").read_text())["predictions"]
    (tmp_path / "answers.json").write_text(json.dumps(given))
    args = ["--benchmark", "nlvr", "--name", "published", "--data-dir", nlvr_dir, "--store", tmp_path / "runs"]
    cli("import-predictions", tmp_path / "answers.json", *args)
    store = Store(tmp_path / "runs")
    (run_id,) = (name for name in store.ids() if not name.startswith("control-"))
    without = verify(store, run_id)
    assert states(without)["data"] == states(without)["figures"] == "unverified"
    assert any("official:accuracy" in f.detail for f in without.of("unverified"))
    whole = verify(store, run_id, nlvr_dir)
    assert states(whole)["data"] == states(whole)["figures"] == states(whole)["golds"] == "ok"


def test_failed_runs_have_nothing_to_compute(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    said = cli("run", *toy_run, "--method", "scalar_loss", "--store", tmp_path, "--json")
    report = verify(Store(tmp_path), said.json["run_id"])
    assert report.of("changed") == []
    assert states(report)["run id"] == states(report)["seal"] == "ok"


def test_no_model_and_no_plugin_of_the_records_choice(store: Store, root: Path, tmp_path: Path) -> None:
    """A record may name a plugin; verifying it must not run that."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    edit(store, run_of(store), lambda r: r["config"].update(plugins=[str(tmp_path / "evil.py")]))
    code = (
        "import sys; sys.argv = ['hkdbench', 'verify', '--all', '--store', sys.argv[1]]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "loaded = set(sys.modules)\n"
        "assert 'ray' not in loaded and not any(name.startswith('transformers.models.internvl.m') for name in loaded)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root)], cwd=root, capture_output=True, text=True, check=True)
    assert not (tmp_path / "ran").exists()


def test_what_is_not_at_hand(cli: Cli, toy: str, toy_run: list[str], tmp_path: Path) -> None:
    run_id = cli("run", *toy_run, "--store", tmp_path, "--json").json["run_id"]
    whole = cli("verify", run_id, "--store", tmp_path, "--plugin", toy)
    assert whole.code == 0
    assert re.search(r"ok +config +planned again it gives the same run", whole.out)
    registry._plugins.clear()
    bare = cli("verify", run_id, "--store", tmp_path, "--json")
    assert bare.code == 0
    details = {f["check"]: f["detail"] for f in bare.json["runs"][0]["findings"] if f["state"] == "unverified"}
    assert details["data"] == "benchmark 'toy' isn't here: load it with --plugin"
    assert details["code"] == "benchmark 'toy' isn't here: load it with --plugin"


# ------------------------------------------------------------------------------ any byte, any digit


def test_any_changed_byte_of_a_sealed_run_is_found(store: Store) -> None:
    """Every file, at random places: no byte is free to change, and nothing that is damaged breaks the check."""
    run_id, rng = run_of(store), random.Random(0)
    for name in FILES:
        path = store.root / run_id / name
        good = path.read_bytes()
        for _ in range(8):
            at = rng.randrange(len(good))
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :])
            report = verify(store, run_id)
            assert report.state == "changed", (name, at)
        path.write_bytes(good)
    assert "changed" not in states(verify(store, run_id)).values()


def test_any_changed_digit_of_a_sealed_record_is_found(store: Store) -> None:
    run_id, rng = run_of(store), random.Random(1)
    path = store.root / run_id / "record.json"
    good = path.read_text()
    digits = [match.start() for match in re.finditer(r"\d", good)]
    for at in rng.sample(digits, 20):
        path.write_text(good[:at] + str((int(good[at]) + rng.randrange(1, 10)) % 10) + good[at + 1 :])
        assert verify(store, run_id).state == "changed", good[at - 60 : at + 20]


def test_files_that_go_or_come_break_the_seal(store: Store) -> None:
    folder = store.root / run_of(store)
    (folder / "student" / "config.json").rename(folder / "student" / "other.json")
    found = [f.detail for f in verify(store, folder.name).of("changed")]
    assert found == [
        "student/config.json: is missing",
        "student/other.json: was added later: the record states no sha256 of it",
    ]
    shutil.rmtree(folder / "student")  # the whole student may be left out, and that is said
    assert states(verify(store, folder.name))["student"] == "unverified"
    assert changed(verify(store, folder.name)) == set()
    (folder / "predictions.parquet").unlink()
    assert "predictions.parquet: is missing" in [f.detail for f in verify(store, folder.name).of("changed")]


def metric_places(record: Record) -> list[tuple[str, ...]]:
    return [
        ("metrics", split, name, bound)
        for split, figures in record.metrics.items()
        for name, value in figures.items()
        for bound in ("value", "low", "high")
        if getattr(value, bound) is not None
    ]


def test_any_figure_of_an_unsealed_record_is_computed_anew(store: Store) -> None:
    """A ten thousandth more or less in any published number, intervals included."""
    run_id, rng = run_of(store), random.Random(2)
    places = metric_places(store.read(run_id))
    assert len(places) > 40
    good = (store.root / run_id / "record.json").read_text()
    for place in rng.sample(places, 12):

        def change(table: dict[str, Any], place: tuple[str, ...] = place) -> None:
            *parents, last = place
            for key in parents:
                table = table[key]
            table[last] += rng.choice([-1e-4, 1e-4])

        edit(store, run_id, change)
        assert changed(verify(store, run_id)) == {"figures"}, place
        (store.root / run_id / "record.json").write_text(good)


ELSEWHERE = {
    "benchmark": "scenes_hallucination",
    "settings": {},
    "data": {"revision": "1", "fingerprint": "0" * 64, "sizes": {}},
}


def billed(table: dict[str, Any], **fields: Any) -> None:
    """Change the bill of the one role, and the sum with it."""
    table["cost"]["roles"]["tune.student"].update(fields)
    table["cost"]["train_flops"] = table["cost"]["roles"]["tune.student"]["flops"]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda r: r["metrics"]["test"].pop("accuracy"), "figures"),
        (lambda r: r["metrics"]["test"].update({"accuracy/all": {"value": 1.0}}), "figures"),
        (lambda r: r["metrics"]["test"].update({"official:accuracy": {"value": 1.0}}), "figures"),
        (lambda r: r["metrics"].pop("ood"), "answers"),
        (lambda r: r["cost"].update(train_flops=r["cost"]["train_flops"] + 1e6), "cost"),
        (lambda r: r["cost"]["roles"]["tune.student"].update(flops=1.0), "cost"),
        (lambda r: r["cost"]["roles"]["tune.student"].update(trained=33), "cost"),
        (lambda r: r["cost"].update(train_seconds=r["cost"]["total_seconds"]), "cost"),
        (lambda r: r["cost"].update(test_forwards=23), "cost"),
        (lambda r: r["cost"].update(test_forwards=48), "bill"),
        (lambda r: billed(r, flops=0.0), "bill"),
        (lambda r: billed(r, flops=1.0), "bill"),
        (lambda r: billed(r, flops=1.01 * r["cost"]["train_flops"]), "bill"),
        (lambda r: billed(r, flops=0.999999 * r["cost"]["train_flops"]), "bill"),
        (lambda r: billed(r, flops=1e29), "bill"),
        (lambda r: billed(r, flops=r["cost"]["train_flops"] / 2, forwards=16, trained=16), "bill"),
        (lambda r: billed(r, flops=0.0, forwards=0, trained=0), "bill"),
        (lambda r: billed(r, recalled=32), "bill"),
        (lambda r: r["stages"][0].update(taken_over=True), "bill"),
        (lambda r: r["cost"].update(peak_memory_bytes=0), "record"),
        (lambda r: r["cost"].update(peak_memory_bytes=10**40), "record"),
        (lambda r: r["provenance"].update(workers=2), "record"),
        (lambda r: r["provenance"].update(resumed=10**30), "record"),
        (lambda r: r["data"].update(leaks={"train/test": {"text": 3}}), "data"),
        (lambda r: r["config"].update(train_on="scenes_hallucination"), "record"),
        (lambda r: r.update(trained_on=ELSEWHERE), "record"),
        (lambda r: r.update(trained_on=ELSEWHERE), "run id"),
        (lambda r: r["config"].update(ladder=[{"name": "S", "model": "x"}]), "record"),
        (lambda r: r["config"].update(ladder="mine"), "record"),
        (lambda r: r["identity"].update(ladder={"XL": "0" * 64}), "record"),
        (lambda r: r["stages"][0]["roles"]["student"].update(weights="L"), "record"),
        (lambda r: r["cost"]["roles"].clear(), "cost"),
        (lambda r: r["data"].update(fingerprint="0" * 64), "data"),
        (lambda r: r["data"]["sizes"].update(train=41), "data"),
        (lambda r: r["data"]["sizes"].update(test=23), "answers"),
        (lambda r: r["data"]["options"].reverse(), "data"),
        (lambda r: r["identity"].update(seed=1), "run id"),
        (lambda r: r["provenance"].update(training=1), "run id"),
        (lambda r: r["config"]["train"].update(lr=1e-3), "config"),
        (lambda r: r["config"]["train"].update(lr=1e-3), "run id"),
        (lambda r: r["config"].update(seed=1), "record"),
        (lambda r: r.update(seed=1), "record"),
        (lambda r: r.update(parameters=1), "record"),
        (lambda r: r.update(method="offline_kd"), "record"),
        (lambda r: r.update(task="hallucination"), "config"),
        (lambda r: r.update(error={"type": "E", "message": "m"}), "record"),
        (lambda r: r["stages"][0].update(steps=5), "record"),
        (lambda r: r["stages"][0].update(share=0.5), "config"),
        (lambda r: r["stages"][0]["best"].update(student=1.0), "history"),
        (lambda r: r["config"].update(colour="red"), "config"),
        (lambda r: r["provenance"].update(finished="2000-01-01T00:00:00+00:00"), "record"),
    ],
)
def test_contradictions_of_an_unsealed_record(
    store: Store, change: Callable[[dict[str, Any]], None], check: str
) -> None:
    edit(store, run_of(store), change)
    assert check in changed(verify(store, run_of(store)))


@pytest.mark.parametrize("column", ["split", "id", "group", "category", "gold", "chosen"])
def test_any_changed_prediction_of_an_unsealed_run_is_found(store: Store, column: str) -> None:
    def change(frame: pd.DataFrame) -> None:
        at = 13
        value = frame.at[at, column]
        frame.loc[at, column] = (int(value) + 1) % 4 if column in ("gold", "chosen") else f"{value}x"

    rewrite(store, run_of(store), "predictions", change)
    expected = "answers" if column == "chosen" else "golds"
    assert expected in changed(verify(store, run_of(store)))


def test_predictions_that_are_moved_or_doubled(store: Store) -> None:
    def move(frame: pd.DataFrame) -> None:
        frame.loc[len(frame) - 1, "split"] = "train"

    def double(frame: pd.DataFrame) -> None:
        frame.loc[1] = frame.loc[0]

    for change in (move, double):
        rewrite(store, run_of(store), "predictions", change)
        assert {"answers", "figures"} & changed(verify(store, run_of(store)))


def test_history_against_the_record(store: Store) -> None:
    run_id = run_of(store)
    path = store.root / run_id / "history.parquet"
    good = path.read_bytes()
    validation = store.history(run_id)["term"].tolist().index("validation/accuracy")
    for column, at, value in (
        ("step", 0, 99),
        ("progress", 0, 0.123),
        ("stage", 0, "other"),
        ("value", validation, 0.51),
    ):

        def change(frame: pd.DataFrame, column: str = column, at: int = at, value: Any = value) -> None:
            frame.loc[at, column] = value

        rewrite(store, run_id, "history", change)
        assert changed(verify(store, run_id)) == {"history"}, column
        path.write_bytes(good)


def test_a_control_cannot_answer_otherwise(store: Store) -> None:
    """Figures that fit the answers aren't enough: the answers must be those of the control."""
    run_id = next(name for name in store.ids() if name.startswith("control-random"))

    def swap(frame: pd.DataFrame) -> None:
        frame.loc[0, "chosen"] = (int(frame.at[0, "chosen"]) + 1) % 4  # type: ignore[call-overload]

    rewrite(store, run_id, "predictions", swap)
    assert "control" in changed(verify(store, run_id))


def test_damaged_files_are_findings_not_errors(store: Store) -> None:
    """Without a seal the tables are read whatever they hold."""
    run_id, rng = run_of(store), random.Random(3)
    edit(store, run_id, lambda _: None)
    for name in ("predictions", "history"):
        path = store.root / run_id / f"{name}.parquet"
        good = path.read_bytes()
        for damaged in (b"", b"PAR1", good[: len(good) // 2], b"PAR1" + rng.randbytes(500) + b"PAR1"):
            path.write_bytes(damaged)
            assert name in changed(verify(store, run_id))
        path.write_bytes(good)
    (store.root / run_id / "record.json").write_text("{")
    assert changed(verify(store, run_id)) == {"record"}


@pytest.mark.parametrize(
    ("part", "key", "hostile"),
    [
        ("config", "settings", 3),
        ("config", "settings", []),
        ("config", "benchmark_settings", "x"),
        ("config", "benchmark_settings", {"size": []}),
        ("config", "train", None),
        ("config", "train", {"batch_size": "x"}),
        ("config", "evaluate", []),
        ("config", "evaluate", {"resamples": 10**15}),
        ("config", "evaluate", {"splits": 3}),
        ("config", "ladder", []),
        ("config", "ladder", {}),
        ("config", "plugins", 3),
        ("identity", "method", None),
        ("identity", "seed", []),
        ("identity", "data", {}),
    ],
)
def test_records_of_any_shape(store: Store, part: str, key: str, hostile: Any) -> None:
    """A record is outside data: whatever its free parts hold, the check ends in findings."""
    edit(store, run_of(store), lambda r: r[part].update({key: hostile}))
    found = changed(verify(store, run_of(store)))
    assert "run id" in found if part == "identity" else found <= {"config", "run id", "record", "data"}


# ------------------------------------------------------------------------------------ the command


def test_the_command(cli: Cli, store: Store) -> None:
    run_id = run_of(store)
    one = cli("verify", run_id[:-4], "--store", store.root)
    assert (one.code, one.out.splitlines()[0]) == (0, run_id)
    assert one.out.splitlines()[-1].startswith("nothing changed; ")
    everything = cli("verify", "--all", "--store", store.root)
    assert everything.code == 0
    assert everything.out.splitlines()[-1] == "3 runs: 0 changed; the figures of 3 were recomputed and are the same"

    edit(store, run_id, lambda r: r["metrics"]["test"]["accuracy"].update(value=0.875), keep_seal=True)
    one = cli("verify", run_id, "--store", store.root)
    assert one.code == 1
    assert re.search(r"changed +seal +record.json: its text doesn't have the sha256 that it states", one.out)
    assert re.search(r"changed +figures +test accuracy is 0.875, the predictions give 0\.\d+", one.out)
    everything = cli("verify", "--all", "--store", store.root, "--json")
    assert everything.code == 1
    assert everything.json["states"]["changed"] == 1
    assert {run["run_id"]: run["state"] == "changed" for run in everything.json["runs"]}[run_id]


def test_a_broken_record_is_one_of_all(cli: Cli, store: Store) -> None:
    (store.root / run_of(store) / "record.json").write_text("{}")
    said = cli("verify", "--all", "--store", store.root)
    assert said.code == 1
    assert "record: record.json is damaged: run_id: Field required" in said.out


@pytest.mark.parametrize("args", [(), ("run", "--all")])
def test_a_run_or_all(cli: Cli, tmp_path: Path, args: tuple[str, ...]) -> None:
    said = cli("verify", *args, "--store", tmp_path)
    assert said.code == 2
    assert said.err == "error: verify takes a RUN, or --all for every run of the store\n"


def test_an_unknown_run(cli: Cli, store: Store) -> None:
    said = cli("verify", "nowhere", "--store", store.root)
    assert said.code == 2
    assert said.err.startswith("error: no run 'nowhere'")
