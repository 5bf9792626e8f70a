"""The tables of a run's folder: predictions (one row per answered example) and history (one per logged value)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import StoreError, first_line

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = pa.schema(
    [
        ("split", pa.string()),
        ("id", pa.string()),
        ("group", pa.string()),
        ("category", pa.string()),
        ("gold", pa.int32()),
        ("chosen", pa.int32()),
        ("scores", pa.list_(pa.float32())),
        ("seconds", pa.float32()),
        ("text", pa.string()),
    ]
)
"""An answered example: `gold` and `chosen` (-1: no option was read from the answer) are indices into its options.
`scores` (K,) has one number per option (empty if only a text was given); `text` is the answer's text, if there is
one."""

HISTORY = pa.schema(
    [
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("progress", pa.float64()),
        ("role", pa.string()),
        ("term", pa.string()),
        ("value", pa.float64()),
    ]
)
"""A logged value: a loss term, a learning rate, a validation figure, by stage, step and role."""

WRITTEN = PREDICTIONS.append(pa.field("tokens", pa.int32()))
"""Predictions that the run's student wrote (`evaluate.answer`): `tokens` is their number for the example."""

TABLES = {"predictions": PREDICTIONS, "history": HISTORY}

_PLAIN = ("scores.list.element", "value")
"""Columns that are written as they are: hardly a number comes twice, and what `hkdbench store pack` compresses together
takes half the room if they weren't compressed one by one before."""


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """How `pyarrow.parquet.write_table` is to write a table: zstd and dictionaries, but for `_PLAIN`."""
    leaves = [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]
    return {
        "compression": {leaf: "none" if leaf in _PLAIN else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in leaves if leaf not in _PLAIN],
    }


class NoTableError(StoreError):
    """A run was written without this table."""


def from_parquet(data: bytes, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """A table as it was written, or some of its columns."""
    parquet = pq.ParquetFile(pa.BufferReader(data))
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    elif schema is PREDICTIONS and "tokens" in parquet.schema_arrow.names:
        schema = WRITTEN
    found = parquet.read(columns=[name for name in schema.names if name in parquet.schema_arrow.names])
    if "text" in schema.names and "text" not in found.column_names:  # written before answers could be imported
        found = found.append_column("text", pa.nulls(len(found), pa.string()))
    return found.select(schema.names).cast(schema)


class PredictionRow(NamedTuple):
    """One answered example, see `PREDICTIONS` and `WRITTEN`."""

    split: str
    id: str
    group: str
    category: str
    gold: int
    chosen: int
    scores: Iterable[float]
    seconds: float
    text: str | None = None
    tokens: int | None = None


class HistoryRow(NamedTuple):
    """One logged value, see `HISTORY`."""

    stage: str
    step: int
    progress: float
    role: str
    term: str
    value: float


def predictions_frame(rows: Iterable[PredictionRow]) -> pd.DataFrame:
    """The rows as the table that `Store.write` takes."""
    import pandas as pd

    frame = pd.DataFrame.from_records(list(rows), columns=WRITTEN.names)
    return frame if frame["tokens"].notna().any() else frame[PREDICTIONS.names]


def history_frame(rows: Iterable[HistoryRow]) -> pd.DataFrame:
    """The rows as the table that `Store.write` takes."""
    import pandas as pd

    return pd.DataFrame.from_records(list(rows), columns=HISTORY.names)


def to_table(frame: pd.DataFrame, schema: pa.Schema, what: str) -> pa.Table:
    """The frame in its schema. Raises `StoreError` for other columns or for values that don't fit."""
    if schema is PREDICTIONS and "tokens" in frame.columns:
        schema = WRITTEN
    if set(frame.columns) != set(schema.names):
        found, expected = ", ".join(map(str, frame.columns)), ", ".join(schema.names)
        raise StoreError(f"{what}: columns {found}; expected {expected}")
    try:
        return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError) as error:
        raise StoreError(f"{what}: {first_line(error)}") from None
