"""`harness.open_store`: a store's results as frames, with the numbers of the command line."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from harness import open_store
from harness.analysis.results import ALL, RUN, Results
from harness.errors import ConfigError, DataError, StoreError
from harness.store import Store
from harness.store.packed.pack import pack
from helpers.common import Cli
from helpers.runs import add


@pytest.fixture
def results(varied_store: Store) -> Results:
    return open_store(varied_store.root)


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, harness; harness.open_store; sys.exit(bool({'pandas', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("address", ["stor", "store/runs.tar.xz", "s3x://bucket/store", "memory://nobody/here"])
def test_an_address_that_isnt_there_is_said(address: str, tmp_path: Path) -> None:
    there = address if "://" in address else str(tmp_path / address)
    with pytest.raises(StoreError, match=address.rpartition("/")[2]):
        open_store(there)
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_that_of_the_command_line(varied_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_STORE", str(varied_store.root))
    assert repr(open_store()) == f"<results in {varied_store.url}>"


# ------------------------------------------------------------------------------------- the ranking


def text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("asked", [{"metric": "macro_f1"}, {"metric": "accuracy/object", "baseline": "finetune@S"}])
def test_a_ranking_has_the_numbers_of_rank(cli: Cli, results: Results, asked: dict[str, str]) -> None:
    """Every column of the CSV that the frame has, and a value with its interval, which is that of the metric."""
    options = [part for name, value in asked.items() for part in (f"--{name}", value)]
    said = cli("rank", "--benchmark", "toy", *options, "--store", results.store.url, "--format", "csv")
    printed = pd.read_csv(io.StringIO(said.out), dtype=str, keep_default_na=False)
    frame = results.ranking("toy", **asked)  # type: ignore[arg-type]
    assert len(frame) == len(printed) == 4
    columns = [name for name in printed.columns if name in frame.columns]
    assert {"rank", "accuracy", "accuracy_low", "delta", "delta_p", "train_tflops"} <= set(columns)
    for name in columns:
        for one, other in zip(frame[name], printed[name], strict=True):
            if isinstance(one, float) and not pd.isna(one):
                assert float(other) == one, name
            else:
                assert other == ("" if pd.api.types.is_scalar(one) and pd.isna(one) else text(one)), name
    metric = asked["metric"]
    assert frame[["value", "low", "high"]].equals(
        frame[[metric, f"{metric}_low", f"{metric}_high"]].set_axis(["value", "low", "high"], axis=1)
    )
    assert frame["delta"].notna().any() == ("baseline" in asked)


def test_the_tables_of_all_benchmarks_follow_each_other(results: Results) -> None:
    frame = results.ranking()
    assert frame["benchmark"].unique().tolist() == ["toy", "toy2"]
    assert frame.loc[frame["label"] == "hkd4vlm alpha=2", "value"].tolist() == [(7 + 8) / 16]  # by hand
    assert frame.loc[frame["kind"] == "control", "rank"].isna().all()
    assert set(results.ranking("toy", size="L")["student"]) == {"L", ""}  # controls stay


def test_names_that_no_run_has_are_said(results: Results) -> None:
    for call in (results.ranking, results.runs, results.metrics):
        with pytest.raises(ConfigError, match=r"toyy.*did you mean 'toy'"):
            call("toyy")
    with pytest.raises(ConfigError, match="hkd4vlm"):
        results.runs(method="hkd4vml")
    with pytest.raises(ConfigError, match="seed 7"):
        results.runs(seed=7)


def test_a_run_that_cant_be_read_is_named(results: Results) -> None:
    (results.store.root / "hkd4vlm-S-0" / "record.json").write_text("{")
    with pytest.warns(UserWarning, match="hkd4vlm-S-0"):
        frame = results.ranking("toy")
    assert frame.loc[frame["method"] == "hkd4vlm", "seeds"].tolist() == [(1,)]
    broken = results.runs().query("status == 'broken'")
    assert broken["run_id"].tolist() == ["hkd4vlm-S-0"]
    assert "damaged" in broken["problem"].item()


# ------------------------------------------------------------------------------------- runs and figures


def test_runs_have_a_row_each(results: Results) -> None:
    add(results.store, "mutual", status="failed")
    frame = results.runs()
    assert tuple(frame.columns) == RUN
    assert len(frame) == frame["run_id"].nunique() == 9
    assert frame["status"].value_counts().to_dict() == {"done": 8, "failed": 1}
    good = results.runs("toy", tag="good")
    assert good["settings"].tolist() == [{"alpha": 2}, {"alpha": 2}]
    assert good["train_flops"].tolist() == [2e12, 2e12]
    assert set(results.runs(size="1M..")["student"]) == {"L"}


def test_metrics_are_those_of_the_records(results: Results) -> None:
    frame = results.metrics("toy", method="hkd4vlm", seed=0, split="test")
    stated = results.store.read("hkd4vlm-S-0").metrics["test"]
    assert {line.metric: line.value for line in frame.itertuples()} == {k: v.value for k, v in stated.items()}
    assert frame.loc[frame["metric"] == "accuracy", "low"].tolist() == [stated["accuracy"].low]
    assert set(frame["label"]) == {"hkd4vlm alpha=2"}


# ------------------------------------------------------------------------------------- predictions


def test_predictions_give_the_rankings_accuracy(results: Results) -> None:
    frame = results.predictions(benchmark="toy", split="test")
    means = frame.groupby(["method", "student"])["correct"].mean()
    ranked = results.ranking("toy").set_index(["method", "student"])["value"]
    pd.testing.assert_series_equal(means, ranked.loc[means.index], check_names=False)


def test_predictions_of_named_runs(results: Results) -> None:
    one = results.predictions("other")
    assert (len(one), set(one["run_id"]), set(one["benchmark"])) == (8, {"other-S-0"}, {"toy2"})
    assert len(results.predictions(["other", "hkd4vlm-S-1"])) == 16
    assert results.predictions("other", split="ood").empty
    add(results.store, "mutual", status="failed")
    assert results.predictions(method="mutual").columns.tolist() == one.columns.tolist()
    for asked, why in (("mutual", "no predictions"), ("hkd", "any of 2"), ("xyz", "no run 'xyz'")):
        with pytest.raises(StoreError, match=why):
            results.predictions(asked)
    for both in ({}, {"run": "other", "method": "other"}):
        with pytest.raises(ConfigError, match="predictions: "):
            results.predictions(**both)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- comparison and plot


def test_a_comparison_has_the_numbers_of_compare(cli: Cli, results: Results) -> None:
    frame = results.compare("hkd4vlm", "finetune@S", metric="macro_f1")
    said = cli("compare", "hkd4vlm", "finetune@S", "--metric", "macro_f1", "--store", results.store.url, "--json").json
    whole, *parts = frame.to_dict("records")
    assert (whole["part"], whole["metric"], whole["a"], whole["b"]) == (ALL, "macro_f1", *said["values"])
    keys = {"value": "difference", "low": "low", "high": "high", "p": "p"}
    assert {key: said["difference"][key] for key in keys} == {key: whole[name] for key, name in keys.items()}
    assert [part["part"] for part in parts] == [one["name"] for one in said["categories"]] == ["count", "object"]
    for part, one in zip(parts, said["categories"], strict=True):
        assert [part["difference"], part["low"], part["p_holm"]] == [
            one["difference"]["value"],
            one["difference"]["low"],
            one["p_holm"],
        ]


def test_the_plot_shows_each_row_with_its_interval(results: Results, tmp_path: Path) -> None:
    chart = results.plot()
    drawn = chart.to_dict()  # Altair checks it against Vega-Lite's schema
    assert [panel["title"].split(",")[0] for panel in drawn["vconcat"]] == ["toy", "toy2"]
    shown = pd.DataFrame(drawn["datasets"][drawn["vconcat"][0]["data"]["name"]])
    ranked = results.ranking("toy")
    assert shown[["value", "low", "high"]].equals(ranked[["value", "low", "high"]])
    assert shown["row"].tolist() == ["hkd4vlm alpha=2 @ S", "finetune @ L", "finetune @ S", "majority"]
    for name in ("ranking.html", "ranking.json"):
        chart.save(tmp_path / name)
    assert json.loads((tmp_path / "ranking.json").read_text())["vconcat"]
    assert "vega" in (tmp_path / "ranking.html").read_text()


def test_a_plot_of_nothing_is_refused(store: Store) -> None:
    add(store, "mutual", status="failed")
    with pytest.raises(DataError, match="no row has a figure"):
        open_store(store.root).plot()


# ------------------------------------------------------------------------------------- other kinds of stores


def test_a_packed_store_and_a_bucket_give_the_same(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "toy.tar.xz"
    pack(results.store, file)
    bucket = Store("memory://hkdbench-api/store")
    for run_id in results.store.ids():
        bucket.copy(run_id, results.store)
    for address in (str(file), bucket.url):
        other = open_store(address)
        pd.testing.assert_frame_equal(other.ranking("toy"), results.ranking("toy"))
        pd.testing.assert_frame_equal(other.predictions("other"), results.predictions("other"))
        assert other.runs()["run_id"].tolist() == results.runs()["run_id"].tolist()


def test_the_pages_code_runs(root: Path, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/python_api.md, on a small store; matplotlib, which isn't installed here, takes what it is given."""
    drawn: dict[str, object] = {}
    pyplot = SimpleNamespace(errorbar=lambda x, y, **options: drawn.update(x=list(x), y=list(y), **options))
    monkeypatch.setitem(sys.modules, "matplotlib", SimpleNamespace(pyplot=pyplot))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    monkeypatch.chdir(tmp_path)
    page = (root / "docs" / "python_api.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S):
        exec(block.replace("results/scenes", results.store.url).replace("scenes_hallucination", "toy"), names)
    assert (tmp_path / "ranking.html").is_file()
    assert drawn["y"] == ["majority ", "finetune S", "finetune L", "hkd4vlm alpha=2 S"]
    for call in re.findall(r"`results\.(\w+)\(", page):
        assert callable(getattr(results, call))
