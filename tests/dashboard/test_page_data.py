"""What the pages of runs, examples, ablations, sweeps and texts are made of, on numbers checkable by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dashboard import options as started
from dashboard.data import ablation as ablations
from dashboard.data import catalog, examples, images, run, sweep
from dashboard.table import TableCell, TableRow, _line
from dashboard.widgets import dataframes
from harness import registry
from harness.api import Benchmark, Example
from harness.errors import ConfigError, DataError
from harness.leaderboard.ablation import Ablation, AblationFigure, AblationLine, AblationResult, save
from harness.record import Interval, RoleRecord, StageRecord
from harness.store import Store
from harness.store.schemas import HistoryRow, PredictionRow, history_frame, predictions_frame
from helpers import runs


def predictions(*lines: tuple[str, int, int, list[float]]) -> pd.DataFrame:
    return predictions_frame(PredictionRow("test", i, i, "object", g, c, s, 0.0) for i, g, c, s in lines)


HALF, SURE = [0.0, 0.0], [float(np.log(0.9)), float(np.log(0.1))]


# ----------------------------------------------------------------------------------------- a run


def test_steps_are_counted_over_all_stages() -> None:
    rows = [("a", 2), ("a", 4), ("b", 1), ("b", 3), ("gone", 1)]
    history = history_frame(HistoryRow(s, k, 0.0, "student", "loss/ce", 1.0) for s, k in rows)
    assert run.curves(history, [("a", 4), ("b", 3)])["at"].tolist() == [2, 4, 5, 7]
    terms = pd.DataFrame({"term": ["loss/kd", "validation/accuracy", "loss/ce"]})
    assert run.terms(terms) == ["validation/accuracy", "loss/ce", "loss/kd"]


def test_stages_with_their_roles() -> None:
    roles = {"student": RoleRecord(weights="S", trainable=True, parameters=5), "teacher": RoleRecord(
        weights="tune.teacher", trainable=False, parameters=9)}  # fmt: skip
    stage = StageRecord(name="kd", share=1.0, steps=4, examples=8, roles=roles, best={"student": 0.75})
    frame = run.stages(runs.record(stages=[stage]))
    assert frame[["role", "initialised from", "trained"]].values.tolist() == [
        ["student", "S", "yes"],
        ["teacher", "tune.teacher", "no (frozen)"],
    ]
    assert frame["best validation accuracy, %"].tolist()[0] == 75.0
    assert pd.isna(frame["best validation accuracy, %"].tolist()[1])


def test_settings_say_which_were_set_by_hand() -> None:
    record = runs.record(settings={"alpha": 2.0})
    record = record.model_copy(update={"settings": {"alpha": 2.0, "soft": True}})
    assert run.settings(record).values.tolist() == [["alpha", "2.0", "yes"], ["soft", "true", ""]]


def test_figures_have_their_units_and_categories_a_table_of_their_own() -> None:
    metrics = {
        "test": {
            "accuracy": Interval(value=0.5, low=0.25, high=0.75),
            "accuracy/object": Interval(value=1.0),
            "nll": Interval(value=0.7),
            "official:f1": Interval(value=61.0),
        }
    }
    record = runs.record().model_copy(update={"metrics": metrics})
    frame = run.figures(record, "test").set_index("metric")
    assert frame.loc["accuracy", ["value", "low", "high"]].tolist() == [50, 25, 75]
    assert frame["value"].tolist() == [50, 0.7, 61]
    assert frame.loc["official:f1", "unit"] == "defined by the protocol"
    by_category = run.categories(record, "test", predictions(("a", 0, 0, HALF), ("b", 0, 0, HALF)))
    assert by_category[["category", "value", "examples"]].values.tolist() == [["object", 100.0, 2]]
    assert list(run.headline(record)) == [("test accuracy, %", "50.0 [25.0, 75.0]")]


def test_confusion_counts_what_was_chosen_where_what_was_right() -> None:
    frame = predictions(("a", 0, 0, HALF), ("b", 0, 1, HALF), ("c", 1, 1, HALF), ("d", 1, -1, HALF))
    found = run.confusion(frame, ["no", "yes"])
    assert found[["gold", "chosen", "count"]].values.tolist() == [
        ["no", "no", 1],
        ["no", "yes", 1],
        ["no", "no answer", 0],
        ["yes", "no", 0],
        ["yes", "yes", 1],
        ["yes", "no answer", 1],
    ]
    assert found["share"].tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]
    assert run.confusion(frame, None)["gold"].unique().tolist() == ["A", "B"]


def test_calibration_is_binned_as_the_ece_is() -> None:
    frame = predictions(("a", 0, 0, SURE), ("b", 0, 0, SURE), ("c", 0, 1, [SURE[1], SURE[0]]), ("d", 1, 1, HALF))
    found = run.calibrated(frame)
    assert found["examples"].tolist() == [1, 3]
    assert found["confidence"].tolist() == pytest.approx([50, 90])
    assert found["accuracy"].tolist() == pytest.approx([100, 200 / 3])
    assert ((found["low"] < found["accuracy"]) & (found["accuracy"] <= found["high"])).all()
    assert not len(run.calibrated(predictions(("a", 0, 0, SURE), ("b", 0, 0, []))))


def test_wilsons_interval() -> None:
    """8 of 10: 0.490 to 0.943 (Agresti and Coull 1998, by the formula)."""
    assert run.wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert run.wilson(0.0, 10)[0] == 0
    assert run.wilson(1.0, 3)[1] == 1


# ---------------------------------------------------------------------------------------- answers


def two_runs() -> pd.DataFrame:
    a = predictions(("x", 0, 0, SURE), ("y", 0, 1, HALF), ("z", 1, 0, SURE))
    b = predictions(("z", 1, 1, HALF), ("x", 0, 0, HALF), ("y", 0, 1, []))
    return examples.together({"a": a, "b": b})


def test_runs_are_joined_by_example_in_the_order_of_the_first() -> None:
    whole = two_runs()
    assert whole["id"].tolist() == ["x", "y", "z"]
    assert whole["at 1"].tolist() == [1, 2, 0]
    assert whole["chosen 1"].tolist() == [0, 1, 1]
    assert examples.right(whole).tolist() == [[True, True], [False, False], [False, True]]
    assert whole["sure 0"].tolist() == pytest.approx([90, 50, 90])
    assert whole["sure 1"].isna().tolist() == [False, True, False]
    with pytest.raises(DataError, match="answered different examples"):
        examples.together({"a": predictions(("x", 0, 0, SURE)), "b": predictions(("y", 0, 0, SURE))})


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({}, "xyz"),
        ({"show": "some run is wrong"}, "yz"),
        ({"show": "every run is wrong"}, "y"),
        ({"show": "the runs disagree"}, "z"),
        ({"categories": ["other"]}, ""),
        ({"sure": (80.0, 100.0)}, "xz"),
        ({"words": ["Y"]}, "y"),
        ({"order": "least sure first"}, "yxz"),
        ({"show": "some run is wrong", "order": "surest first"}, "zy"),
    ],
)
def test_filters_and_orders(asked: dict[str, object], ids: str) -> None:
    assert "".join(examples.sift(two_runs(), **asked)["id"]) == ids  # type: ignore[arg-type]


def test_a_whole_id_is_that_example_alone() -> None:
    whole = examples.together({"a": predictions(("t-1", 0, 0, SURE), ("t-10", 0, 0, SURE))})
    assert examples.sift(whole, words=["t-1"])["id"].tolist() == ["t-1"]
    assert examples.sift(whole, words=["t"])["id"].tolist() == ["t-1", "t-10"]


def test_pages() -> None:
    whole = two_runs()
    assert [examples.page(whole, k, 2)["id"].tolist() for k in (1, 2, 99, -1)] == [["x", "y"], ["z"], ["z"], ["x", "y"]]
    assert examples.pages(whole, 2) == 2
    assert examples.pages(whole[:0], 2) == 1


# --------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Filed(Benchmark):
    """Pictures in files."""

    name = "filed"
    task = "factuality"
    splits = ("test",)
    revision = "1"
    licence = "CC0-1.0"
    citation = "none"
    needs_data_dir = True

    def load(self, split: object) -> list[Example]:
        assert self.data_dir is not None
        options = ("no", "yes")
        files = [self.data_dir / f"{k}.png" for k in range(3)]
        return [
            Example(f"e{k}", f"i{k}", file, "which?", "", options, runs.GOLD[k], "object", "t")
            for k, file in enumerate(files)
        ]


@pytest.fixture
def filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its files, and the benchmark known."""
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"not a picture")
    entry = registry.Registered("filed", "test", "t:Filed", lambda: Filed)
    monkeypatch.setattr(registry, "benchmarks", lambda: {"filed": entry})
    return tmp_path


def record_of(**config: object) -> object:
    return runs.record(benchmark="filed", config={"benchmark_settings": config})


def test_pictures_are_read_from_the_folder_of_the_command_line(filed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="the dashboard wasn't given the files of filed"):
        images.key(record_of())  # type: ignore[arg-type]
    monkeypatch.setenv(started.VARIABLE, '{"data_dirs": {"filed": "%s"}}' % filed)  # noqa: UP031
    key = images.key(record_of())  # type: ignore[arg-type]
    found = images.examples(key, "test")
    assert list(found) == ["e0", "e1", "e2"]
    shown = images.picture(key, "test", "e0")
    assert isinstance(shown, tuple)
    assert shown[1] == (8, 8)
    assert shown[0][8:12] == b"WEBP"
    assert "can't be read" in str(images.picture(key, "test", "e1"))
    assert "does not exist" in str(images.picture(key, "test", "e2"))
    row = {"gold": 0, "group": "i0", "category": "object"}
    assert images.fits(found["e0"], row)
    assert not images.fits(found["e0"], row | {"gold": 1})
    assert started.command("filed") == "hkdbench dashboard --data-dir filed=FOLDER"


def test_a_record_names_neither_files_nor_repositories(filed: Path) -> None:
    with pytest.raises(DataError, match="downloads nothing"):
        images.key(record_of(repo="someone/else"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="it needs the plugin that defines it"):
        images.key(runs.record(benchmark="gone"))


def test_another_revision_is_not_shown(filed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(started.VARIABLE, '{"data_dirs": {"filed": "%s"}}' % filed)  # noqa: UP031
    monkeypatch.setattr(Filed, "revision", "2")
    with pytest.raises(DataError, match="now at revision 2, but the run used 1"):
        images.examples(images.key(record_of()), "test")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------- ablations, trials


def ablation() -> Ablation:
    def result(label: str, part: str, difference: float | None, p: float | None) -> AblationResult:
        apart = None if difference is None else Interval(value=difference, low=difference - 0.1, high=difference + 0.1)
        figure = AblationFigure(value=Interval(value=0.5), difference=apart, p=p, p_holm=p)
        figures = {"test/accuracy": figure}
        return AblationResult(label=label, part=part, changed={"warmth": 0.0}, seeds=(0, 1), figures=figures)  # type: ignore[arg-type]

    results = (result("full", "full", None, None), result("-a", "ablation", -0.2, 0.01),
               result("-b", "ablation", 0.05, 0.5), result("majority", "control", -0.4, None))  # fmt: skip
    line = AblationLine(label="full", part="full", method="m", student="S", settings={}, runs={"toy": {0: "r"}})
    return Ablation(name="m_ablation", method="m", lines=(line,), tables={"toy": results})


def test_an_ablation_says_what_is_significant(tmp_path: Path) -> None:
    frame = ablations.frame(ablation(), "toy", "test/accuracy")
    assert frame["verdict"].tolist() == [
        "the full method",
        "significant (Holm)",
        "not significant",
        "not tested",
    ]
    assert frame["value"].tolist()[1:] == pytest.approx([-20, 5, -40])
    assert frame["low"].tolist()[1] == pytest.approx(-30)
    assert ablations.in_words(frame, "test/accuracy") == (
        "Significantly different from the full method in test/accuracy (Holm, p < 0.05): -a (-20.0)."
        " Not significant: 1."
    )
    assert ablations.in_words(frame[2:], "x") == (
        "None of 1 ablations differs significantly from the full method in x (Holm, p < 0.05)."
    )
    changed = {
        "-a": {"warmth": 0.001},
        "frozen": {"online": False},
        "b": {"kind": "x", "warmth": False},
        "whole": {"kind": "y"},
    }
    groups = {k: ablations.group(AblationResult(label=k, part="ablation", changed=v)) for k, v in changed.items()}
    assert groups == {"-a": "parts", "frozen": "parts", "b": "kind, warmth", "whole": "kind"}
    store = Store(tmp_path)
    save(ablation(), store, "")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text('{"lines": [')
    assert ablations.names(store) == ["broken", "m_ablation"]


def trial(number: int, accuracy: float, **settings: object) -> object:
    ended = runs.provenance(f"2026-01-01T00:{number:02d}Z")
    found = runs.record(run_id=f"t{number}", settings=settings, train={"lr": 0.1}, provenance=ended)
    return found.model_copy(update={"metrics": {"validation": {"accuracy": Interval(value=accuracy)}}})


def test_trials_stand_in_the_order_of_their_ends_with_the_best_so_far() -> None:
    found = [trial(2, 0.4, alpha=1.0, same=1), trial(1, 0.5, alpha=2.0, same=1), trial(3, 0.7, alpha=1.0, same=1)]
    # equal settings and seeds: two trials
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    assert frame["run"].tolist() == ["t1", "t2", "t3"]
    assert frame["best"].tolist() == pytest.approx([50, 50, 70])
    assert sweep.settings(frame) == ["alpha"]
    assert frame["alpha"].tolist() == [2.0, 1.0, 1.0]
    lower = sweep.trials(found, "validation", "nll")  # type: ignore[arg-type]
    assert lower["value"].isna().all()


def test_runs_that_confirm_are_no_trials() -> None:
    tagged = [trial(1, 0.5, alpha=1.0), trial(2, 0.6, alpha=2.0), trial(3, 0.4, alpha=2.0), trial(4, 0.45, alpha=1.0)]
    for record, tag in zip(tagged, ("trial", "trial", "finalist", "winner"), strict=True):
        record.tags.append(tag)  # type: ignore[attr-defined]
    searched, confirming = sweep.split_confirming(tagged)  # type: ignore[arg-type]
    assert [r.run_id for r in searched] == ["t1", "t2"]
    found = sweep.confirming_runs(confirming, "accuracy")
    assert found[["run", "role"]].values.tolist() == [["t4", "winner"], ["t3", "finalist"]]
    assert found["validation"].tolist() == pytest.approx([45, 40])
    assert found["test"].isna().all()
    assert sweep.split_confirming(searched)[0] == searched


def test_seeds_of_a_trial_are_one_trial_and_known_ones_keep_their_numbers() -> None:
    one, two = trial(1, 0.4, alpha=1.0), trial(2, 0.6, alpha=1.0).model_copy(update={"seed": 1})  # type: ignore[attr-defined]
    three = trial(3, 0.7, alpha=2.0)
    frame = sweep.trials([one, two, three], "validation", "accuracy")  # type: ignore[list-item]
    assert frame["value"].tolist() == pytest.approx([50, 70])
    assert frame["seeds"].tolist() == ["0, 1", "0"]
    stopped = sweep.SweepTrial(9, {"settings.alpha": 3.0}, "stopped", 0.3, 1, (), "")
    known = sweep.SweepTrial(4, {"settings.alpha": 2.0}, "done", 0.7, 4, ("t3",), "")
    frame = sweep.trials([one, two, three], "validation", "accuracy", [stopped, known])  # type: ignore[list-item]
    assert frame["number"].tolist() == [4, 9, 10]
    assert frame["alpha"].tolist() == [2.0, 3.0, 1.0]
    assert frame["value"].isna().tolist() == [False, True, False]
    assert sweep.in_words(frame.iloc[0].to_dict(), ["alpha"]) == "alpha = 2"


def test_two_settings_together_are_means_of_fields() -> None:
    settings = [(0.1, "a"), (0.1, "a"), (10.0, "b")]
    found = [trial(k, 0.2 * (k + 1), lr=lr, kind=kind) for k, (lr, kind) in enumerate(settings)]
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    fields = sweep.grid(frame, "lr", "kind")
    assert fields[["x", "y", "trials"]].values.tolist() == [["0.1", "a", 2], ["10", "b", 1]]
    assert fields["value"].tolist() == pytest.approx([30, 60])
    assert sweep.ranges(frame, "lr") == ["0.1", "10"]
    many = pd.DataFrame({"value": 1.0, "alpha": [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]})
    assert sweep.ranges(many, "alpha") == ["10 to 11", "11 to 12", "12 to 13", "13 to 14", "14 to 15"]


def test_importance_finds_the_setting_that_matters() -> None:
    rng = np.random.default_rng(0)
    found = [
        trial(k, 0.3 + 0.3 * (k % 2) + 0.01 * rng.random(), kind="ab"[k % 2], noise=float(rng.random()))
        for k in range(24)
    ]
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    table = sweep.importance(frame).set_index("setting")
    assert table.loc["kind", "share"] > 99
    assert table.loc["noise", "share"] <= table.loc["noise", "threshold"]
    assert not len(sweep.importance(frame[:3]))


def test_the_share_of_variance_by_hand() -> None:
    """Groups {0, 1} and {3, 4}: within 0.5 + 0.5 of all 10, so 1 - (1 / 2) / (10 / 3)."""
    assert sweep._share(np.array([[0.0, 1.0, 3.0, 4.0]]), np.array([0, 0, 1, 1]))[0] == pytest.approx(0.85)


def test_parallel_axes() -> None:
    found = [trial(1, 0.5, lr=0.001, kind="b"), trial(2, 0.6, lr=0.1, kind="a"), trial(3, 0.7, lr=0.01, kind="a")]
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    lines, ticks = sweep.parallel(frame, ["lr", "kind"], "accuracy, %")
    at = lines.pivot(index="run", columns="axis", values="at")
    assert at["lr"].tolist() == pytest.approx([0, 1, 0.5])  # logarithms
    assert at["kind"].tolist() == [1, 0, 0]
    assert at["accuracy, %"].tolist() == pytest.approx([0, 0.5, 1])
    assert ticks[ticks["axis"] == "kind"]["shown"].tolist() == ["a", "b"]


# ------------------------------------------------------------------------------------------- texts


def test_every_method_and_benchmark_is_described() -> None:
    methods, benchmarks = catalog.methods(), catalog.benchmarks()
    assert {"hkd4vlm", "reverse_kl"} <= set(methods["method"])
    assert {"pope", "scenes_factuality"} <= set(benchmarks["benchmark"])
    assert not benchmarks["summary"].str.contains("`group`").any()
    found = catalog.method("hkd4vlm")
    assert found["stages"]["stage"].unique().tolist() == ["ppod", "tcrd"]
    assert "-MSI" in found["ablations"]["ablation"].tolist()
    assert len(catalog.settings(found)) > 20
    assert catalog.method("zero_shot")["stages"].empty
    with pytest.raises(ConfigError):
        catalog.benchmark("scenes_halucination", Store("nowhere"))


def test_the_smallest_difference_by_size() -> None:
    """A tenth of 1,000 examples is discordant: (1.96 + 0.84) x sqrt(0.1 / 1000) = 2.80 points."""
    frame = catalog.by_size(1000).set_index("discordant")
    assert frame.loc[10.0, "difference"] == pytest.approx(2.80, abs=0.02)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, None, "–"),
        (float("nan"), "{:.1f}", "–"),
        (1234, None, "1,234"),
        (14216.0, None, "14,216"),
        (0.00012345, None, "0.0001234"),
        (0.5, "{:.2f}", "0.50"),
        (True, None, "true"),
        ("<b>", None, "<b>"),
    ],
)
def test_cells(value: object, form: str | None, text: str) -> None:
    assert dataframes.format_value(value, form) == text


def test_a_difference_of_zero_is_drawn() -> None:
    cell = TableCell("0.0", value=0.0, low=-0.1, high=0.1)
    assert _line(TableRow((cell,)))["cells"] == [{"text": "0.0", "value": 0.0, "low": -0.1, "high": 0.1}]


def test_columns_without_any_value_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    monkeypatch.setattr(dataframes, "table", lambda columns, *rest: heads.extend(c.name for c in columns))
    dataframes.show_frame(pd.DataFrame({"a": [1, 2], "b": ["", ""], "c": [None, None], "d": ["", "x"]}), "key", "")
    assert heads == ["a", "d"]
