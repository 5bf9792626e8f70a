"""Answers produced elsewhere: read from a file, matched with a benchmark's examples, parsed as options.

A file is CSV or TSV with the columns id and answer; JSON Lines of objects with both; Parquet with both; or
JSON: an array of such objects, or an object {id: answer}, either directly or under `predictions`. In an object, a
nested table is a part of the ids (`{"random": {"1": "yes"}}` answers `random/1`), `{"constant": answer}` gives
the same answer to everything, a table with an `answer` is the answer, and of a list the last element is used.
This module imports neither torch nor ray.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.api import Benchmark, Example, Split
from harness.errors import ConfigError, DataError, first_line, near
from harness.evaluation.choices import read_choice
from harness.stats.metrics import NO_ANSWER

LONGEST = 1 << 20
"""The maximum number of characters of an answer."""


@dataclass(frozen=True)
class AnswerFile:
    """The answers of a file in its order, by the names in the file; or one answer to everything."""

    path: Path
    given: Sequence[tuple[str, str]] = ()
    constant: str | None = None


# --------------------------------------------------------------------------------------------- reading


def read(path: Path) -> AnswerFile:
    """The answers in a file. Raises `DataError` that names the file, and the line or item with the error."""
    kind = path.suffix.lower()
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet, ".json": _json}
    if kind not in readers:
        raise DataError(f"{path}: unknown file type; expected a name that ends in {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected predictions with the columns id and answer")
    try:
        found = readers[kind](path)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply to be read") from None
    except (OSError, csv.Error, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read: {first_line(error)}") from None
    if not found.given and found.constant is None:
        raise DataError(f"{path}: contains no answers")
    return found


def _csv(path: Path) -> AnswerFile:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        names = reader.fieldnames or []
        _check_columns(path, names)
        given = []
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if None in row or None in row.values():  # more fields, or fewer
                raise DataError(f"{where}: expected {len(names)} fields, as in the first line")
            given.append(_pair(row, where))
        return AnswerFile(path, given)


def _jsonl(path: Path) -> AnswerFile:
    given = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}: line {number}"
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{where}: not JSON ({error})") from None
                given.append(_pair(row, where))
    return AnswerFile(path, given)


def _parquet(path: Path) -> AnswerFile:
    with pq.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names)
        rows = file.read(columns=["id", "answer"]).to_pylist()
    return AnswerFile(path, [_pair(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)])


def _json(path: Path) -> AnswerFile:
    found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _once(pairs, path))
    if isinstance(found, dict) and isinstance(found.get("predictions"), dict | list):
        found = found["predictions"]
    if isinstance(found, list):
        return AnswerFile(path, [_pair(row, f"{path}: item {number}") for number, row in enumerate(found, 1)])
    if not isinstance(found, dict):
        raise DataError(f"{path}: a JSON {type(found).__name__}, expected an object {{id: answer}} or an array")
    if "constant" in found:
        return AnswerFile(path, constant=_text(found["constant"], f"{path}: constant"))
    return AnswerFile(path, list(_flat(found, path)))


def _once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {_listed('duplicate', twice)}; expected one answer per id")
    return dict(pairs)


def _flat(table: Mapping[str, Any], path: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict) and "answer" not in value:
            yield from _flat(value, path, f"{prefix}{key}/")
        else:
            answer = value["answer"] if isinstance(value, dict) else value
            yield prefix + key, _text(answer, f"{path}: answer to {prefix + key!r}")


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for needed in ("id", "answer"):
        if needed not in names:
            raise DataError(f"{path}: no column {needed!r}; expected id and answer, found {', '.join(names) or 'none'}")


def _pair(row: Any, where: str) -> tuple[str, str]:
    if not isinstance(row, dict) or "id" not in row or "answer" not in row:
        raise DataError(f"{where}: expected an object with id and answer")
    id_ = row["id"]
    if not isinstance(id_, str | int) or isinstance(id_, bool) or id_ == "":
        raise DataError(f"{where}: id is {id_!r}, expected a string or an integer")
    return str(id_), _text(row["answer"], where)


def _text(answer: Any, where: str) -> str:
    """An answer as text: numbers and booleans as Python writes them, null as an empty string."""
    if isinstance(answer, list) and answer:
        answer = answer[-1]
    if answer is None:
        return ""
    if not isinstance(answer, str | int | float):
        raise DataError(f"{where}: the answer is a {type(answer).__name__}, expected a string")
    text = str(answer)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(f"{where}: the answer contains half a surrogate pair, expected valid Unicode")
    if len(text) > LONGEST:
        raise DataError(f"{where}: an answer of {len(text):,} characters, expected at most {LONGEST:,}")
    return text


# -------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class MatchedAnswers:
    """The examples of the answered splits, in order, each with its text; None: not answered."""

    answers: Sequence[tuple[Split, Example, str | None]]

    @property
    def splits(self) -> list[Split]:
        return list(dict.fromkeys(split for split, _, _ in self.answers))

    @property
    def missing(self) -> list[str]:
        return [example.id for _, example, text in self.answers if text is None]


def match(
    benchmark: Benchmark,
    examples: Mapping[Split, Sequence[Example]],
    predictions: AnswerFile,
    split: Split | None = None,
) -> MatchedAnswers:
    """The examples with their answers: of `split`, or else of every split that the file has answers for.

    Names are the benchmark's (`Benchmark.names`). Raises `DataError`, with counts and first examples, for
    names that no example has, that occur twice or that several splits have, and `ConfigError` for an unknown split.
    """
    if split is not None and split not in examples:
        raise ConfigError(f"benchmark {benchmark.name!r} has no split {split!r}; {near(split, examples)}")
    if predictions.constant is not None:
        wanted = [split] if split else list(examples)
        return MatchedAnswers([(s, e, predictions.constant) for s in wanted for e in examples[s]])
    by_name: defaultdict[str, list[tuple[Split, str]]] = defaultdict(list)
    for one, members in examples.items():
        if split in (None, one):
            for example in members:
                for name in dict.fromkeys(benchmark.names(example)):
                    by_name[name].append((one, example.id))
    texts: dict[tuple[Split, str], str] = {}
    unknown, twice, several = [], [], []
    for name, text in predictions.given:
        keys = by_name.get(name, [])
        if not keys:
            unknown.append(name)
        elif len({one for one, _ in keys}) > 1:
            several.append(name)
        elif any(key in texts for key in keys):
            twice.append(name)
        else:
            texts.update(dict.fromkeys(keys, text))
    where = f"{predictions.path}: benchmark {benchmark.name!r}"
    if unknown or twice:
        faults = [_listed("unknown", unknown), _listed("duplicate", twice)]
        known = next(iter(by_name), "")
        raise DataError(f"{where}: {', '.join(filter(None, faults))}; its ids are like {known!r}")
    if several:
        raise DataError(f"{where}: {_listed('ambiguous', several)}: several splits have them; choose one with --split")
    answered = {one for one, _ in texts}
    return MatchedAnswers([(s, e, texts.get((s, e.id))) for s, es in examples.items() if s in answered for e in es])


def _listed(what: str, ids: Sequence[str]) -> str:
    if not ids:
        return ""
    first = ", ".join(repr(id_[:60]) for id_ in ids[:3])
    return f"{len(ids)} {what} id{'s' if len(ids) > 1 else ''} ({first}{', ...' if len(ids) > 3 else ''})"


def refuse_missing(matched: MatchedAnswers, predictions: AnswerFile, why: str) -> None:
    """Raise `DataError`, with their count and the first ones, if examples have no answer."""
    if missing := matched.missing:
        raise DataError(
            f"{predictions.path}: {_listed('unanswered', missing)} of {len(matched.answers)} in the split "
            f"{' and '.join(matched.splits)}; {why}"
        )


def load_splits(benchmark: Benchmark) -> dict[Split, list[Example]]:
    """The examples of all splits. Unlike `harness.data.dataset.load`, it doesn't need the images."""
    return {split: list(benchmark.load(split)) for split in benchmark.splits}


# ------------------------------------------------------------------------------------ texts as options


def chosen_and_text(answers: Iterable[tuple[Split, Example, str | None]]) -> list[tuple[Example, int, str]]:
    """Examples with the chosen option and the written text; if there is no answer, -1 and an empty text."""
    return [(e, read_choice(text, e.options) if text else NO_ANSWER, text or "") for _, e, text in answers]
