"""The template of `hkdbench new-benchmark`: a benchmark that reads somebody's rows as proposed, and its test."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from harness import registry
from harness.api import Benchmark, ConfigError, DataError, Example, Split
from harness.authoring.mapping import SPLITS, Proposal, RowFiles, find_files, propose
from harness.paths import absolute

HEAD = '''\
"""{title}: say here what is asked, and who made it.

Layout of the data folder: {layout}.
{proposed} Check what `load` makes of
each column, and replace licence and citation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.shared.annotations import {helpers}
{more_imports}from harness.api import Benchmark, DataError, Example, Split
{constants}

@dataclass(frozen=True)
class {cls}(Benchmark):
    """{title}, in one sentence; `group` is the image."""

    name: ClassVar[str] = "{name}"
    task: ClassVar[Literal["hallucination", "factuality"]] = "hallucination"
    splits: ClassVar[tuple[Split, ...]] = {splits}
    revision: ClassVar[str] = "1"
    licence: ClassVar[str] = "not stated"
    citation: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://example.org"
    obtain: ClassVar[str] = "say here where the files are, and how the data folder is arranged"
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Iterator[Example]:
        """The examples of a split in the order of the file."""
        folder = data_folder(self, split)
        seen: dict[str, str] = {{}}
        {loop}
{body}
            yield Example(
                id=new_id(seen, {id}, where),
                group={group},
                image={image},
                question={question},
                claim={claim},
                context={context},
                options={options},
                gold=gold,
                category={category},
                source=self.name,
            )
{tail}'''

TEST = '''\
"""{title} is sound, and its first example is what its file says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from harness.authoring.benchmark_checks import assert_sound

DATA = Path({data})
spec = importlib.util.spec_from_file_location("{name}", Path(__file__).with_name("{name}.py"))
assert spec is not None
assert spec.loader is not None
{name} = sys.modules["{name}"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module({name})


def test_it_is_sound() -> None:
    assert_sound({name}.{cls}(DATA))


def test_the_first_example() -> None:
    """Compare it with the file, and correct the loader where it differs."""
    example = next(iter({name}.{cls}(DATA).load({split})))
    assert (example.id, example.group) == {first_names}
    assert (example.question, example.claim) == {first_texts}
    assert example.options[example.known_gold] == {first_answer}
'''


def write(name: str, path: Path, folder: Path, taken: Collection[str]) -> tuple[list[Path], RowFiles, Proposal]:
    """Write the files of a new benchmark that reads `path` to `folder`. Nothing is overwritten.

    Raises `ConfigError` for a name that can't be, `DataError` for rows from which no example can be made.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"benchmark name {name!r}: expected lower-case letters, digits and _, a letter first, like my_benchmark"
        )
    if name in taken:
        raise ConfigError(f"benchmark {name!r} exists already: choose another (`hkdbench list benchmarks` shows all)")
    files = [folder / f"{name}.py", folder / f"test_{name}.py"]
    for file in files:
        if file.exists():
            raise ConfigError(f"{file} exists already: choose another name or another folder with --out")
    source = _with_images(find_files(absolute(path)))
    found = propose(source)
    loader = _loader(name, source, found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files[0].write_text(loader, encoding="utf-8")
        files[1].write_text(_test(name, files[0], source), encoding="utf-8")
    except DataError:
        files[0].unlink()
        raise
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error.strerror or error}; choose another with --out") from None
    return files, source, found


def _with_images(source: RowFiles) -> RowFiles:
    """The source with the folder in which the first image is."""
    rows = [row for some in source.rows.values() for row in some]
    name = rows[0].get(propose(source).columns["image"])
    beside = [source.folder / file.parent for file in source.files.values()]
    places = [*beside, *(p for p in sorted(source.folder.iterdir()) if p.is_dir())]
    if isinstance(name, str):
        for place in dict.fromkeys(places):
            if (place / name).is_file():
                inner = place.relative_to(source.folder).as_posix()
                return replace(source, images="" if inner == "." else inner)
    return source


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _splits(source: RowFiles, found: Proposal) -> list[Split]:
    if "" not in source.files:
        named = set(source.files)
    elif "split" in found.columns:
        named = {SPLITS[str(row[found.columns["split"]]).lower()] for row in source.rows[""]}
    else:
        named = {"train", "validation", "test"}
    order: tuple[Split, ...] = ("train", "validation", "test")
    return [split for split in order if split in named]


def _loader(name: str, source: RowFiles, found: Proposal) -> str:
    """The text of the benchmark's file."""
    columns, parquet = found.columns, next(iter(source.files.values())).suffix == ".parquet"
    splits = _splits(source, found)
    body: list[str] = []
    constants, helpers, tail = [], {"data_folder", "items", "new_id"}, ""
    if found.labels:
        constants.append(f"LABELS = {_tuple(found.labels)}")
        shown = {"1": "True", "0": "False"} if set(found.labels) == {"0", "1"} else {}
        constants.append(f"OPTIONS = {_tuple([shown.get(label, label.capitalize()) for label in found.labels])}")
        constants.append('"""What the labels mean, in their order: the options that a model chooses from."""')
    single = "" in source.files
    if not single and not parquet:
        constants.append("FILES = " + json.dumps({s: f.as_posix() for s, f in source.files.items()}))
    if "split" in columns:
        said = sorted({str(row[columns["split"]]).lower() for row in source.rows[""]})
        constants.append("SPLITS = " + json.dumps({s: SPLITS[s] for s in said}))
        helpers.add("choice")
        body += [f"if SPLITS[choice(row, {_quoted(columns['split'])}, where, tuple(SPLITS))] != split:", "    continue"]
    if found.image_in_row:
        named = {split: file.stem.partition("-")[0] for split, file in source.files.items() if split}
        if any(split != stem for split, stem in named.items()):
            constants.append("FILES = " + json.dumps(named))
        files = "FILES[split]" if any(split != stem for split, stem in named.items()) else "split"
        loop = f'for number, (where, row) in enumerate(rows_of(Source(str(folder), "", "", {files}))):'
        image, group = f"image_of(row, {_quoted(columns['image'])}, where)", 'f"{split}-{number}"'
    else:
        file = f'"{source.files[""].as_posix()}"' if single else "FILES[split]"
        loop = f"for number, (where, row) in enumerate(items(folder / {file})):"
        helpers |= {"image_in", "text"}
        body.append(f"name = text(row, {_quoted(columns['image'])}, where)")
        inside = f'folder / "{source.images}"' if source.images else "folder"
        image, group = f"image_in({inside}, name, where)", "name"
    if single and "split" not in columns:
        helpers.add("draw")
        body += [f"if split_of({group}) != split:", "    continue"]
        tail = (
            "\n\ndef split_of(group: str) -> Split:\n"
            '    """Images, not rows, are split: no image is in two splits."""\n'
            f'    at = draw("{name}", group)\n'
            '    return "test" if at < 0.15 else "validation" if at < 0.3 else "train"\n'
        )
    body += _gold_lines(found)
    options = "options" if found.option_columns or "options" in columns else "OPTIONS"

    def field(part: str, otherwise: str) -> str:
        if part not in columns:
            return otherwise
        helpers.add("text")
        return f"text(row, {_quoted(columns[part])}, where, blank=True)"

    id_ = f"str(row.get({_quoted(columns['id'])}))" if "id" in columns else "str(number)"
    question = field(
        "question", _quoted("Is the claim true of the image?" if "claim" in columns else "What is true of the image?")
    )
    if found.image_in_row:
        helpers.discard("items")
    return HEAD.format(
        title=name.replace("_", " ").capitalize(),
        name=name,
        cls=_class(name),
        layout=", ".join(f.as_posix() for f in source.files.values())[:80],
        proposed="Written by `hkdbench new-benchmark`, which proposes what the columns mean.",
        helpers=", ".join(sorted(helpers)),
        more_imports="from benchmarks.shared.hf_datasets import Source, image_of, rows_of\n"
        if found.image_in_row
        else "",
        constants="\n".join(["", *constants, ""] if constants else [""]),
        splits=_tuple(splits),
        loop=loop
        if "number" in f"{id_}{group}"
        else loop.replace("number, (where, row) in enumerate(", "where, row in ")[:-2] + ":",
        body="\n".join(f"            {line}" for line in body),
        id=id_,
        group=group,
        image=image,
        question=question,
        claim=field("claim", '""'),
        context=field("context", '""'),
        options=options,
        category=field("category", '"all"'),
        tail=tail,
    )


def _gold_lines(found: Proposal) -> list[str]:
    """The lines that set `gold`, and `options` where each row has its own."""
    column = found.columns["gold"]
    said = f"str(row.get({_quoted(column)})).strip()"
    if found.gold_form == "label":
        return [
            f"label = {said}.lower()",
            "if label not in LABELS:",
            f'    raise DataError(f"{{where}}: {column} is {{label!r}}, expected one of {{LABELS}}")',
            "gold = LABELS.index(label)",
        ]
    listed = (
        f"tuple(str(row.get(key)) for key in {_tuple(found.option_columns)})"
        if found.option_columns
        else f"tuple(str(option) for option in row.get({_quoted(found.columns['options'])}) or ())"
    )
    allowed = {
        "text": "list(options)",
        "letter": 'list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)])',
        "index": "[str(k) for k in range(len(options))]",
        "index from 1": "[str(k + 1) for k in range(len(options))]",
    }[found.gold_form]
    return [
        f"options = {listed}",
        f"answers = {allowed}",
        f"answer = {said}" + (".upper()" if found.gold_form == "letter" else ""),
        "if answer not in answers:",
        f'    raise DataError(f"{{where}}: {column} is {{answer!r}}, expected one of {{answers}}")',
        "gold = answers.index(answer)",
    ]


def _test(name: str, file: Path, source: RowFiles) -> str:
    """The text of the test; the first example is read by the new loader itself."""
    registry.load_plugin(str(file))
    made = registry.make_benchmark(name, {}, source.folder)
    first, split = _first(made)
    return TEST.format(
        title=name.replace("_", " ").capitalize(),
        name=name,
        cls=_class(name),
        data=_quoted(str(source.folder)),
        split=_quoted(split),
        first_names=_tuple([first.id, first.group]),
        first_texts=_tuple([first.question, first.claim]),
        first_answer=_quoted(first.options[first.known_gold]),
    )


def _first(made: Benchmark) -> tuple[Example, Split]:
    for split in made.splits:
        for example in made.load(split):
            return example, split
    raise DataError(f"{made.data_dir}: no row gives an example; expected at least one")


def _quoted(text: str) -> str:
    """The text as it stands in Python code."""
    return json.dumps(text, ensure_ascii=False)


def _tuple(texts: Sequence[str]) -> str:
    return f"({', '.join(map(_quoted, texts))}{',' if len(texts) == 1 else ''})"


def mapping_lines(found: Proposal) -> Sequence[str]:
    """The proposal in words, one line for each part of an example."""
    lines = [f"{part:9} column {_quoted(column)}" for part, column in found.columns.items()]
    if found.option_columns:
        lines.append(f"options   columns {', '.join(found.option_columns)}")
    elif found.labels:
        lines.append(f"options   the labels: {', '.join(found.labels)}")
    lines.append(f"answer    by {found.gold_form}")
    if found.unused:
        lines.append(f"not used: {', '.join(found.unused)}")
    return lines
