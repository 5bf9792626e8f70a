"""What is in `examples/` runs, each on something small."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import open_store
from harness.store import Store
from harness.testing import METHOD_CHECKS, Case
from helpers.runs import add
from scripts import notebook


@pytest.fixture
def example(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `python examples/NAME ARGS...` in this process, in an empty folder, and gives what it defined."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / "store"))

    def run(name: str, *args: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, *args])
        return runpy.run_path(str(root / "examples" / name), run_name="__main__")

    return run


@pytest.mark.slow
def test_a_method_from_a_paper(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("logit_mse.py")
    assert "logit_mse" in capsys.readouterr().out.rpartition("scenes_factuality, ")[2]
    (run,) = open_store().runs(method="logit_mse").itertuples()
    assert (run.status, run.budget) == ("done", 64)


def test_its_loss_by_hand(root: Path) -> None:
    """Two options of three: the distances 1 and 2 of the logits give (1 + 4) / 2."""
    import torch

    logits = {"student": torch.tensor([[0.0, 2.0, -1e4]]), "teacher": torch.tensor([[1.0, 0.0, -1e4]])}
    step: Any = SimpleNamespace(
        forward=logits.get, labels_b=torch.tensor([1]), options_bk=torch.tensor([[True, True, False]])
    )
    method = runpy.run_path(str(root / "examples" / "logit_mse.py"))["LogitMSE"](alpha=0.25)
    terms = method.loss(step)["student"]
    assert terms["mse"].tolist() == pytest.approx([0.25 * 2.5])
    assert terms["ce"].tolist() == pytest.approx([0.75 * math.log(1 + math.exp(-2))])


@pytest.mark.parametrize("check", ["settings", "stages", "gradients"])
def test_it_keeps_the_contract(root: Path, check: str) -> None:
    METHOD_CHECKS[check](Case("logit_mse", plugins=[str(root / "examples" / "logit_mse.py")]))


@pytest.mark.slow
def test_a_benchmark_from_a_csv(example: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    example("benchmark_from_csv.py", "mine")
    assert "squares is sound" in capsys.readouterr().out
    assert (tmp_path / "mine" / "test_squares.py").is_file()
    frame = open_store().predictions(benchmark="squares", method="zero_shot")
    assert frame["id"].nunique() == len(frame)
    assert set(frame["gold"]) == {0, 1}


def test_a_sweep(example: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its plan, and the table of its trials; tests of sweeps run others like it."""
    script = example("sweep.py", "--dry-run")
    assert "offline_kd" in capsys.readouterr().out
    for seed, right in ((100, 5), (101, 7)):
        tags = ["sweep:example", "trial"]
        add(Store(tmp_path / "store"), "offline_kd", right, seed, splits=("validation",), tags=tags)
    assert script["trials"]()["value"].tolist() == [7 / 8, 5 / 8]


def test_reading_a_store(
    varied_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The notebook's cells, one after another; the script has the same."""
    assert notebook.NOTEBOOK.read_text() == notebook.text(), "run python -m scripts.notebook"
    monkeypatch.setenv("HKDBENCH_STORE", str(varied_store.root))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    said = capsys.readouterr().out
    assert "hkd4vlm alpha=2" in said
    assert "0 of 8 examples are solved by no run" in said
    assert (tmp_path / "ranking.html").is_file()
    assert notebook.SCRIPT.read_text().count("# %%") == len(json.loads(notebook.text())["cells"])
