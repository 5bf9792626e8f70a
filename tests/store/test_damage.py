"""Whatever happens to a file of a store: the run is named, and all else is as if it weren't there."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.leaderboard.leaderboard import ranking
from harness.report.text import to_json
from harness.store import HistoryRow, Store, history_frame, maintenance
from harness.store.backend import CATALOGUE, LABELS
from harness.store.compaction import compact
from harness.store.local import LocalBackend
from harness.submission.verify import verify
from helpers.common import Cli
from helpers.runs import DATA, add, answers, record

FILES = ("record.json", "predictions.parquet", "history.parquet")
RANKED = FILES[:2]
"""Those that a ranking is computed from."""

Damage = Callable[[Path, random.Random], None]


def forty_runs(store: Store) -> None:
    """A benchmark with four rows, two with two rows, five seeds each; one row is called otherwise."""
    history = history_frame(HistoryRow("tune", step, step / 4, "student", "loss/ce", 1 / step) for step in range(1, 5))
    rng = random.Random(0)
    methods = ("finetune", "offline_kd", "hkd4vlm", "dml")
    for name, count in (("toy", 4), ("toy2", 2), ("toy3", 2)):
        data = DATA.model_copy(update={"fingerprint": (name[3:] or "a") * 64})
        for method in methods[:count]:
            for seed in range(5):
                frame = answers(sorted(rng.sample(range(8), rng.randrange(3, 8))))
                about = record(method, seed, frame, benchmark=name, data=data, run_id=f"{method}-S-{name}-s{seed}")
                store.write(about, frame, history)
    maintenance.relabel(store, {f"dml-S-toy-s{seed}": "mutual" for seed in range(5)})


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forty") / "store"
    forty_runs(Store(root))
    return root


# ------------------------------------------------------------------------------------------ the damages


def flipped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for at in rng.sample(range(len(data)), rng.choice([1, 1, 1, 2, 50])):
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncated(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def longer(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.choice([1, 100])))


def other_bytes(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(len(path.read_bytes())))


def removed(path: Path, rng: random.Random) -> None:
    path.unlink()


def a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: Sequence[Damage] = (flipped, flipped, flipped, truncated, emptied, longer, other_bytes, removed, a_folder)


@contextmanager
def spoilt(*paths: Path) -> Iterator[None]:
    """The files are as they were afterwards, to the nanosecond."""
    before = [(path, path.read_bytes(), os.stat(path).st_mtime_ns) for path in paths]
    try:
        yield
    finally:
        for path, data, time in before:
            if path.is_dir():
                path.rmdir()
            path.write_bytes(data)
            os.utime(path, ns=(time, time))


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """No permission to read it, whoever runs the tests: root has them all."""
    real_read, real_open = LocalBackend.read, LocalBackend.open

    def refused(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(self: LocalBackend, name: str) -> Any:
            if self.root / name == path:
                raise PermissionError(13, "Permission denied", str(path))
            return real(self, name)

        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalBackend, "read", refused(real_read))
        patch.setattr(LocalBackend, "open", refused(real_open))
        yield


# ---------------------------------------------------------------------------------------- what must hold


def rows_of(root: Path) -> tuple[dict[tuple[str, str], str], set[str]]:
    """The rows of `rank --format json` by benchmark and method, each as its text; and the runs that are named."""
    found = ranking(Store(root))
    document = json.loads(to_json(found.rows, list(map(str, found.broken))))
    assert len(document["notes"]) == len(found.broken)
    rows = {(row["benchmark"], row["method"]): json.dumps(row) for row in document["rows"]}
    return rows, {note.partition(":")[0] for note in document["notes"]}


def without_note(row: str | None) -> dict[str, Any] | None:
    return None if row is None else json.loads(row) | {"note": ""}


class Expected:
    """The rows of the store without some runs, computed once."""

    def __init__(self, root: Path, intact: Path, scratch: Path) -> None:
        self.root, self.intact, self.scratch = root, intact, scratch
        self.known: dict[frozenset[str], dict[tuple[str, str], str]] = {}
        self.reports = {run_id: set(verify(Store(root), run_id).of("changed")) for run_id in Store(root).ids()}
        """What is wrong with these runs anyway: nobody trained them."""

    def without(self, *names: str, answers: bool = False) -> dict[tuple[str, str], str]:
        """`answers`: only their predictions are gone. What their records say of the seeds' spread still counts."""
        key = frozenset([*names, *(["answers"] if answers else [])])
        if key not in self.known:
            copy = self.scratch / str(len(self.known))

            def gone(folder: str, _: list[str]) -> set[str]:
                if answers:
                    return {"predictions.parquet"} if Path(folder).name in names else {CATALOGUE}
                return {*names, CATALOGUE}

            shutil.copytree(self.intact, copy, ignore=gone)
            self.known[key], named = rows_of(copy)
            assert named == (set(names) if answers else set())
            if answers:
                assert figures(self.known[key]) == figures(self.without(*names))
            shutil.rmtree(copy)
        return self.known[key]


def figures(rows: dict[tuple[str, str], str]) -> dict[tuple[str, str], dict[str, float]]:
    """The rows' figures without their intervals."""
    return {key: {name: x["value"] for name, x in json.loads(row)["values"].items()} for key, row in rows.items()}


def row_of(run_id: str) -> tuple[str, str]:
    method, _, benchmark, _ = run_id.split("-")
    return benchmark, method


def check(expected: Expected, *spoiled: tuple[Sequence[str], str, bool]) -> None:
    """Each of `spoiled`: runs, which of their files, and whether the ranking is computed from it and so names them.

    Several at once are of different benchmarks, whose rows don't depend on each other.
    """
    rows, named = rows_of(expected.root)
    wanted = dict(expected.without())
    for damaged, name, ranked in spoiled:
        less = expected.without(*(damaged if ranked else ()), answers=ranked and name == "predictions.parquet")
        for run_id in damaged:
            benchmark = row_of(run_id)[0]
            wanted = {key: row for key, row in wanted.items() if key[0] != benchmark}
            wanted |= {key: row for key, row in less.items() if key[0] == benchmark}
    gone = {run_id for damaged, _, ranked in spoiled if ranked for run_id in damaged}
    assert named == gone
    own = {row_of(run_id) for run_id in gone}
    assert rows.keys() == wanted.keys()
    for key, row in rows.items():
        if key in own:
            assert without_note(row) == without_note(wanted[key])
        else:
            assert row == wanted[key]
    for run_id in (run_id for damaged, _, _ in spoiled for run_id in damaged):
        assert set(verify(Store(expected.root), run_id).of("changed")) - expected.reports[run_id], run_id


def damage_many(forty: Path, tmp_path: Path, compacted: bool, count: int) -> None:
    root = tmp_path / "store"
    shutil.copytree(forty, root)
    if compacted:
        compact(Store(root))
    expected, rng = Expected(root, forty, tmp_path), random.Random(f"{compacted}/{count}")
    runs = Store(root).ids()
    assert len(runs) == 40
    whole = expected.without()
    of_benchmark = [[run_id for run_id in runs if row_of(run_id)[0] == name] for name in ("toy", "toy2", "toy3")]
    done = 0
    while done < count:
        done += 1
        run_id, name = rng.choice(runs), rng.choice(FILES)
        path = root / run_id / name
        kind = rng.choice(["damage"] * 12 + ["swap", "forbid", "labels", "catalogue", "cache"])
        if kind == "damage":
            several = [(rng.choice(of), rng.choice(FILES)) for of in of_benchmark]
            done += len(several) - 1
            with spoilt(*(root / one / file for one, file in several)):
                for one, file in several:
                    rng.choice(DAMAGES)(root / one / file, rng)
                check(expected, *(([one], file, file in RANKED) for one, file in several))
        elif kind == "swap":
            other = rng.choice([one for one in runs if one != run_id])
            with spoilt(path, root / other / name):
                mine, theirs = path.read_bytes(), (root / other / name).read_bytes()
                path.write_bytes(theirs)
                (root / other / name).write_bytes(mine)
                if mine != theirs:
                    check(expected, ([run_id, other], name, name in RANKED))
        elif kind == "forbid":  # what is in the catalogue isn't opened
            with forbidden(path):
                check(expected, ([run_id], name, name in RANKED and not compacted))
        elif kind == "labels":
            with spoilt(root / LABELS):
                (root / LABELS).write_bytes(rng.choice([b"", b"{", b'{"a": 1}', b"\xff"]))
                rows, named = rows_of(root)
                assert (rows, named) == (expected.without(LABELS), {LABELS})
        elif compacted:
            rows_of(root)
            folder = root / CATALOGUE / ("cache" if kind == "cache" else ".")
            file = rng.choice(sorted(one for one in folder.iterdir() if one.is_file()))
            cached = root / CATALOGUE / "cache"
            with spoilt(file):
                if kind == "catalogue":
                    shutil.rmtree(cached)
                rng.choice(DAMAGES)(file, rng)
                assert rows_of(root) == (whole, set())
                if file.parent == cached and file.is_dir():
                    file.rmdir()
                    file.write_bytes(b"")
                cached.mkdir(exist_ok=True)
    assert rows_of(root) == (whole, set())


@pytest.mark.parametrize("compacted", [False, True], ids=["folders", "catalogue"])
def test_random_damages(forty: Path, tmp_path: Path, compacted: bool) -> None:
    damage_many(forty, tmp_path, compacted, 10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("compacted", "count"), [(False, 600), (True, 400)], ids=["folders", "catalogue"])
def test_a_thousand_random_damages(forty: Path, tmp_path: Path, compacted: bool, count: int) -> None:
    damage_many(forty, tmp_path, compacted, count)


# ------------------------------------------------------------------------------------------- the commands

VERBS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("rank",), 0),
    (("rank", "--format", "csv"), 0),
    (("rank", "--format", "markdown", "--columns", "cost,distil,power"), 0),
    (("rank", "--aggregate", "mean,rank,iqm"), 0),
    (("compare", "finetune", "hkd4vlm", "--benchmark", "toy"), 0),
    (("list", "runs"), 0),
    (("store", "ls"), 0),
    (("store", "export", "runs.csv", "--predictions", "predictions.csv"), 0),
    (("store", "pack", "store.tar.xz"), 0),
    (("verify", "--all"), 1),
    (("verify", "finetune-S-toy-s1"), 1),
    (("show", "finetune-S-toy-s1"), 2),
    (("compare", "finetune-S-toy-s1", "finetune-S-toy-s2"), 2),
    (("store", "compact"), 0),
)
"""Verbs with their exit codes where the record of one run is damaged."""
NAMED = {"rank", "compare", "list", "store ls", "store pack", "verify", "show"}


def resealed(path: Path, **fields: Any) -> None:
    table = json.loads(path.read_text())
    path.write_text(json.dumps(table | fields | {"seal": None}))


@pytest.mark.parametrize("kind", ["seed", "memory", "settings", "bit", "folder"])
def test_every_verb_goes_on(forty: Path, tmp_path: Path, cli: Cli, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "store"
    shutil.copytree(forty, root)
    path = root / "finetune-S-toy-s1" / "record.json"
    table = json.loads(path.read_text())
    match kind:
        case "seed":
            resealed(path, seed=2**63)
        case "memory":
            resealed(path, cost=table["cost"] | {"peak_memory_bytes": 10**40})
        case "settings":
            resealed(path, config=table["config"] | {"settings": 3})
        case "bit":
            path.write_bytes(path.read_bytes().replace(b'"seed": 1', b'"seed": 5', 1))
        case "folder":
            path.unlink()
            path.mkdir()
    for verb, code in VERBS:
        said = cli(*verb, "--store", root)
        assert said.code == code, (verb, said)
        if verb[0] in NAMED or " ".join(verb[:2]) in NAMED:
            assert "finetune-S-toy-s1" in said.out + said.err, verb


def test_predictions_that_cannot_be_read_cost_their_seed_only(forty: Path, tmp_path: Path, cli: Cli) -> None:
    """The row says which seed is left out and why, and so does a comparison."""
    root = tmp_path / "store"
    shutil.copytree(forty, root)
    with forbidden(root / "finetune-S-toy-s1" / "predictions.parquet"):
        found = cli("rank", "--benchmark", "toy", "--store", root, "--json").json
        row = next(row for row in found["rows"] if row["method"] == "finetune")
        assert (row["seeds"], row["note"][:40]) == ([0, 2, 3, 4], "seed 1 is left out: predictions.parquet ")
        assert "Permission denied" in row["note"]
        assert [note.partition(":")[0] for note in found["notes"]] == ["broken"]
        compared = cli("compare", "finetune", "dml", "--benchmark", "toy", "--store", root)
        assert "broken, left out: finetune-S-toy-s1: predictions.parquet is damaged" in compared.out
        said = cli("verify", "--all", "--store", root)
        assert said.code == 1
        assert "changed     finetune-S-toy-s1  seal: predictions.parquet: can't be read" in said.out
        alone = cli("compare", "finetune-S-toy-s1", "finetune-S-toy-s2", "--store", root)
        assert (alone.code, alone.out, alone.err.count("\n")) == (2, "", 1)


def test_options_of_one_record_do_not_decide_for_all(store: Store) -> None:
    """Without checksums a record may say anything; the figures of the others don't depend on it."""
    for seed in range(3):
        add(store, "finetune", 6, seed)
    before = ranking(store)
    add(store, "a", 5, 0, data=DATA.model_copy(update={"options": ["no"]}))
    rows = {row.method: row for row in ranking(store).rows}
    assert rows["finetune"].values == before.rows[0].values
