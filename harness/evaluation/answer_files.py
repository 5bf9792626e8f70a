"""Answers produced elsewhere: read from a file, matched with a benchmark's examples, parsed as options.

A file is CSV or TSV with the columns id and answer; JSON Lines of objects with both; Parquet or Excel with both; or
JSON: an array of such objects, or an object {id: answer}, either directly or under `predictions`. In an object, a
nested table is a part of the ids (`{"random": {"1": "yes"}}` answers `random/1`), `{"constant": answer}` gives
the same answer to everything, a table with an `answer` is the answer, and of a list the last element is used.

Authors' own files are taken as they are: VLMEvalKit's `prediction`, HallusionBench's `model_prediction`, AMBER's
`response`, LLaVA's `question_id` and `text`, sample files of lmms-eval (`doc` and `filtered_resps`), NLVR's CSV without
a header, and POPE's lines of `question` and `answer`, which are paired by their order. `Benchmark.answered_by` gives
the names of rows without an id. This module imports neither torch nor ray.
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

from harness.api import Benchmark, Example, Split, csv_rows, read_text
from harness.data.leakage import normal
from harness.errors import ConfigError, DataError, first_line, near
from harness.evaluation.choices import read_choice
from harness.evaluation.excel import excel_rows
from harness.stats.metrics import NO_ANSWER

LONGEST = 1 << 20
"""The maximum number of characters of an answer."""
IDS = ("id", "question_id", "index")
"""Columns that name the example. `index` is VLMEvalKit's, beside `prediction`."""
ANSWERS = ("prediction", "model_prediction", "filtered_resps", "resps", "response", "answer", "text")
"""Columns that may hold the answer; the first of them that a row has does. Where there is a `prediction`, `answer` is
the gold; where there is an `answer`, `text` is the question."""
QUESTIONS = ("question", "prompt", "query")
"""Columns that repeat the question: it must be the example's."""
ORDERED = {"answer", "response", "prediction", "label", "image", *QUESTIONS}
"""The only columns of a file without ids whose rows may be paired with the examples by their order."""


@dataclass(frozen=True)
class AnswerFile:
    """The answers of a file in its order, by the names in the file; or one answer to everything."""

    path: Path
    given: Sequence[tuple[str, str]] = ()
    """Name and text; an empty name where the row has none."""
    constant: str | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    """The rows that `given` was read from, if they have more columns than that."""


# --------------------------------------------------------------------------------------------- reading


def read(path: Path) -> AnswerFile:
    """The answers in a file. Raises `DataError` that names the file, and the line or item with the error."""
    kind = path.suffix.lower()
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet, ".xlsx": _excel, ".json": _json}
    if kind not in readers:
        raise DataError(f"{path}: unknown file type; expected a name that ends in {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected predictions with the columns id and answer")
    try:
        found = readers[kind](path)
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path}: nested too deeply to be read") from None
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read: {first_line(error)}") from None
    if not found.given and found.constant is None:
        raise DataError(f"{path}: contains no answers")
    return found


def _csv(path: Path) -> AnswerFile:
    rows = csv_rows(read_text(path), "\t" if path.suffix.lower() == ".tsv" else "")
    return _table(path, ((f"{path}: line {number}", row) for number, row in rows if row))


def _excel(path: Path) -> AnswerFile:
    return _table(path, ((f"{path}: row {number}", row) for number, row in excel_rows(path)))


def _table(path: Path, rows: Iterable[tuple[str, Sequence[str]]]) -> AnswerFile:
    """A table of texts. Without a header (NLVR's predictions) the first column is the name, the second the answer."""
    given: list[tuple[str, str]] = []
    kept: list[Mapping[str, Any]] = []
    names: Sequence[str] = []
    for where, row in rows:
        if not names:
            names = row
            if twice := [name for name, count in Counter(names).items() if count > 1 and {*IDS, *ANSWERS} & set(names)]:
                raise DataError(f"{where}: two columns have the name {twice[0]!r}; expected each once")
            if len(names) in (2, 3) and not {*IDS, *ANSWERS} & set(names):
                names = ("id", "answer", "more")[: len(names)]
            else:
                _check_columns(path, names)
                continue
        if len(row) != len(names):
            raise DataError(f"{where}: expected {len(names)} fields, as in the first line")
        kept.append(dict(zip(names, row, strict=True)))
        given.append(_pair(kept[-1], where))
    return AnswerFile(path, given, rows=kept)


def _jsonl(path: Path, text: str | None = None) -> AnswerFile:
    kept = []
    for number, line in enumerate((read_text(path) if text is None else text).split("\n"), 1):
        if line.strip():
            where = f"{path}: line {number}"
            try:
                kept.append((json.loads(line, object_pairs_hook=_each_once), where))
            except ValueError as error:
                raise DataError(f"{where}: not JSON ({error})") from None
    return _objects(path, kept)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(
            f"the key {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} occurs twice in one object"
        )
    return found


def _objects(path: Path, rows: Iterable[tuple[Any, str]]) -> AnswerFile:
    flat = [(_with_document(row), where) for row, where in rows]
    return AnswerFile(path, [_pair(row, where) for row, where in flat], rows=[row for row, _ in flat])


def _with_document(row: Any) -> Any:
    """A row of lmms-eval with the columns of its `doc`: the benchmark's own row, whose `answer` is the gold."""
    if isinstance(row, dict) and isinstance(row.get("doc"), dict) and {"resps", "filtered_resps"} & set(row):
        return {**{key: value for key, value in row["doc"].items() if key not in ANSWERS}, **row}
    return row


def _parquet(path: Path) -> AnswerFile:
    with pq.ParquetFile(path) as file:
        kept = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
        kept = [name for name in kept if not pa.types.is_binary(file.schema_arrow.field(name).type)]
        _check_columns(path, kept)
        rows = file.read(columns=kept).to_pylist()
    return _objects(path, [(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)])


def _json(path: Path) -> AnswerFile:
    text = read_text(path)
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and "\n" in text:  # POPE's answers are lines in a .json file
            return _jsonl(path, text)
        raise
    if isinstance(found, dict):
        inner = next((found[k] for k in ("predictions", "logs") if isinstance(found.get(k), dict | list)), found)
        found = inner
    if isinstance(found, list):
        return _objects(path, [(row, f"{path}: item {number}") for number, row in enumerate(found, 1)])
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
        column = _answer_column(value) if isinstance(value, dict) else None
        if isinstance(value, dict) and column is None:
            yield from _flat(value, path, f"{prefix}{key}/")
        else:
            answer = value[column] if column else value
            yield prefix + key, _text(answer, f"{path}: answer to {prefix + key!r}")


def _answer_column(row: Mapping[str, Any]) -> str | None:
    return next((key for key in ANSWERS if key in row and not (key == "text" and "label" in row)), None)


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """An answer, and an id; unless the rows have an order or other columns that say what they answer."""
    missing = [] if _answer_column(dict.fromkeys(names)) else ["answer"]
    missing += ["id"] if len(names) < 2 and not set(names) & {*IDS, *ORDERED} else []
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; expected id and answer, found {', '.join(names) or 'none'}")


def _pair(row: Any, where: str) -> tuple[str, str]:
    """The name that a row has, empty if none, and its answer."""
    column = _answer_column(row) if isinstance(row, dict) else None
    if column is None:
        raise DataError(f"{where}: expected an object with id and answer")
    answer = row[column]
    while column in ("resps", "filtered_resps") and isinstance(answer, list) and answer:
        answer = answer[0]
    text = _text(answer, where)
    key = next((k for k in IDS if k in row and (k != "index" or column == "prediction")), None)
    if key is None:
        return "", text
    id_ = row[key]
    if isinstance(id_, float) and id_.is_integer():  # a column of numbers in which one is missing
        id_ = int(id_)
    if not isinstance(id_, str | int) or isinstance(id_, bool) or id_ == "":
        raise DataError(f"{where}: {key} is {id_!r}, expected a string or an integer")
    return str(id_), text


def _text(answer: Any, where: str) -> str:
    """An answer as text: numbers and booleans as Python writes them, null and NaN as an empty string."""
    if isinstance(answer, list) and answer:
        answer = answer[-1]
    if answer is None or answer != answer:
        return ""
    if not isinstance(answer, str | int | float):
        raise DataError(f"{where}: the answer is a {type(answer).__name__}, expected a string")
    text = str(answer)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(f"{where}: the answer contains half a surrogate pair, expected valid Unicode")
    if "\0" in text:
        raise DataError(f"{where}: the answer contains a NUL character, expected text")
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
    where = f"{predictions.path}: benchmark {benchmark.name!r}"
    passed_over = frozenset(benchmark.not_asked())
    by_id = {(one, e.id): e for one, members in examples.items() for e in members}
    for names, text, row in _named(benchmark, examples, predictions, split, where):
        found = [name for name in names if name in by_name]
        keys = list(dict.fromkeys(key for name in found for key in by_name[name]))
        if not keys and not passed_over.isdisjoint(names):
            continue
        if not keys:
            unknown.append(names[0])
        elif len({one for one, _ in keys}) > 1:
            several.append(names[0])
        elif any(key in texts for key in keys):
            twice.append(names[0])
        else:
            _check_question(row, by_id[keys[0]], where)
            texts.update(dict.fromkeys(keys, text))
    if unknown or twice:
        faults = [_listed("unknown", unknown), _listed("duplicate", twice)]
        known = next(iter(by_name), "")
        raise DataError(f"{where}: {', '.join(filter(None, faults))}; its ids are like {known!r}")
    if several:
        raise DataError(f"{where}: {_listed('ambiguous', several)}: several splits have them; choose one with --split")
    answered = {one for one, _ in texts}
    return MatchedAnswers([(s, e, texts.get((s, e.id))) for s, es in examples.items() if s in answered for e in es])


def _named(
    benchmark: Benchmark,
    examples: Mapping[Split, Sequence[Example]],
    predictions: AnswerFile,
    split: Split | None,
    where: str,
) -> Iterator[tuple[Sequence[str], str, Mapping[str, Any]]]:
    """Each answer with the names that it may have, and its row. Rows without any are named by their order."""
    rows = predictions.rows or [{}] * len(predictions.given)
    named = [
        (tuple(benchmark.answered_by(row)) or ((name,) if name else ()), text, row)
        for (name, text), row in zip(predictions.given, rows, strict=True)
    ]
    nameless = [row for names, _, row in named if not names]
    if not nameless:
        yield from named
        return
    if len(nameless) < len(named):
        raise DataError(f"{where}: {len(nameless)} of {len(named)} answers have no id; expected one for each")
    if others := sorted({str(key) for row in nameless for key in row} - ORDERED):
        raise DataError(f"{where}: no column 'id'; expected id and answer, found {', '.join(others[:8])}")
    fits = [s for s, members in examples.items() if split in (None, s) and len(members) == len(named)]
    if len(fits) != 1:
        sizes = ", ".join(f"{s} {len(members)}" for s, members in examples.items() if split in (None, s))
        raise DataError(
            f"{where}: {len(named)} answers without ids are paired with the examples by their order, but there are "
            f"{sizes}; choose what they answer with --split, or with a setting like --set benchmark_settings.KEY=VALUE"
        )
    for example, (_, text, row) in zip(examples[fits[0]], named, strict=True):
        yield (example.id,), text, row


def _check_question(row: Mapping[str, Any], example: Example, where: str) -> None:
    """Raise `DataError` if the row repeats another question than the example's."""
    asked = next((row[key] for key in QUESTIONS if isinstance(row.get(key), str) and row[key].strip()), None)
    ours = normal(example.claim or example.question)
    if asked is not None and ours and (theirs := normal(asked)) and ours not in theirs and theirs not in ours:
        raise DataError(
            f"{where}: the answer to {example.id!r} is to the question {asked[:80]!r}, but the example's is "
            f"{(example.claim or example.question)[:80]!r}: expected answers to these questions"
        )


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
