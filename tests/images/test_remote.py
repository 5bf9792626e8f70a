"""Published files in a bucket: the same data as in a folder; images come when they are read, and are kept in bounds."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from harness.config import RunConfig, data_folder, parse
from harness.data import dataset, opening
from harness.errors import ConfigError, DataError
from harness.images import reading, remote
from harness.images.remote import ImageCache
from harness.paths import cache_folder
from harness.registry import load_plugin, make_benchmark
from helpers.pictures import publish

PLUGIN = str(Path(__file__).parents[1] / "helpers" / "pictures.py")


@pytest.fixture(autouse=True)
def own_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A node with an empty cache, which knows of no address yet."""
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(remote, "PAUSES", ())
    forget()
    yield
    forget()


def forget() -> None:
    """As a new process of the node would begin."""
    for known in (remote.folder_of, remote._mirror, remote.objects_of):
        known.cache_clear()
    dataset._dataset.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "published")


@pytest.fixture(params=["s3", "memory"])
def address(request: pytest.FixtureRequest, folder: Path) -> str:
    """The folder's files in a bucket, and what isn't a file there."""
    url = f"{request.getfixturevalue('s3') if request.param == 's3' else 'memory://published'}/{uuid4().hex}"
    fs, root = remote.filesystem(url)
    fs.put(str(folder), root, recursive=True)
    return url


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are fetched while the test runs."""
    names: list[str] = []
    real = remote._Mirror.fetched

    def counted(self: remote._Mirror, name: str) -> bytes:
        names.append(name)
        return real(self, name)

    monkeypatch.setattr(remote._Mirror, "fetched", counted)
    return names


def examples(data: str | Path) -> list[Any]:
    load_plugin(PLUGIN)
    return list(make_benchmark("pictures", {}, data).load("test"))


def test_data_in_a_bucket_are_those_of_the_folder(address: str, folder: Path, fetched: list[str]) -> None:
    load_plugin(PLUGIN)
    here, there = (dataset.load(make_benchmark("pictures", {}, where)) for where in (folder, address))
    assert there.fingerprint == here.fingerprint
    assert there.fingerprint_by_names == here.fingerprint_by_names
    once = sorted(fetched)
    assert 3 <= len(once) == len(set(once))  # three pictures in 36 files
    pairs = list(zip(here.splits["test"], there.splits["test"], strict=True))
    for one, other in pairs:
        assert other.load_image().tobytes() == one.load_image().tobytes()
    assert opening.check([("test", there.splits["test"])], 10**9) == []
    assert sorted(fetched) == once  # from the node's disk from now on
    forget()
    assert dataset.load(make_benchmark("pictures", {}, address)).fingerprint == here.fingerprint
    assert sorted(fetched) == once  # also in the next process


def test_an_image_that_changes_is_fetched_again(
    address: str, folder: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [reading.encoded(e.image) for e in examples(address)]
    fs, root = remote.filesystem(address)
    (one, other, *_) = (e.image for e in examples(folder))
    fs.pipe_file(f"{root}/{one.relative_to(folder).as_posix()}", other.read_bytes())
    monkeypatch.setattr(remote, "LISTED_SECONDS", 0.0)
    forget()
    fetched.clear()
    after = [reading.encoded(e.image) for e in examples(address)]
    assert after == [before[1], *before[1:]]
    # S3 states what a file holds: the same picture under another name is known.
    assert fetched == ([] if address.startswith("s3") else [one.name])


def test_a_file_that_is_gone_is_missing_as_in_a_folder(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = examples(address)[0].image
    fs, root = remote.filesystem(address)
    fs.rm_file(f"{root}/{examples(folder)[0].image.relative_to(folder).as_posix()}")
    with pytest.raises(FileNotFoundError):  # between two lists
        reading.encoded(image)
    monkeypatch.setattr(remote, "LISTED_SECONDS", 0.0)
    forget()
    with pytest.raises(DataError, match=r"the images of 1 of \d+ examples are missing"):
        dataset.load(make_benchmark("pictures", {}, address), ["test"])


def test_a_bucket_that_fails_damages_no_image(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--skip-missing` leaves out what is damaged, not what can't be reached now."""
    (example, *_) = examples(address)

    def lost(self: remote._Mirror, name: str) -> bytes:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(remote._Mirror, "fetched", lost)
    with pytest.raises(OSError, match=r"can't be read: reset by peer; check its address") as raised:
        reading.encoded(example.image)
    assert raised.value.errno == errno.EIO
    assert opening.damaged([example]) == {}


@pytest.mark.parametrize("address", ["memory"], indirect=True)
def test_an_address_without_files_or_filesystem_is_told(address: str) -> None:
    load_plugin(PLUGIN)
    with pytest.raises(DataError, match=r"data folder 'memory://nowhere' does not exist or is empty"):
        make_benchmark("pictures", {}, "memory://nowhere/")
    with pytest.raises(ConfigError, match=r"data_dir = 'abc://x': can't be opened: .* expected a folder, s3://bucket"):
        make_benchmark("pictures", {}, "abc://x")


@pytest.mark.parametrize("name", ["../out.json", "a//b.json", "a\\b.json"])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    class Bucket:
        def find(self, root: str, detail: bool) -> dict[str, dict[str, Any]]:
            return {f"{root}/{name}": {"size": 1}}

    with pytest.raises(DataError, match="is no name of a file in a folder"):
        remote._listed(Bucket(), "bucket/data", "s3://bucket/data")


def test_a_version_is_what_follows_from_the_content() -> None:
    assert remote.version_of({"ETag": '"d41d"', "size": 1}) == "d41d"  # s3fs
    assert remote.version_of({"blob_id": "9ab3", "lfs": None, "size": 1}) == "9ab3"  # huggingface_hub
    assert remote.version_of({"size": 1, "mtime": 5.0}) == ""


def test_the_cache_is_bounded_and_keeps_what_is_used(tmp_path: Path) -> None:
    """Ten of 100 bytes fit into 1,000; the eleventh brings it down to nine tenths, without the oldest unused ones."""
    objects = ImageCache(tmp_path, 1000)
    keys = [f"{number:02d}" * 4 for number in range(11)]
    for age, key in enumerate(keys[:10]):
        objects.put(key, b"x" * 100)
        os.utime(tmp_path / key[:2] / key, (1000 + age, 1000 + age))
    assert objects.get(keys[0], 100) == b"x" * 100  # used now
    objects.put(keys[10], b"x" * 100)
    assert [key for key in keys if objects.get(key, 100)] == [keys[0], *keys[3:]]
    assert objects.get(keys[0], 99) is None  # cut off by a crash


def test_a_wrong_limit_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HKDBENCH_DATA_GIB", "much")
    with pytest.raises(ConfigError, match=r"HKDBENCH_DATA_GIB = 'much': expected a number of GiB above 0"):
        remote.objects_of(tmp_path)


def test_addresses_and_folders_in_settings(tmp_path: Path) -> None:
    """An address stays as it is, also on a worker that gets the settings as JSON; file:// is a folder."""
    table = {"method": "finetune", "benchmark": "toy", "data_dir": "s3://bucket/data/", "train_on_data_dir": "x"}
    config = parse(RunConfig, table, "test")
    assert config.data_dir == "s3://bucket/data"
    assert config.train_on_data_dir == Path.cwd() / "x"
    assert RunConfig(**config.model_dump(mode="json")) == config
    assert data_folder(f"file://{tmp_path}/a%20b") == tmp_path.resolve() / "a b"
    assert cache_folder() == tmp_path / "node"
