"""What the tests share: where the real data lie, and a quiet, deterministic environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from helpers import cluster
from helpers.cluster import Head, Start
from helpers.common import ROOT, SHARED, Cli, Said, ToyConfig, ToyPlan, present

if TYPE_CHECKING:
    from harness.store import Store
    from harness.store.tensor_cache import Cache

# Ray turns authentication on when a token lies in the home folder: say explicitly that tests use none.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nothing takes a node away with notice here: no process of each group need ask for it.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

# On a busy machine an example may take any time.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The figures that the authors' scoring scripts give."""
    return present(SHARED / "golden")


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """The folder with a benchmark's published files, by name."""
    return lambda name: present(SHARED / "data" / name)


@pytest.fixture(scope="session")
def nlvr_dir() -> Path:
    """The published NLVR files."""
    return present(SHARED / "data" / "nlvr")


@pytest.fixture(scope="session")
def toy() -> str:
    """The plugin spec of the tests' own benchmark and methods."""
    return str(ROOT / "tests" / "helpers" / "toy.py")


@pytest.fixture(scope="session")
def toy_ladder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ladder file L > M > S of untrained models, tiny and shallow, which is all that tests of the machinery need."""
    from harness.models import tiny

    depths = {"L": (2, 2), "M": (1, 2), "S": (1, 1)}  # of the vision tower and of the language model
    folder = tmp_path_factory.mktemp("ladder")
    words = ["what", "colour", "is", "it", "?", "red", "green", "blue"]
    for rung, (vision, text) in depths.items():
        size = replace(tiny.SIZES[rung], vision_layers=vision, text_layers=text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tiny.SIZES, rung, size)
            tiny.save(*tiny.build(rung, words, seed=0), folder / rung)
    rungs = "".join(f'[[rungs]]\nname = "{rung}"\nmodel = "{rung}"\n' for rung in depths)
    (folder / "ladder.toml").write_text(f'name = "toy"\n{rungs}')
    return str(folder / "ladder.toml")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache isn't touched, also not by commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HKDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins that other tests have loaded are not there, and what this one loads is gone after it."""
    from harness import registry
    from harness.data import dataset

    for known in ("_plugins", "_problems"):
        monkeypatch.setattr(registry, known, {})
    dataset._dataset.cache_clear()  # its examples have the classes of the plugins that are gone


@pytest.fixture(autouse=True)
def own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's AppTest leaves its page as `__main__`, which a process spawned by a later test would run again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `hkdbench ARGS...` in this process; an error that isn't told in words fails the test."""
    from harness.cli import main

    monkeypatch.setenv("COLUMNS", "110")  # as piped output has, whatever terminal the tests are started from

    def run(*args: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["hkdbench", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        said = capsys.readouterr()
        return Said(int(exited.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def toy_run(toy: str, toy_ladder: str) -> list[str]:
    """Arguments of a small run of `finetune` on the toy benchmark, in this process: 12 steps of 8 examples."""
    args = ["--method", "finetune", "--benchmark", "toy", "--ladder", toy_ladder, "--plugin", toy, "--workers", "0"]
    for setting in ("examples=96", "batch_size=8", "lr=0.003", "validations=2", "shuffle_options=none"):
        args += ["--set", f"train.{setting}"]
    return args


@pytest.fixture(scope="session")
def toy_config(toy: str, toy_ladder: str) -> ToyConfig:
    """The configuration of such a run: `toy_config("mutual", seed=1, train={"examples": 48})`.

    Tables are laid over those of the small run: `train.batch_size` stays 8 here.
    """
    from harness.config import RunConfig, parse

    base: dict[str, Any] = {
        "benchmark": "toy",
        "ladder": toy_ladder,
        "plugins": [toy],
        # Untrained models learn the toy in so few steps only if its options stay where they are.
        "train": {"examples": 96, "batch_size": 8, "lr": 3e-3, "validations": 2, "shuffle_options": "none"},
        "cluster": {"workers": 0},
    }

    def made(method: str = "finetune", **changes: Any) -> RunConfig:
        over = {k: base[k] | v if k in ("train", "cluster") else v for k, v in changes.items()}
        return parse(RunConfig, base | {"method": method} | over, "test")

    return made


@pytest.fixture(scope="session")
def toy_plan(toy_config: ToyConfig) -> ToyPlan:
    """The plan of such a run, by the same arguments."""
    from harness.planning import plan

    return lambda method="finetune", **changes: plan.make(toy_config(method, **changes))


@pytest.fixture(scope="session")
def toy_suite(toy: str, toy_ladder: str) -> str:
    """The head of a suite's TOML file: the same small runs; seeds and `[[runs]]` are to be added."""
    return (
        f'benchmarks = ["toy"]\nladder = "{toy_ladder}"\nplugins = ["{toy}"]\n'
        "train = { examples = 96, batch_size = 8, lr = 0.003, validations = 2 }\n"
    )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A cluster of two CPUs, whatever the machine has; it is gone after the tests."""
    with cluster.head(cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def address(head: Head) -> str:
    """The address of its head."""
    return head.address


@pytest.fixture
def start(root: Path, tmp_path: Path, address: str) -> Start:
    """Starts `hkdbench ARGS...` as a process that joins the cluster; its folder is the test's own."""
    env = os.environ | {"PYTHONPATH": str(root), "RAY_ADDRESS": address}

    def started(*args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness", *map(str, args)]
        return subprocess.Popen(
            command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return started


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of an empty bucket, and the environment in which s3fs finds its server."""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in settings.items():
            patched.setenv(name, value)
        pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # of other tests, without this server
        boto3.client("s3").create_bucket(Bucket="results")
        yield "s3://results"
    server.stop()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store without runs; several files fill it with those that their tests are about."""
    from harness.store import Store

    return Store(tmp_path / "store")


@pytest.fixture
def varied_store(store: Store) -> Store:
    """Three rows of two seeds with a control on one benchmark, and a run on another."""
    from helpers.runs import DATA, add

    for seed in range(2):
        add(store, "finetune", 4 + seed, seed)
        add(store, "hkd4vlm", 7 + seed, seed, tags=["good"], settings={"alpha": 2})
        add(store, "finetune", 6, seed, student="L", parameters=1_200_000, train={"examples": 100}, budget=100)
    add(store, "majority", 4, kind="control", student="", parameters=0, budget=0)
    other = DATA.model_copy(update={"fingerprint": "c" * 64})
    add(store, "other", 8, benchmark="toy2", task="hallucination", data=other)
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache of tensors, of a gibibyte."""
    from harness.store.tensor_cache import Cache

    return Cache(tmp_path / "cache", 2**30)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a small real run (the tiny S tuned in 4 steps) and its controls. Copy it to change it."""
    from harness.config import RunConfig, parse
    from harness.execution.launch import launch
    from harness.store import Store

    root = tmp_path_factory.mktemp("small") / "runs"
    table = {
        "method": "finetune",
        "benchmark": "scenes_factuality",
        "benchmark_settings": {"train": 40, "validation": 12, "test": 24, "ood": 8},
        "train": {"examples": 32, "batch_size": 8, "validations": 2},
        "evaluate": {"resamples": 200},
        "cluster": {"workers": 0},
        "save_student": True,
    }
    (record,) = launch([parse(RunConfig, table, "small")], Store(root), "small", lambda _: None)
    assert record.status == "done"
    return root
