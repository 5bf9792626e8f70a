"""The sample store of `hkdbench demo --quick`: small, current, and with something on every page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from harness import registry
from harness.record import Record
from harness.store import Store
from helpers.common import ROOT, Cli

SAMPLE = ROOT / "suites" / "sample.tar.xz"
AGAIN = "make it anew: python -m scripts.sample"


@pytest.fixture(scope="module")
def sample() -> Store:
    return Store(SAMPLE)


def test_it_is_small_and_current(sample: Store) -> None:
    """Its examples are those that the benchmarks draw today, so the pages have their pictures."""
    assert SAMPLE.stat().st_size < 1_500_000
    records = [sample.load(run_id) for run_id in sample.ids()]
    current = {name: cls.revision for name, cls in registry.load_all(registry.benchmarks())}
    for record in records:
        assert isinstance(record, Record)
        assert record.status == "done"
        assert record.data is not None
        assert record.data.revision == current[record.benchmark], AGAIN
    run = sample.find("finetune-S-scenes_factuality-s0")
    frame = sample.predictions(run.run_id, "test")
    made = registry.make_benchmark("scenes_factuality", run.config["benchmark_settings"])
    assert [(e.id, e.gold) for e in made.load("test")] == list(zip(frame["id"], frame["gold"], strict=True)), AGAIN


@pytest.mark.parametrize("page", ["leaderboard", "compare", "runs", "run", "examples", "ablation", "sweep"])
def test_no_page_is_empty(page: str, opened: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_STORE", str(SAMPLE))
    app = opened(page)
    assert not app.error
    assert not [one.value for one in app.info if ":material/inbox:" in str(one.icon)]
    assert len(app.main) > 3
    if page == "examples":
        assert "can't" not in " ".join(str(one.value) for one in app.warning)


def test_demo_quick_opens_it_beside_the_demos_own_store(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []
    ended: list[str] = []

    class Server:
        def __init__(self, command: list[str], env: dict[str, str], **options: Any) -> None:
            self.port = next(word for word in command if word.startswith("--server.port"))
            started.append({**env, "port": self.port, "headless": str("--server.headless=true" in command)})

        def terminate(self) -> None:
            ended.append(self.port)

        def wait(self) -> None: ...

    monkeypatch.setattr("harness.cli.dashboard.subprocess.Popen", Server)
    monkeypatch.setattr("harness.cli.runs._run_suite", lambda configs, name, store, as_json: 0)
    said = cli("demo", "--quick", "--store", tmp_path / "runs")
    assert (said.code, said.out) == (0, "")
    first, second = started
    assert [one["HKDBENCH_STORE"] for one in started] == [str(SAMPLE), str(tmp_path / "runs")]
    assert [one["headless"] for one in started] == ["False", "True"]
    assert first["port"] != second["port"]
    note = json.loads(first["HKDBENCH_DASHBOARD"])["note"]
    assert "This is a sample" in note
    assert second["port"].partition("=")[2] in note
    assert "note" not in json.loads(second["HKDBENCH_DASHBOARD"])
    assert sorted(ended) == sorted(one["port"] for one in started)
    for wrong in (["--quick", "--json"], ["--no-browser"]):
        assert cli("demo", *wrong, "--store", tmp_path / "runs").code == 2
