"""Every verb of the command line, what it says of bad input, and runs that are stopped in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness import __version__
from harness.config import read_toml
from harness.store import Store
from helpers.common import Cli, Said

Shell = Callable[..., Said]


@pytest.fixture
def shell(root: Path, tmp_path: Path) -> Shell:
    """Runs `python -m harness ARGS...` as a process of its own, in an empty folder."""

    def run(*args: object) -> Said:
        command = [sys.executable, "-m", "harness", *map(str, args)]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


def answers(store: Path, run_id: str) -> pd.DataFrame:
    """The predictions but for the time that they took."""
    return Store(store).predictions(run_id).drop(columns="seconds")


# ------------------------------------------------------------------------------------------ look up


def test_help_loads_neither_torch_nor_ray(root: Path) -> None:
    code = (
        "import sys; sys.argv = ['hkdbench', '--help']\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'transformers', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    for verb in (
        "list",
        "describe",
        "plan",
        "run",
        "suite",
        "demo",
        "rank",
        "show",
        "leaks",
        "check-benchmark",
        "robustness",
        "reproduce",
        "audit",
    ):
        assert f"  {verb} " in done.stdout


def test_version(cli: Cli) -> None:
    assert cli("--version") == Said(0, f"hkdbench {__version__}\n", "")


@pytest.mark.parametrize(
    "verb",
    ["list", "describe", "plan", "run", "suite", "rank", "show", "leaks", "check-benchmark", "robustness", "reproduce"],
)
def test_every_verb_has_help(cli: Cli, verb: str) -> None:
    said = cli(verb, "--help")
    assert said.code == 0
    assert "--json" in said.out


@pytest.mark.parametrize(
    ("what", "some"),
    [
        (
            "methods",
            {
                "zero_shot",
                "finetune",
                "offline_kd",
                "dkd",
                "mutual",
                "assistant",
                "feature_kd",
                "relation_kd",
                "hkd4vlm",
            },
        ),
        ("benchmarks", {"scenes_hallucination", "scenes_factuality", "nlvr"}),
        ("ladders", {"tiny"}),
    ],
)
def test_list(cli: Cli, what: str, some: set[str]) -> None:
    text = cli("list", what)
    assert text.code == 0
    assert some <= {line.split()[0] for line in text.out.splitlines()}
    rows = cli("list", what, "--json").json
    assert some <= {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)


def test_list_of_an_empty_store(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert cli("list", "runs", "--store", tmp_path / "none") == Said(0, "no runs yet\n", "")
    assert cli("list", "runs", "--store", tmp_path / "none", "--json").json == []
    assert not list((tmp_path / "none").iterdir())  # looking makes nothing


READING: tuple[tuple[str, ...], ...] = (
    ("verify", "--all"),
    ("verify", "finetune-S-0"),
    ("rank",),
    ("rank", "--format", "csv"),
    ("list", "runs"),
    ("compare", "a", "b"),
    ("show", "finetune-S-0"),
    ("pack", "finetune-S-0"),
    ("leaks", "finetune-S-0"),
    ("store", "ls"),
    ("store", "compact"),
    ("store", "gc"),
    ("store", "export", "out.csv"),
    ("store", "pack", "out.tar.xz"),
    ("ablate", "hkd4vlm", "--page", "page.md"),
    ("cache", "ls"),
)


@pytest.mark.parametrize("verb", READING, ids=" ".join)
def test_a_store_that_does_not_exist_is_no_empty_one(
    cli: Cli, tmp_path: Path, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "scenes" / "finetune-S-0").mkdir(parents=True)
    (tmp_path / "results" / "scenes" / "finetune-S-0" / "record.json").touch()
    (tmp_path / "results" / "notes").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for mistyped in ("results/scnees", "result/scenes", "results"):
        said = cli(*verb, "--store", mistyped)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said
        assert said.err.startswith("error: no store at ")
        assert f"did you mean {str(tmp_path / 'results' / 'scenes')!r}?" in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_address_without_an_answer(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path))
    said = cli("verify", "--all", "--store", "memory://nobody/here")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    said = cli("rank", "--store", "nothing://here")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    said = cli("rank", "--store", "s3://bucket/store")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "can't be read" in said.err


def test_no_runs_are_not_verified_runs(cli: Cli, tmp_path: Path) -> None:
    said = cli("verify", "--all", "--store", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert "has no runs" in said.err


@pytest.mark.parametrize(
    ("name", "kind"), [("offline_kd", "method"), ("scenes_factuality", "benchmark"), ("tiny", "ladder")]
)
def test_describe(cli: Cli, name: str, kind: str) -> None:
    assert cli("describe", name).out.startswith(f"{kind} {name}\n")
    found = cli("describe", name, "--json").json
    assert (found["kind"], found["name"]) == (kind, name)


def test_describe_shows_each_setting_with_its_words(cli: Cli) -> None:
    settings = {s["name"]: s for s in cli("describe", "offline_kd", "--json").json["settings"]}
    assert settings["alpha"]["text"]
    assert "forward_kl" in str(settings["divergence"])


# --------------------------------------------------------------------------------------------- run


def test_plan_trains_nothing(cli: Cli, toy_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / "store"))
    text = cli("plan", *toy_run)
    assert text.code == 0
    assert "stage tune: 12 steps, 96 examples, share 1" in text.out
    priced = cli("plan", *toy_run, "--json").json
    assert priced["run_id"] in text.out
    assert not (tmp_path / "store").exists()


def test_a_finished_run_of_an_edited_built_in_is_said(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    run_id = cli("run", *toy_run, "--store", tmp_path, "--json").json["run_id"]
    path = tmp_path / run_id / "record.json"
    record = json.loads(path.read_text())
    record["provenance"]["sources"]["method finetune"] = "0" * 64
    record["seal"] = None
    path.write_text(json.dumps(record))
    assert cli("run", *toy_run, "--store", tmp_path, "--json").err.splitlines() == [
        "1 of 1 runs are in the store already",
        f"not run again, although the source of method finetune has changed since: {run_id}; if that changes numbers, "
        "raise TRAINING in harness/versions.py or delete the folders of these runs",
    ]


def test_a_helper_beside_a_plugin_is_part_of_the_run(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    """A changed helper is another run: never the old result under "in the store already"."""
    (tmp_path / "acme_weight.py").write_text("weight = 1.0\n")
    (tmp_path / "acme.py").write_text(
        "from collections.abc import Mapping, Sequence\nfrom dataclasses import dataclass\n"
        "from acme_weight import weight\nfrom harness.api import Ladder, Method, Role, Stage, Step\n"
        "@dataclass(frozen=True)\nclass Acme(Method):\n    name = 'acme'\n    summary = 'weighs'\n"
        "    def stages(self, ladder, student):\n"
        "        return (Stage('only', {'student': Role(student, trainable=True)}, 1.0),)\n"
        "    def loss(self, step): return {'student': {'ce': weight * step.forward('student').square().sum(-1)}}\n"
    )
    args = ("plan", *toy_run, "--method", "acme", "--plugin", tmp_path / "acme.py", "--json")
    first = cli(*args).json["run_id"]
    assert cli(*args).json["run_id"] == first
    (tmp_path / "acme_weight.py").write_text("weight = 2.0\n")
    assert cli(*args).json["run_id"] != first


def test_a_run_and_what_can_be_asked_of_it(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    store = tmp_path / "store"
    said = cli("run", *toy_run, "--store", store, "--json")
    assert said.code == 0
    run_id = said.json["run_id"]
    assert said.json["status"] == "done"
    assert said.err.splitlines()[:2] == ["1 to run", f"began  {run_id}"]
    written = (store / run_id / "record.json").read_bytes()

    again = cli("run", *toy_run, "--store", store)
    assert again.code == 0
    assert again.out.startswith(f"{run_id}   done")
    assert again.err == "1 of 1 runs are in the store already\n"
    assert (store / run_id / "record.json").read_bytes() == written

    shown = cli("show", run_id[:-3], "--store", store)
    text, _, command = shown.out.partition("  again: hkdbench run ")
    assert text == again.out
    assert "--method finetune --benchmark toy" in command
    assert cli("show", run_id, "--store", store, "--json").json == said.json

    listed = {row["name"]: row["status"] for row in cli("list", "runs", "--store", store, "--json").json}
    assert listed.pop(run_id) == "done"
    assert sorted(name.split("-")[1] for name in listed) == ["majority", "random"]

    ranked = cli("rank", "--store", store, "--json").json
    assert {row["method"] for row in ranked["rows"]} == {"finetune", "majority", "random"}
    assert "accuracy" in cli("rank", "--store", store, "--metric", "acuracy").err
    for form, start in {"table": "", "csv": "", "markdown": "", "json": "{"}.items():
        said = cli("rank", "--store", store, "--benchmark", "toy", "--format", form)
        assert said.code == 0
        assert "finetune" in said.out
        assert said.out.startswith(start)


def test_a_run_from_a_file(cli: Cli, toy_suite: str, tmp_path: Path) -> None:
    """The command line goes before the file, `--set` before both."""
    head = toy_suite.replace('benchmarks = ["toy"]', 'benchmark = "toy"')
    (tmp_path / "run.toml").write_text(f'method = "offline_kd"\nseed = 1\n{head}')
    priced = cli("plan", tmp_path / "run.toml", "--method", "zero_shot", "--set", "seed=2", "--json").json
    assert priced["run_id"].startswith("zero_shot-S-toy-s2-")


def test_a_suite_goes_on_past_a_broken_method(cli: Cli, toy_suite: str, tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "suite.toml"
    methods = "".join(f'[[runs]]\nmethod = "{m}"\n' for m in ("scalar_loss", "finetune", "zero_shot"))
    file.write_text(f'name = "small"\nseeds = [0, 1]\n{toy_suite}{methods}')

    dry = cli("suite", file, "--store", store, "--dry-run", "--json")
    assert dry.code == 0
    assert len(dry.json) == 6
    assert "6 runs, " in cli("suite", file, "--dry-run").out
    assert not store.exists()

    first = cli("suite", file, "--store", store, "--workers", 0, "--json")
    assert first.code == 1
    status = {run["run_id"]: run["status"] for run in first.json["runs"]}
    assert status.keys() == {row["run_id"] for row in dry.json}
    assert {run_id.split("-")[0]: s for run_id, s in status.items()} == {
        "scalar_loss": "failed", "finetune": "done", "zero_shot": "done"
    }  # fmt: skip
    broken = next(run_id for run_id, s in status.items() if s == "failed")
    error = Store(store).read(broken).error
    assert error is not None
    assert "loss term student.ce is (); expected (8,)" in error.message
    assert {row["method"] for row in first.json["rank"]["toy"]["rows"]} >= {"finetune", "zero_shot", "majority"}

    second = cli("suite", file, "--store", store, "--workers", 0)
    assert second.code == 1
    assert second.err.splitlines()[:2] == ["4 of 6 runs are in the store already", "2 to run"]
    assert f"failed: {broken}: " in second.err
    assert "hkdbench show RUN" in second.out


def test_a_suite_that_scores_no_test_split_is_ranked_on_validation(cli: Cli, toy_suite: str, tmp_path: Path) -> None:
    file, splits = tmp_path / "suite.toml", "evaluate.splits=['validation']"
    file.write_text(f'name = "small"\nseeds = [0]\n{toy_suite}[[runs]]\nmethod = "zero_shot"\n')
    said = cli("suite", file, "--store", tmp_path / "store", "--workers", 0, "--set", splits)
    assert said.code == 0, said.err
    assert "zero_shot" in said.out
    assert f"hkdbench rank --store {tmp_path / 'store'} --split validation" in said.out
    assert cli("rank", "--store", tmp_path / "store", "--split", "validation").code == 0


# --------------------------------------------------------------------------------------- bad input


def refused(said: Said, says: str, store: Path) -> None:
    """One line on standard error, exit code 2, and not a file in the store."""
    assert (said.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("error: ")
    assert says in said.err
    assert not store.exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--method", "finetun"], "unknown method 'finetun': did you mean 'finetune'"),
        (["--benchmark", "toi"], "unknown benchmark 'toi': did you mean 'toy'"),
        (["--ladder", "tyni"], "unknown ladder 'tyni': did you mean 'tiny'"),
        (["--ladder", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--student", "XS"], "unknown student 'XS' on ladder 'toy': did you mean 'S'"),
        (["--set", "train.batchsize=1"], "unknown setting 'train.batchsize': did you mean 'batch_size'"),
        (["--set", "trian.lr=1"], "unknown setting 'trian': did you mean 'train'"),
        (["--set", "train.lr=fast"], "train.lr = 'fast': input should be a valid number"),
        (["--set", "train.lr=-1"], "train.lr = -1: input should be greater than 0"),
        (["--set", "train.lr"], "--set 'train.lr': expected key=value, like train.lr=0.001"),
        (["--set", "method.name=x"], "--set 'method.name=x': 'method' is a value, not a table"),
        (["--set", "settings.tempo=1"], "method 'finetune': unknown setting 'tempo': known: "),
        (["--set", "benchmark_settings.sise=1"], "benchmark 'toy': unknown setting 'sise': did you mean 'size'"),
        (["--set", "benchmark_settings.size=big"], "setting size = 'big': expected a valid integer"),
        (["--set", "evaluate.splits=['tset']"], "'tset'"),
        (["--method", "half_budget"], "shares that sum to 0.5"),
        (["--benchmark", "nlvr"], "benchmark 'nlvr' reads published files: give their folder with --data-dir"),
        (["--benchmark", "nlvr", "--data-dir", "nowhere"], "nowhere does not exist or is not a folder"),
        (["--set", "benchmark_settings.fault=empty"], "split 'test': no examples"),
        (["--set", "benchmark_settings.fault=crash"], "split 'test': its loader failed: KeyError: 'caption'"),
        (["--set", "benchmark_settings.fault=gold"], "example 't1': gold 7 is not among its 3 options (0 to 2)"),
        (["--set", "benchmark_settings.fault=no_gold"], "example 't1': gold None is not among its 3 options"),
        (["--set", "benchmark_settings.fault=options"], "example 't1': 1 options; expected 2 to 26"),
        (["--set", "benchmark_settings.fault=duplicate"], "split 'test': 2 examples have the id 't0'"),
        (
            ["--set", "benchmark_settings.fault=missing"],
            "the images of 1 of 24 examples are missing, first nowhere/t1.png",
        ),
        (["nowhere.toml"], "nowhere.toml: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(cli: Cli, toy_run: list[str], tmp_path: Path, args: list[str], says: str) -> None:
    refused(cli("run", *toy_run, *args, "--store", tmp_path / "store"), says, tmp_path / "store")


def test_several_mistakes_are_still_one_line(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    args = ["--set", "benchmark_settings.sise=1", "--set", "benchmark_settings.fault=3", "--store", tmp_path / "store"]
    said = cli("run", *toy_run, *args)
    refused(said, "unknown setting 'sise'", tmp_path / "store")
    assert "setting fault = 3: expected a valid string" in said.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('method = "finetune', "not TOML: "),
        ('method = "finetune"\n', "no benchmark given: name one with --benchmark"),
        ('method = 3\nbenchmark = "toy"\n', "method = 3: input should be a valid string"),
        ('method = "finetune"\nbenchmark = "toy"\nsede = 1\n', "unknown setting 'sede': did you mean 'seed'"),
        ('method = "finetune"\nbenchmark = "toy"\ntrain = 3\n', "train = 3: input should be"),
        ('method = "finetune"\nbenchmark = "toy"\nseed = "one"\n', "seed = 'one': input should be a valid integer"),
        ('method = "finetune"\nbenchmark = "toy"\nplugins = 3\n', "plugins = 3: input should be a valid"),
    ],
)
def test_a_wrong_file_is_one_line(cli: Cli, toy: str, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    said = cli("run", tmp_path / "run.toml", "--plugin", toy, "--store", tmp_path / "store")
    refused(said, says, tmp_path / "store")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 1\n", "name = 1: input should be a valid string"),
        ('name = "x"\nseeds = []\nbenchmarks = ["toy"]\n[[runs]]\nmethod = "finetune"\n', "seeds = []"),
        (
            'name = "x"\nseeds = [0]\nbenchmarks = ["toy"]\n[[runs]]\nmethod = "finetune"\nstuden = "S"\n',
            "unknown setting 'runs.0.studen': did you mean 'student'",
        ),
        (
            'name = "x"\nseeds = [0]\nbenchmarks = ["toy"]\n[benchmark_settings.tyo]\n[[runs]]\nmethod = "finetune"\n',
            "benchmark_settings names 'tyo', which is not among the suite's benchmarks (toy)",
        ),
    ],
)
def test_a_wrong_suite_is_one_line(cli: Cli, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "suite.toml").write_text(text)
    refused(cli("suite", tmp_path / "suite.toml", "--store", tmp_path / "store"), says, tmp_path / "store")


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ("*processor_config.json", "no processor in the folder; expected preprocessor_config.json"),
        ("*.safetensors", "no *.safetensors weights in the folder"),
        ("*", "model 'S'"),
    ],
)
def test_a_model_folder_that_lacks_something(
    cli: Cli, toy_run: list[str], toy_ladder: str, tmp_path: Path, lacks: str, says: str
) -> None:
    shutil.copytree(Path(toy_ladder).parent, tmp_path / "ladder")
    for file in (tmp_path / "ladder" / "S").glob(lacks):
        file.unlink()
    ladder = tmp_path / "ladder" / "ladder.toml"
    said = cli("run", *toy_run, "--ladder", ladder, "--store", tmp_path / "store")
    refused(said, says, tmp_path / "store")
    assert "model 'S'" in said.err


def test_a_corrupt_image_fails_the_run_and_is_named(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    """It is found only when it is read: the run has a record that says so."""
    said = cli("run", *toy_run, "--set", "benchmark_settings.fault=corrupt", "--store", tmp_path, "--json")
    assert said.code == 1
    assert said.json["status"] == "failed"
    assert "example 't1': image in memory can't be read" in said.json["error"]["message"]
    assert said.json["error"]["traceback"] is None


def test_a_store_that_is_a_file(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = cli("run", *toy_run, "--store", tmp_path / "file")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: store '{tmp_path / 'file'}' can't be written: ")
    assert "choose another with --store or HKDBENCH_STORE" in said.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["describe", "finetun"], "unknown name 'finetun': did you mean 'finetune'"),
        (["show", "nothing"], "no store at"),
    ],
)
def test_questions_that_have_no_answer(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / "store"))
    refused(cli(*args), says, tmp_path / "store")


@pytest.mark.parametrize("args", [["list", "fruits"], ["fly"], ["run", "--wrong"], ["rank", "--format", "pdf"]])
def test_wrong_usage_is_exit_code_2(cli: Cli, args: list[str]) -> None:
    said = cli(*args)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err


def test_a_plugin_that_fails_ends_the_command(cli: Cli, toy: str, toy_run: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_the_kind\n")
    for args in (["list", "methods", "--plugin", toy], ["plan", *toy_run]):
        said = cli(*args, "--plugin", broken)
        assert said.code == 2
        assert "broken.py: ModuleNotFoundError: No module named 'nothing_of_the_kind'" in said.err


def test_a_files_plugins_count_from_its_folder(toy: str, tmp_path: Path) -> None:
    """Whatever the working directory; what isn't there, and modules, stay as they are."""
    (tmp_path / "mine.py").touch()
    file = tmp_path / "suite.toml"
    file.write_text(f'plugins = ["mine.py", "a.module", "absent.py", "{toy}"]\n')
    assert read_toml(file) == {"plugins": [str(tmp_path / "mine.py"), "a.module", "absent.py", toy]}


def test_two_plugins_of_one_name(cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    twin = tmp_path / "twin.py"
    twin.write_text(
        "from dataclasses import dataclass\nfrom harness.api import Method\n"
        "@dataclass(frozen=True)\nclass Twin(Method):\n    name = 'scalar_loss'\n    summary = 'a twin'\n"
    )
    said = cli("run", *toy_run, "--plugin", twin, "--store", tmp_path / "store")
    refused(said, "two methods are named 'scalar_loss'", tmp_path / "store")


def test_an_error_is_one_line_in_a_process_of_its_own(shell: Shell) -> None:
    said = shell("run", "--method", "finetun", "--benchmark", "scenes_factuality", "--workers", "0")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: unknown method 'finetun': did you mean 'finetune'")
    assert len(said.err.splitlines()) == 1


# ------------------------------------------------------------------------- stopped in the middle


def test_a_killed_run_goes_on_where_it_was(shell: Shell, cli: Cli, toy_run: list[str], tmp_path: Path) -> None:
    """SIGKILL leaves no record; the same command resumes, and ends as if nothing had happened."""
    store, marker = tmp_path / "store", tmp_path / "killed"
    args = ["run", *toy_run, "--method", "accident", "--set", f"settings.marker={marker}", "--json"]
    assert shell(*args, "--store", store).code == -signal.SIGKILL
    assert marker.exists()
    assert [run for run in Store(store).ids() if not run.startswith("control")] == []
    resumed = cli(*args, "--store", store).json
    assert resumed["status"] == "done"
    assert resumed["provenance"]["resumed"] == 1
    straight = cli(*args, "--store", tmp_path / "other").json
    assert straight["provenance"]["resumed"] == 0
    assert straight["run_id"] == resumed["run_id"]
    pd.testing.assert_frame_equal(
        answers(store, resumed["run_id"]), answers(tmp_path / "other", straight["run_id"]), check_exact=True
    )
    assert resumed["metrics"] == straight["metrics"]
    assert resumed["cost"]["roles"].keys() == straight["cost"]["roles"].keys()
    assert [path.name for path in (store / ".work").iterdir()] == [".locks"]  # locks stay: another may wait for one


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_interrupted_and_the_next_run_finishes(
    shell: Shell, cli: Cli, toy_run: list[str], tmp_path: Path, sent: signal.Signals
) -> None:
    """So does SIGTERM, which batch systems and `ray job stop` send."""
    store, marker = tmp_path / "store", tmp_path / "stopped"
    args = ["run", *toy_run, "--method", "accident", "--set", f"settings.marker={marker}", "--store", store]
    args += ["--set", f"settings.signal={int(sent)}", "--json"]
    stopped = shell(*args)
    assert (stopped.code, stopped.out) == (130, "")
    assert "interrupted; the same command continues from the last checkpoint" in stopped.err
    assert "Traceback" not in stopped.err
    (run_id,) = [run for run in Store(store).ids() if not run.startswith("control")]
    record = Store(store).read(run_id)
    assert record.status == "interrupted"
    assert record.error is not None
    assert "run it again to resume it" in record.error.message
    finished = cli(*args)
    assert finished.code == 0
    assert finished.json["run_id"] == run_id
    assert finished.json["provenance"]["resumed"] == 1
