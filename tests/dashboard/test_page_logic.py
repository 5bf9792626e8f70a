"""Pages without a browser: what they say of stores that are odd, and what the command line refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.data import run as run_data
from dashboard.data.leaderboard import board_columns, default_columns
from dashboard.navigation import PAGES
from harness.config import RunConfig
from harness.leaderboard import leaderboard
from harness.record import Failure, Reproduction, SplitAgreement
from harness.store import Store, checksums
from helpers import runs
from helpers.browsing import scenes_run

Open = Callable[..., AppTest]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Runs a page's script on the store in `tmp_path`: `opened("sweep", tag="x")`."""
    import streamlit as st

    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path))

    def page(name: str) -> None:
        from importlib import import_module

        from dashboard.data import store as stores

        with stores.show_user_errors():
            import_module(f"dashboard.views.{name}").show()

    def run(name: str, **params: str | list[str]) -> AppTest:
        for cache in (st.cache_data, st.cache_resource):
            cache.clear()
        app = AppTest.from_function(page, args=(name,), default_timeout=60)
        for key, value in params.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception, app.exception
        return app

    yield run
    for cache in (st.cache_data, st.cache_resource):
        cache.clear()


def told(app: AppTest) -> str:
    kinds: tuple[Any, ...] = (app.markdown, app.caption, app.info, app.warning, app.error, app.code)
    return "\n".join(
        str(element.value).replace("\\", "").replace("\u2060", "") for elements in kinds for element in elements
    )


FILLS = dict.fromkeys(("sweep", "examples", "run"), "hkdbench demo") | {"ablation": "hkdbench ablate"}
"""By page, the command that gives it something to show."""


@pytest.mark.parametrize("page", [page.name for page in PAGES if page.name != "about"])  # which needs no store
def test_a_store_without_runs_says_what_to_do(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "empty").mkdir()
    for store in ("empty", "none"):
        monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / store))
        said = told(opened(page))
        assert re.search(r"hkdbench (demo|ablate|sweep|run|suite)\b.* --store", said), store
        if page in FILLS:
            assert FILLS[page] in said, store
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / "file"))
    assert "choose another with --store or HKDBENCH_STORE" in told(opened(page))


def test_a_failed_run_says_why_and_a_broken_one_that_it_is(opened: Open, tmp_path: Path) -> None:
    store = Store(tmp_path)
    error = Failure(type="TrainingError", message="the loss is not finite", stage="tune", step=7)
    runs.add(store, status="failed", error=error)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")
    said = told(opened("run", run="finetune-S-0"))
    assert "TrainingError in stage 'tune' at step 7: the loss is not finite" in said
    assert "No results: the run has status 'failed'" in said
    assert "This run is broken" in told(opened("run", run="broken"))


def test_runs_on_other_examples_are_not_shown_side_by_side(opened: Open, tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs.add(store, "a", 5)
    runs.add(store, "b", 6)
    said = told(opened("examples", run=["a-S-0", "b-S-0"], show="the runs disagree"))
    assert "1 of 8 examples" in said
    assert "they disagree on 12.5 %" in said
    assert "benchmark 'toy' is unknown: it needs the plugin that defines it" in said
    other = runs.DATA.model_copy(update={"fingerprint": "b" * 64})
    runs.add(store, "c", 6, data=other)
    said = told(opened("examples", run=["c-S-0"]))  # the data follow the run that the URL names
    assert "8 of 8 examples" in said
    assert "c S s0 75.0 % right" in said


def test_a_sweep_compares_trials_on_validation(opened: Open, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for k, (alpha, right) in enumerate([(1.0, 4), (2.0, 6), (3.0, 8), (4.0, 5), (5.0, 7)]):
        runs.add(
            store, "kd", right, run_id=f"kd-{k}", settings={"alpha": alpha}, tags=["sweep:one"],
            splits=("validation", "test"), provenance=runs.provenance(f"2026-01-01T00:{k:02d}Z"),
        )  # fmt: skip
        runs.add(store, "kd", right, run_id=f"m-{k}", settings={"alpha": alpha}, tags=["sweep:one"], student="M",
                 splits=("validation",))  # fmt: skip
        runs.add(store, "kd", right, run_id=f"no-{k}", settings={"alpha": alpha, "x": 1}, splits=("validation",))
    said = told(opened("sweep"))
    assert "5 trials. Best trial: number 3, 100" in told(opened("sweep", size="M"))
    assert "5 trials. Best trial: number 3, 100" in said
    assert "(validation accuracy (%)): alpha = 3." in said
    assert "Numbers: in the order in which they finished" in said
    assert "Choose settings on the validation split" not in said
    assert "Choose settings on the validation split" in told(opened("sweep", split="test", size="S"))


def test_a_sweep_has_the_numbers_of_its_result_file_and_its_winner(opened: Open, tmp_path: Path) -> None:
    store = Store(tmp_path)
    trials = []
    for number, (alpha, right) in {2: (1.0, 4), 7: (2.0, 6)}.items():
        ids = [f"kd-{number}-{seed}" for seed in (100, 101)]
        for seed, run_id in zip((100, 101), ids, strict=True):
            runs.add(store, "kd", right + seed - 100, seed, run_id=run_id, settings={"alpha": alpha},
                     tags=["sweep:one", "trial"], splits=("validation",))  # fmt: skip
        trials.append({"number": number, "point": {"settings.alpha": alpha}, "status": "done", "score": 0.5,
                       "validations": 4, "runs": ids, "seconds": 1.0, "error": None})  # fmt: skip
    trials.append(trials[0] | {"number": 3, "status": "stopped", "score": 0.25, "validations": 1, "runs": []})
    figure = {"value": 0.75, "low": 0.5, "high": 1.0}
    winner = {"number": 7, "point": {"settings.alpha": 2.0}, "runs": ["w0", "w1"], "score": 0.75}
    search = {"method": "kd", "student": "S", "benchmark": "toy", "trials": trials, "finalists": [winner],
              "winner": winner, "figures": {"test": {"accuracy": figure}}}  # fmt: skip
    store.write_text(".sweeps/one.result.json", json.dumps({"name": "one", "searches": {"1-kd-S-toy": search}}))
    app = opened("sweep")
    said = told(app)
    assert "3 trials, 1 stopped. Best trial: number 7, 81.25 (validation accuracy (%)): alpha = 2." in said
    assert "confirmed over 2 fresh seeds: trial 7 (alpha = 2); accuracy (%): test 75.0 [50.0, 100.0]." in "".join(
        str(one.value).replace("\\", "").replace("\u2060", "") for one in app.success
    )
    store.write_text(".sweeps/one.result.json", '{"searches": [')
    assert "one.result.json is damaged: run the sweep's command again" in told(opened("sweep"))


def test_one_run_alone_is_no_sweep(opened: Open, tmp_path: Path) -> None:
    runs.add(Store(tmp_path), "kd", 4)
    assert "No sweep in this store yet" in told(opened("sweep"))
    runs.add(Store(tmp_path), "kd", 4, run_id="trial", tags=["sweep:one"])
    assert "Nothing to compare yet: finished trials: 1, settings that differ between them: 0" in told(opened("sweep"))


def test_a_damaged_ablation_is_told(opened: Open, tmp_path: Path) -> None:
    runs.add(Store(tmp_path), "kd", 4)
    (tmp_path / "trial.json").write_text('{"lines": [')
    assert "is damaged" in told(opened("ablation"))


_ALL = """
import sys
from streamlit.testing.v1 import AppTest
RUN = sys.argv[1]

views = [("run", {"run": RUN}), ("run", {"run": RUN, "section": "Provenance"}), ("examples", {"run": RUN}),
         ("sweep", {}), ("ablation", {}), ("about", {}), ("about", {"what": "Methods", "which": "hkd4vlm"}),
         ("live", {}), ("about", {"which": "scenes_factuality"}), ("leaderboard", {}), ("trade_off", {}),
         ("compare", {})]
for name, params in views:
    app = AppTest.from_string(f"import dashboard.views.{name} as page\\npage.show()", default_timeout=300)
    for key, value in params.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, (name, app.exception)
    if params.get("section"):
        (verify,) = [button for button in app.button if button.label == "Verify"]
        verify.click().run()
        assert any("nothing changed" in text.value for text in app.markdown)
print(sorted({"torch", "ray", "transformers"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_what_the_pages_do_loads_neither_torch_nor_ray(root: Path) -> None:
    environment = os.environ | {"HKDBENCH_STORE": str(root / "results" / "scenes")}
    command = [sys.executable, "-c", _ALL, scenes_run("hkd4vlm-S-scenes_factuality-s0", ppod=True)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[]\n"


def test_folders_of_files_are_checked_before_it_starts(cli: Callable[..., Any], tmp_path: Path) -> None:
    for given in ("nlvr", "nlvr=", f"nlvr={tmp_path / 'gone'}", f"={tmp_path}"):
        said = cli("dashboard", "--store", tmp_path, "--data-dir", given)
        assert said.code == 2
        assert f"--data-dir {given!r}: expected BENCHMARK=FOLDER" in said.err


def test_a_run_says_how_it_is_made_again_and_what_came_of_that(opened: Open, tmp_path: Path) -> None:
    store = Store(tmp_path)
    config = RunConfig(method="finetune", benchmark="toy", seed=3).model_dump(mode="json")
    runs.add(store, "finetune", 6, seed=3, run_id="a", config=config)
    text = told(opened("run", run="a", section="Provenance"))
    assert "hkdbench run --method finetune --benchmark toy --ladder tiny --student S --seed 3" in text
    assert "hkdbench reproduce a" in text
    assert "as trustworthy" not in text
    found = Reproduction(
        run_id="a",
        record=checksums.record_sum(store.read("a"), store.backend),
        verdict="agrees",
        splits={"test": SplitAgreement(examples=8, equal=0.875, recorded=0.75, again=0.625, limit=0.2)},
        differences=["workers: 1, now 2"],
        provenance=runs.provenance(),
    )
    name, written = checksums.attested(found)
    store.write_text(name, written)
    assert "as trustworthy as the one who trained it again" in told(opened("run", run="a", section="Provenance"))
    row = run_data.reproductions([found]).iloc[0]
    assert (row["result"], row["equal answers, %"]) == ("reproduced, within the seeds", 87.5)
    board = next(table for table in leaderboard.tables(store))
    columns = board_columns(board, board.rows)
    assert "reproduced" in default_columns(columns, board.rows)
    assert columns["reproduced"].spec.text(board.rows[0]) == "1/1"
    store.write_text(name, written.replace("0.875", "1.0"))
    assert "the result of reproducing it is damaged" in told(opened("run", run="a", section="Provenance"))
    assert "reproduced" not in default_columns(columns, leaderboard.tables(store)[0].rows)
