"""What a packed run may hold: records, tables and students that are wrong leave nothing behind."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from harness.errors import DataError, UserError
from harness.record import parse_record
from harness.store import PREDICTIONS, Store
from harness.submission import intake, submit
from harness.submission.bundle import MANIFEST
from helpers.bundles import Files, document, forged, manifest_of, table, zipped

Spoil = Callable[[Files], None]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(run_id="other"), "record.json is of run 'other'"),
        (lambda r: r.update(status="failed"), "it is failed, and only finished runs can be sent"),
        (lambda r: r.update(kind="control"), "it is a control"),
        (lambda r: r.update(schema_version=99), "schema 99"),
        (lambda r: r.update(colour="red"), "record.json is damaged: colour"),
        (lambda r: r.pop("metrics"), "no data or no figures"),
        (lambda r: r.update(data=None), "no data or no figures"),
        (lambda r: r.update(method="../x"), "method is '../x'"),
        (lambda r: r.update(benchmark="a b"), "benchmark is 'a b'"),
        (lambda r: r.update(tags=["\x1b[2J"]), "control characters"),
        (lambda r: r["settings"].update({"\u202egnp": 1}), "control characters"),
        (lambda r: r["settings"].update(deep=nested(60)), "nested more than 50 deep"),
        (lambda r: r["data"]["sizes"].update(test=-1), "data.sizes.test: Input should be greater"),
        (lambda r: r["data"]["sizes"].update(test=10**30), "data.sizes.test: Input should be less"),
        (lambda r: r["data"]["sizes"].update(test=10**13), "sizes of splits"),
        (lambda r: r["data"].update(options=["x"]), "1 options; expected 2 to 26"),
        (lambda r: r["data"].update(options=["x", "y"]), "scores for 2 options"),
        (lambda r: r["metrics"].update(dev=r["metrics"]["test"]), "figures of split 'dev'"),
        (lambda r: r["metrics"].pop("ood"), "isn't of the splits"),
        (lambda r: r["metrics"]["test"].update({f"accuracy/{i}": {"value": 1} for i in range(1001)}), "at most 1000"),
        (lambda r: r["config"]["evaluate"].update(resamples=10**9), "1000000000 resamples"),
        (lambda r: r["metrics"]["test"]["accuracy"].update(value=0.99), "figures: test accuracy is 0.99, the predict"),
        (lambda r: r["cost"].update(train_flops=1.0), "cost: train_flops is 1.0"),
        (lambda r: r["cost"].update(train_seconds=-1.0), "record.json is damaged: cost.train_seconds"),
        (lambda r: r["data"].update(fingerprint="0" * 64), "data: fingerprint"),
        (
            lambda r: r["config"]["benchmark_settings"].update(train=10**12),
            "data: split train has 40 examples, the benchmark",
        ),
        (lambda r: r["identity"].update(seed=3), "run id: the identity's hash gives"),
    ],
)
def test_records(
    refused: Callable[[Path, str], None],
    files: Files,
    run_id: str,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
    says: str,
) -> None:
    document(files, change)
    refused(forged(tmp_path / "x.zip", files, run_id), says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe{}", "record.json is damaged: 'utf-8'"),
        (b"[" * 100_000, "record.json is damaged"),
        (b"null", "record.json is damaged"),
        (b'{"schema_version": 0}', "record.json is damaged"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "record.json is damaged"),
        (pickle.dumps({"run_id": 1}), "record.json is damaged"),
    ],
)
def test_records_that_are_none(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, text: bytes, says: str
) -> None:
    refused(zipped(tmp_path / "x.zip", {**files, "record.json": text, MANIFEST: manifest_of(
        files | {"record.json": text}, run_id)}, zipfile.ZIP_STORED), says)  # fmt: skip


def column(name: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """The table with one column changed, in its type."""

    def changed(found: pa.Table) -> pa.Table:
        at = PREDICTIONS.get_field_index(name)
        return found.set_column(
            at, PREDICTIONS.field(at), pa.array(change(found[name].to_pylist()), PREDICTIONS.types[at])
        )

    return changed


def first(value: Any) -> Callable[[Any], Any]:
    return lambda values: [value, *values[1:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns("gold"), "predictions.parquet has columns split string"),
        (lambda t: t.append_column("more", pa.array(range(len(t)))), "predictions.parquet has columns split string"),
        (lambda t: t.set_column(4, "gold", pc.cast(t["gold"], pa.float64())), "gold double"),
        (lambda t: t.set_column(1, "id", pc.cast(t["id"], pa.binary())), "id binary"),
        (lambda t: t.slice(0, 0), "predictions.parquet has no rows"),
        (lambda t: t.slice(1), "answers: "),
        (column("gold", first(4)), "gold 4 isn't one of its options"),
        (column("gold", first(-1)), "gold -1 isn't one of its options"),
        (column("chosen", first(9)), "chosen 9 isn't one of its options"),
        (column("chosen", first(-2)), "chosen -2 isn't one of its options"),
        (column("scores", first([0.0] * 5)), "5 scores for 4 options"),
        (column("scores", first([float("nan")] * 4)), "a score isn't finite"),
        (column("scores", first([None] * 4)), "a score isn't finite"),
        (column("id", first(None)), "column id has 1 null values"),
        (column("category", first("x" * 1001)), "a category is longer than 1000 bytes"),
        (column("category", first("\x1b]0;x\x07")), "a category holds control characters"),
        (column("group", first("elsewhere")), "golds: "),
        (column("seconds", first(float("nan"))), "it took nan seconds"),
        (column("split", lambda values: ["train"] * len(values)), "isn't of the splits"),
    ],
)
def test_predictions(
    refused: Callable[[Path, str], None],
    files: Files,
    run_id: str,
    tmp_path: Path,
    change: Callable[[pa.Table], pa.Table],
    says: str,
) -> None:
    table(files, change)
    refused(forged(tmp_path / "x.zip", files, run_id), says)


@pytest.mark.parametrize("name", ["predictions.parquet", "history.parquet"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(300) + b"PAR1", pickle.dumps([1, 2])])
def test_tables_that_are_none(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, name: str, data: bytes
) -> None:
    refused(forged(tmp_path / "x.zip", files | {name: data}, run_id), f"{name} can't be read")


def test_a_table_that_grows(refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path) -> None:
    """Three million rows of one word: 1.5 kB packed by the column's own compression."""
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x"]))
    columns = {field.name: word if pa.types.is_string(field.type) else pa.nulls(3_000_000, field.type)
               for field in PREDICTIONS}  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).cast(PREDICTIONS), buffer, compression="zstd")
    files["predictions.parquet"] = buffer.getvalue()
    assert len(files["predictions.parquet"]) < 100_000
    refused(forged(tmp_path / "x.zip", files, run_id), "predictions.parquet declares 3000000 rows")


def test_what_a_table_takes_is_bounded_whatever_it_declares() -> None:
    code = (
        "import numpy as np\n"
        "from harness.submission.intake import _memory_limit\n"
        "with _memory_limit(64 * 2**20):\n"
        "    small = np.ones(2**20)\n"
        "    try: np.ones(2**27)\n"
        "    except MemoryError: print('refused')\n"
        "large = np.ones(2**27 // 8)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("refused\n" if sys.platform == "linux" else "")


def test_a_bootstrap_that_would_take_for_ever(files: Files) -> None:
    """Two limits that a small run can't reach: groups times categories, and groups times resamples."""
    wide = pq.read_table(io.BytesIO(files["predictions.parquet"]))
    record = json.loads(files["record.json"])
    record["config"]["evaluate"]["resamples"] = intake.MOST_RESAMPLES
    found = parse_record(json.dumps(record))
    assert not isinstance(found, str)
    names = [f"c{i}" for i in range(900)]
    rows = len(wide)
    many = column("category", lambda values: [names[i % 900] for i in range(len(values))])(
        pa.concat_tables([wide] * (900 // rows + 1))
    )
    with pytest.raises(DataError, match=r"900 categories and 100000 resamples: too many to recompute"):
        intake._check_predictions(Path("x.zip"), many, found)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("student/model.safetensors", pickle.dumps({"weights": [1.0]}), "isn't a safetensors file"),
        ("student/model.safetensors", struct.pack("<Q", 2**60) + b"{}", "isn't a safetensors file"),
        ("student/model.safetensors", struct.pack("<Q", 2) + b"{}" + bytes(100), "isn't a safetensors file"),
        ("student/config.json", b"{", "isn't a json file"),
        ("student/config.json", b'{"auto_map": {"AutoModel": "evil.Model"}}', "refers to custom code"),
        ("student/chat_template.jinja", b"\xff", "isn't a jinja file"),
        ("student/chat_template.jinja", b"{{ 1 }}", "seal: student/chat_template.jinja: its bytes don't have"),
        ("student/other.json", b"{}", "seal: student/other.json: was added later: the record states no sha256 of it"),
    ],
)
def test_students(
    refused: Callable[[Path, str], None], files: Files, run_id: str, tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    refused(forged(tmp_path / "x.zip", files | {name: data}, run_id), says)


def test_records_of_any_shape_are_refused_in_words(files: Files, run_id: str, tmp_path: Path) -> None:
    """Random parts of the record replaced by other things: an answer in words, or a run that verifies."""
    rng, good = random.Random(0), files["record.json"]

    def replaced(value: Any) -> Any:
        """The document with one random part of it replaced."""
        if isinstance(value, dict) and value and rng.random() < 0.85:
            key = rng.choice(sorted(value))
            return value | {key: replaced(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.85:
            at = rng.randrange(len(value))
            return [*value[:at], replaced(value[at]), *value[at + 1 :]]
        return rng.choice([None, -1, 10**40, 1e308, "", "x", [], {}, [[]], True, {"a": None}, 0.5])

    said: list[str] = []
    for _ in range(80):
        files["record.json"] = json.dumps(replaced(json.loads(good) | {"seal": None})).encode()
        try:
            submit.add(Store(tmp_path / "store"), forged(tmp_path / "x.zip", files, run_id))
        except UserError as error:
            said.append(str(error))
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
    assert len(said) > 60
    assert [text for text in said if len(text.splitlines()) != 1] == []
