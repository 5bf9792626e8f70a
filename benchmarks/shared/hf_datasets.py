"""Rows of a Hugging Face `datasets` repository, or of a local folder in the same layout; images aren't read.

A benchmark that is published this way gets its rows from `rows_of`: from `--data-dir` if it has Parquet
files, or from the repository in the settings `repo` and `repo_revision`. Both use
`datasets.load_dataset`, which stores an Arrow copy in the user's cache (`HF_DATASETS_CACHE`). An image
column gives `ColumnImage`s: each reads its cell when it is called. A repository of plain files is downloaded as a
folder (`downloaded`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.shared.annotations import Row, files_in, image_in
from harness.api import Benchmark, ConfigError, DataError, image_bytes


@dataclass(frozen=True, slots=True)
class Source:
    """A split of a repository: a folder or a hub id, the commit (empty for a folder), configuration, split."""

    repo: str
    revision: str
    config: str
    split: str

    def __str__(self) -> str:
        at = f"@{self.revision[:8]}" if self.revision else ""
        return f"{self.repo}{at}, {f'{self.config} ' if self.config else ''}split {self.split}"


@dataclass(frozen=True, slots=True)
class ColumnImage:
    """The image in one cell of a source; picklable, and small. Calling it reads and decodes the cell."""

    source: Source
    row: int
    column: str

    def __call__(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content()))

    def content(self) -> bytes:
        """The encoded image: the cell's bytes, or those of the file in the source's folder that it names."""
        if self.row in _open(self.source).elsewhere(self.column):
            return image_bytes(self._file())
        found: bytes = _open(self.source).rows.data.column(self.column)[self.row]["bytes"].as_py()
        return found

    def stored(self) -> tuple[Sequence[Path], str]:
        """The files that hold it, and its place in them."""
        if self.row in _open(self.source).elsewhere(self.column):
            return (self._file(),), ""
        return _open(self.source).files, f"column {self.column}, row {self.row}"

    def _file(self) -> Path:
        path = _open(self.source).elsewhere(self.column)[self.row]
        if not path or not Path(self.source.repo).is_dir():
            raise ValueError(f"{self.source}, row {self.row}: column {self.column!r} contains no image")
        return image_in(Path(self.source.repo), path, f"{self.source}, row {self.row}")


def source_of(benchmark: Benchmark, repo: str, revision: str, split: str, config: str = "") -> Source | None:
    """The source of a benchmark's split for `datasets`; None: `data_dir` has plain files, no Parquet.

    Raises `ConfigError` if neither folder nor repository is given, or a repository without its commit.
    """
    if benchmark.data_dir is not None:
        if repo:
            raise ConfigError(f"{benchmark.name}: give --data-dir or benchmark_settings.repo, not both")
        inside = bool(files_in(benchmark.data_dir, ".parquet"))
        return Source(str(benchmark.data_dir), "", config, split) if inside else None
    if not repo:
        raise ConfigError(
            f"{benchmark.name} reads published files: give their folder with --data-dir, or a Hugging Face "
            "repository with --set benchmark_settings.repo=OWNER/NAME and .repo_revision=COMMIT"
        )
    _pinned(benchmark, repo, revision)
    return Source(repo, revision, config, split)


def downloaded(benchmark: Benchmark, repo: str, revision: str, patterns: Sequence[str]) -> Path:
    """The folder with the files of a repository that isn't a table, downloaded once into the user's cache.

    `patterns` select the files, like `data/*`. Raises `ConfigError` for a repository without its
    commit, `DataError` in one line if the download fails.
    """
    import datasets
    from huggingface_hub import snapshot_download

    _pinned(benchmark, repo, revision)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hkdbench" / f"{repo.replace('/', '--')}-{revision}"
    try:
        found = snapshot_download(
            repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns), local_dir=folder
        )
    except Exception as error:  # of several libraries
        raise DataError(f"{repo}@{revision[:8]}: can't be loaded ({_reason(error)})") from None
    return Path(found)


def _pinned(benchmark: Benchmark, repo: str, revision: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ConfigError(f"{benchmark.name}: repo = {repo!r}, expected OWNER/NAME")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ConfigError(
            f"{benchmark.name}: repo_revision = {revision!r}, expected the 40 hex digits of a commit of {repo}: "
            "a branch would not name the same data tomorrow"
        )


def _reason(error: Exception) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"{type(error).__name__}: {said}"


def rows_of(source: Source) -> Iterator[tuple[str, Row]]:
    """The rows of a source, each with its location for errors; images as `ColumnImage`."""
    dataset = _open(source).rows
    images = [name for name, feature in dataset.features.items() if _is_image(feature)]
    plain = dataset.select_columns([name for name in dataset.column_names if name not in images])
    rows: list[Row] = plain.to_list() if plain.column_names else [{} for _ in range(len(dataset))]
    for number, row in enumerate(rows):
        for name in images:
            row[name] = ColumnImage(source, number, name)
        yield f"{source}: item {number + 1}", row


def image_of(row: Row, key: str, where: str) -> ColumnImage:
    """The image under `key` of a row of `rows_of`. Raises `DataError`."""
    value = row.get(key)
    if not isinstance(value, ColumnImage):
        raise DataError(f"{where}: no image column {key!r} (there are {', '.join(sorted(map(str, row)))})")
    return value


@dataclass(frozen=True)
class _OpenSource:
    """The opened table of a source: a `datasets.Dataset`."""

    source: Source
    rows: Any

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files that hold its rows: a folder's Parquet files, or the cached copy of a repository's."""
        if not self.source.revision:
            return tuple(map(Path, _files(self.source)))
        return tuple(Path(file["filename"]) for file in self.rows.cache_files)

    def elsewhere(self, column: str) -> Mapping[int, str | None]:
        """The rows whose cell has no bytes, with the path that it names instead, if it does. No image is read."""
        known: dict[str, Mapping[int, str | None]] = self._elsewhere
        if column not in known:
            import pyarrow.compute as pc

            cells = self.rows.data.column(column)
            names, empty = pc.struct_field(cells, "path"), pc.is_null(pc.struct_field(cells, "bytes"))
            known[column] = {row: names[row].as_py() for row in pc.indices_nonzero(empty).to_pylist()}
        return known[column]

    @cached_property
    def _elsewhere(self) -> dict[str, Mapping[int, str | None]]:
        return {}


@lru_cache(maxsize=8)
def _open(source: Source) -> _OpenSource:
    """The memory-mapped table, image cells not decoded. Raises `DataError` in one line for any error of `datasets`."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if source.revision:
            found = datasets.load_dataset(
                source.repo, source.config or None, split=source.split, revision=source.revision
            )
        else:
            found = datasets.load_dataset("parquet", data_files=_files(source), split="train")
        for name, feature in found.features.items():
            if isinstance(feature, datasets.Image):
                found = found.cast_column(name, datasets.Image(decode=False))
    except DataError:
        raise
    except Exception as error:  # a dozen types, of four libraries
        raise DataError(f"{source}: can't be loaded ({_reason(error)})") from None
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return _OpenSource(source, found)


def _files(source: Source) -> list[str]:
    """The Parquet files of a folder's split, in order, as repositories name them: `[CONFIG/]SPLIT-00000-of-N.parquet`.

    The folder's own README, which could point to other files, is ignored.
    """
    folder = Path(source.repo)
    inside = [p for p in files_in(folder, ".parquet") if re.match(rf"{re.escape(source.split)}(-|\.)", p.name)]
    if source.config:
        inside = [p for p in inside if source.config in p.relative_to(folder).parts[:-1]]
    if not inside:
        raise DataError(f"{source}: no such file: expected data/{source.split}-00000-of-00001.parquet or the like")
    return [str(p) for p in inside]


def _is_image(feature: Any) -> bool:
    """An image column, or bytes with their path, as in a file without the hub's metadata."""
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
