"""MFC-Bench: its three parts and its figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mfc_bench
from benchmarks.mfc_bench import MFCBench
from harness.api import Answer, DataError
from helpers.standins import (
    MFC_BENCH,
    cell,
    encoded,
)


def test_the_three_parts_of_mfc_bench(tmp_path: Path) -> None:
    MFC_BENCH.write(tmp_path)
    parts: dict[str, list[dict[str, Any]]] = {
        "ooc": [
            {"image_id": n // 2, "id": n, "caption": f"c {n}", "matched": n % 2 == 0, "image": cell(n)}
            for n in range(4)
        ],
        "veracity": [
            {
                "evidence_id": f"e{n}",
                "topic": n,
                "document_id": f"d{n}",
                "relevancy": n % 2,
                "claim": f"c {n}",
                "image": cell(n),
            }
            for n in range(4)
        ],
    }
    for part, rows in parts.items():
        replace(MFC_BENCH, file=f"{part}/train-00000-of-00001.parquet", rows=rows).write(tmp_path)
    golds = {}
    for part in ("manipulation", "ooc", "veracity"):
        examples = list(MFCBench(tmp_path, part=part).load("test"))  # type: ignore[arg-type]
        golds[part] = [(e.options[e.gold], e.category) for e in examples]
        assert len({e.load_image().getpixel((0, 0)) for e in examples}) == 4
    assert golds == {
        "manipulation": [("No", "authentic"), ("Yes", "face swap")] * 2,
        "ooc": [("No", "matched"), ("Yes", "mismatched")] * 2,
        "veracity": [("Yes", "false"), ("No", "true")] * 2,
    }


def test_an_id_of_mfc_bench_that_comes_with_another_text(tmp_path: Path) -> None:
    """It gets the row's number; the same row again is an error."""
    rows = [*MFC_BENCH.rows[:2], {**MFC_BENCH.rows[0], "caption": "Another one."}]
    folder = MFC_BENCH.write(tmp_path / "once", encoded("parquet", rows))
    assert [e.id for e in MFCBench(folder).load("test")] == ["m0", "m1", "m0-2"]
    folder = MFC_BENCH.write(tmp_path / "twice", encoded("parquet", [*rows, MFC_BENCH.rows[1]]))
    with pytest.raises(DataError, match="item 4: the id .* is already used by .* item 2"):
        list(MFCBench(folder).load("test"))


def test_mfc_bench_figures() -> None:
    """Two Yes, one found; two No, both found. F1 of Yes 2/3, of No 4/5."""

    def answer(gold: int, chosen: int) -> Answer:
        return Answer("x", "g", "c", ("Yes", "No"), gold, chosen, "")

    figures = mfc_bench.official([answer(0, 0), answer(0, 1), answer(1, 1), answer(1, 1)])
    assert figures == pytest.approx({"accuracy": 3 / 4, "macro_f1": (2 / 3 + 4 / 5) / 2})
