"""What is known about a file's content is found again, and never for another content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.images.content import ContentCache, cache_folder, content_hash


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    cache = ContentCache(tmp_path / "cache")
    assert cache.file_hash(path) == content_hash(b"one")
    cache.close()
    again = ContentCache(tmp_path / "cache")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
    assert again.file_hash(path) == content_hash(b"one")


def test_swapped_or_changed_files_are_read_again(tmp_path: Path) -> None:
    one, two, third = (tmp_path / name for name in "abc")
    for path, content in ((one, b"one"), (two, b"two")):
        path.write_bytes(content)
        os.utime(path, (1, 1))  # as files of one archive have it: equal sizes and times
    cache = ContentCache(tmp_path / "cache")
    assert [cache.file_hash(one), cache.file_hash(two)] == [content_hash(b"one"), content_hash(b"two")]
    cache.flush()
    one.rename(third)
    two.rename(one)
    third.rename(two)
    assert [cache.file_hash(one), cache.file_hash(two)] == [content_hash(b"two"), content_hash(b"one")]
    one.write_bytes(b"new")
    os.utime(one, (1, 1))
    assert cache.file_hash(one) == content_hash(b"new")


def test_facts_are_kept_for_other_processes_and_a_broken_cache_is_none(tmp_path: Path) -> None:
    first, second = ContentCache(tmp_path / "c"), ContentCache(tmp_path / "c")
    first.put({"key": "fact"})
    assert second.fact("key") is None
    first.flush()
    assert second.fact("key") == "fact"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "images.sqlite").write_bytes(b"no database at all" * 100)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "broken", tmp_path / "file" / "below"):
        broken = ContentCache(folder)
        broken.put({"key": "fact"})
        broken.close()
        assert broken.fact("key") is None
        assert broken.file_hash(tmp_path / "file") == content_hash(b"")


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HKDBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hkdbench"
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
