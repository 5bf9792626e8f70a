"""What is known about a content is found again by other processes."""

from __future__ import annotations

from pathlib import Path

from harness.images.facts import Facts


def test_facts_are_kept_for_other_processes_and_a_broken_file_is_none(tmp_path: Path) -> None:
    first, second = Facts(tmp_path / "c" / "facts.sqlite"), Facts(tmp_path / "c" / "facts.sqlite")
    first.put("key", "fact")
    assert second.get("key") is None
    first.close()
    assert second.get("key") == "fact"
    (tmp_path / "broken.sqlite").write_bytes(b"no database at all" * 100)
    (tmp_path / "file").touch()
    for file in (tmp_path / "broken.sqlite", tmp_path / "file" / "below" / "facts.sqlite"):
        broken = Facts(file)
        broken.put("key", "fact")
        broken.close()
        assert broken.get("key") is None
        assert Facts(file).get("key") is None
