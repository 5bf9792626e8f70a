"""A store in one file."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import ConfigError, StoreError
from harness.leaderboard import leaderboard
from harness.store import HistoryRow, Store, history_frame, maintenance
from harness.store.compaction import compact
from harness.store.packed.archive import MOST_BYTES, PackedBackend
from harness.store.packed.pack import pack, unpack
from harness.submission.verify import verify
from helpers.common import Cli
from helpers.runs import add, answers, record


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two finished runs, a failed one, a broken one; a student, leftovers, a catalogue, an ablation's files."""
    made = Store(tmp_path / "store")
    add(made, "finetune", 6, 0, tags=["suite:a"])
    add(made, "finetune", 8, 1, splits=("test", "ood"))
    add(made, "hkd4vlm", status="failed", benchmark="other")
    student = tmp_path / "weights"
    student.mkdir()
    (student / "model.safetensors").write_bytes(b"weights")
    frame = answers(7)
    history = history_frame([HistoryRow("tune", 1, 0.5, "student", "loss/ce", 0.25)])
    made.write(record("offline_kd", 0, frame), frame, history, student)
    compact(made)
    (made.root / "half").mkdir()
    (made.root / ".work" / "hkd4vlm-S-0").mkdir(parents=True)
    (made.root / ".work" / "hkd4vlm-S-0" / "state.json").write_text("{}")
    (made.root / ".tmp-left").write_text("")
    made.write_text("some_ablation.json", '{"lines": []}')
    made.write_text("some_ablation.md", "words")
    made.write_text(".sweeps/search.json", "{}")
    return made


@pytest.fixture
def packed(store: Store, tmp_path: Path) -> Store:
    pack(store, tmp_path / "results.tar.xz")
    return Store(tmp_path / "results.tar.xz")


def archive(path: Path, *entries: tuple[tarfile.TarInfo | str, bytes]) -> Path:
    """A packed store with these members."""
    with lzma.open(path, "wb") as compressed, tarfile.open(fileobj=compressed, mode="w") as made:
        for entry, data in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


# -------------------------------------------------------------------------------------------------- writing


def test_it_holds_runs_and_texts_and_nothing_else(packed: Store, store: Store) -> None:
    with tarfile.open(packed.url) as made:
        entries = made.getmembers()
    assert sorted(entry.name for entry in entries) == [
        ".sweeps/search.json",
        "finetune-S-0/predictions.parquet",
        "finetune-S-0/record.json",
        "finetune-S-1/predictions.parquet",
        "finetune-S-1/record.json",
        "hkd4vlm-S-0/record.json",
        "offline_kd-S-0/history.parquet",
        "offline_kd-S-0/predictions.parquet",
        "offline_kd-S-0/record.json",
        "some_ablation.json",
        "some_ablation.md",
    ]
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, 0, "", "")}
    for run_id in packed.ids():
        for name, there in packed.backend.files(run_id).items():
            assert packed.backend.read(there) == (store.root / run_id / name).read_bytes()


def test_the_same_content_gives_the_same_bytes(packed: Store, store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    for run_id in reversed(store.ids()):  # written in another order, at another time
        if run_id != "half":
            other.copy(run_id, store)
    for name in store.backend.texts():
        other.write_text(name, store.backend.read(name).decode())
    done = pack(other, tmp_path / "other.tar.xz")
    assert (tmp_path / "other.tar.xz").read_bytes() == Path(packed.url).read_bytes()
    assert (done.runs, done.broken, done.files) == (4, (), 11)
    pack(packed, tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == Path(packed.url).read_bytes()


def test_students_are_packed_when_asked_for(store: Store, tmp_path: Path) -> None:
    pack(store, tmp_path / "with.tar.xz", with_students=True)
    packed = Store(tmp_path / "with.tar.xz")
    assert packed.backend.read("offline_kd-S-0/student/model.safetensors") == b"weights"


def test_what_is_alike_in_many_runs_takes_room_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for seed in range(30):
        add(store, right=range(seed % 8), seed=seed)
    done = pack(store, tmp_path / "results.tar.xz")
    assert done.bytes < done.bytes_before / 15


@pytest.mark.parametrize(("name", "complaint"), [("results.zip", "ends in .tar.xz"), ("no/x.tar.xz", "isn't there")])
def test_names_that_pack_refuses(store: Store, tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        pack(store, tmp_path / name)


def test_an_empty_store_isnt_packed(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no runs to pack"):
        pack(Store(tmp_path / "empty"), tmp_path / "results.tar.xz")
    assert not list(tmp_path.iterdir())


def test_numbers_that_hardly_repeat_are_written_as_they_are(store: Store) -> None:
    for name, leaf in (("predictions", "scores.list.element"), ("history", "value")):
        group = pq.ParquetFile(store.root / "offline_kd-S-0" / f"{name}.parquet").metadata.row_group(0)
        columns = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
        assert (columns[leaf].compression, columns[leaf].has_dictionary_page) == ("UNCOMPRESSED", False)
        assert {c.compression for n, c in columns.items() if n != leaf} == {"ZSTD"}


# -------------------------------------------------------------------------------------------------- reading


def test_it_reads_like_the_folder(packed: Store, store: Store) -> None:
    shutil.rmtree(store.root / "half")
    assert packed.ids() == store.ids()
    assert list(packed.scan()) == list(store.scan())
    assert packed.predictions("finetune-S-1", "ood").equals(store.predictions("finetune-S-1", "ood"))
    assert packed.history("offline_kd-S-0").equals(store.history("offline_kd-S-0"))
    assert packed.find("off").run_id == "offline_kd-S-0"
    assert leaderboard.table(packed) == leaderboard.table(store)
    assert verify(packed, "finetune-S-0").to_json() == verify(store, "finetune-S-0").to_json()
    listed = maintenance.runs(packed).drop_columns(["stamp"])
    assert listed.equals(maintenance.runs(store).drop_columns(["stamp"]))
    with pytest.raises(StoreError, match="did you mean .*'finetune-S-0'"):
        packed.read("finetune-S-O")


def test_a_ranking_is_computed_once_and_kept_in_the_users_cache(
    packed: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = leaderboard.table(packed)
    assert len(list(cache.glob("packed-*/.catalogue/cache/*"))) >= 1
    monkeypatch.setattr(leaderboard, "_answer", lambda *_: pytest.fail("computed again"))
    assert leaderboard.table(Store(packed.url)) == rows
    assert list(Path(packed.url).parent.glob(".tmp*")) == []


def test_the_verbs_that_read_take_it(packed: Store, store: Store, cli: Cli, tmp_path: Path) -> None:
    at = ("--store", packed.url)
    assert [run["run_id"] for run in cli("store", "ls", *at, "--json").json] == packed.ids()
    assert cli("rank", *at, "--format", "csv").out == cli("rank", "--store", store.url, "--format", "csv").out
    assert cli("show", "offline", *at).out == cli("show", "offline", "--store", store.url).out
    assert cli("compare", "finetune-S-0", "offline_kd-S-0", *at).code == 0
    assert cli("verify", "finetune-S-0", *at).out == cli("verify", "finetune-S-0", "--store", store.url).out
    assert cli("store", "export", tmp_path / "runs.csv", *at).code == 0
    assert cli("list", "runs", *at, "--json").code == 0
    assert cli("store", "merge", packed.url, "--store", tmp_path / "merged").code == 0
    assert Store(tmp_path / "merged").ids() == packed.ids()


def test_a_file_that_is_replaced_is_read_again(packed: Store, store: Store) -> None:
    before = packed.versions()
    add(store, "finetune", 5, 2)
    pack(store, Path(packed.url))
    assert packed.versions().keys() - before.keys() == {"finetune-S-2"}
    assert packed.read("finetune-S-2").seed == 2


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "command",
    [
        ("store", "compact"),
        ("store", "gc"),
        ("run", "--method", "zero_shot", "--benchmark", "toy", "--workers", "0"),
        ("robustness", "offline_kd-S-0"),
    ],
)
def test_verbs_that_write_say_how_to_unpack(
    packed: Store, cli: Cli, toy: str, toy_ladder: str, command: tuple[str, ...]
) -> None:
    before = Path(packed.url).read_bytes()
    more = ("--plugin", toy, "--ladder", toy_ladder) if command[0] == "run" else ()
    said = cli(*command, *more, "--store", packed.url)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "can only be read: `hkdbench store unpack results.tar.xz DIR`" in said.err
    assert Path(packed.url).read_bytes() == before


def test_every_way_of_writing_is_refused(packed: Store, store: Store) -> None:
    for write in (
        lambda: packed.copy("finetune-S-0", store),
        lambda: packed.write_text("words.md", "words"),
        lambda: add(packed, "mutual"),
        lambda: packed.backend.remove("finetune-S-0"),
        lambda: maintenance.merge(packed, store),
        lambda: packed.root,
    ):
        with pytest.raises(StoreError, match="can only be read"):
            write()


def test_damage_is_one_line(packed: Store, cli: Cli) -> None:
    path = Path(packed.url)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged, complaint in (
        (whole[: len(whole) // 2], "it is truncated"),
        (b"", "it is truncated"),
        (bytes(flipped), "it is damaged"),
        (b"not an archive", "it is damaged"),
        (whole + b"more", "something follows its end"),
        (lzma.compress(b"no tar archive at all"), "it is damaged"),
    ):
        path.write_bytes(damaged)
        said = cli("rank", "--store", path)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert complaint in said.err
        assert "get it again" in said.err
    path.unlink()
    assert "no store at" in cli("rank", "--store", path).err
    assert not path.exists()


def test_an_archive_cut_within_a_member_is_refused(packed: Store) -> None:
    path = Path(packed.url)
    inside = lzma.decompress(path.read_bytes())
    path.write_bytes(lzma.compress(inside[:1000]))
    with pytest.raises(StoreError, match="it is damaged"):
        Store(path)


def link(name: str, target: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("../escaped/record.json", "isn't a file of a store"),
        ("/tmp/record.json", "isn't a file of a store"),
        ("run/../../record.json", "isn't a file of a store"),
        ("run/student/../record.json", "isn't a file of a store"),
        ("..\\escaped\\record.json", "isn't a file of a store"),
        (".catalogue/1.json", "isn't a file of a store"),
        (".work/run/state.json", "isn't a file of a store"),
        ("run/setup.py", "isn't a file of a store"),
        (link("run/record.json", "/etc/passwd"), "isn't a plain file"),
        (link("run", "/tmp"), "isn't a plain file"),
    ],
)
def test_members_that_no_store_has_are_refused(tmp_path: Path, entry: tarfile.TarInfo | str, complaint: str) -> None:
    made = archive(tmp_path / "bad.tar.xz", ("some.json", b"{}"), (entry, b""))
    for read in (lambda: Store(made), lambda: unpack(made, tmp_path / "inside" / "out")):
        with pytest.raises(StoreError, match=complaint):
            read()
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar.xz"]


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "bad.tar.xz", ("run/record.json", b"{}"), ("run/record.json", b"{ }"))
    with pytest.raises(StoreError, match="run/record.json twice"):
        Store(made)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_BYTES == 2 * 2**30
    monkeypatch.setattr("harness.store.packed.archive.MOST_BYTES", 100_000)
    made = archive(tmp_path / "bad.tar.xz", ("some.json", bytes(10**6)))
    with pytest.raises(StoreError, match="unpacks to more than 100,000 bytes"):
        PackedBackend(made)


def test_a_store_too_large_for_memory_isnt_packed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.store.packed.pack.MOST_BYTES", 1000)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreError, match="more than 1,000 bytes"):
        pack(store, tmp_path / "results.tar.xz")
    assert sorted(os.listdir(tmp_path)) == before


# ------------------------------------------------------------------------------------------------ unpacking


def test_unpacked_it_is_the_folder_again(packed: Store, store: Store, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("store", "unpack", packed.url, out, "--json").json == {"folder": str(out), "files": 11}
    again = Store(out)
    assert again.ids() == packed.ids()
    assert list(again.scan()) == list(packed.scan())
    assert again.backend.texts() == packed.backend.texts()
    add(again, "mutual")
    said = cli("store", "unpack", packed.url, out)
    assert said.code == 2
    assert "hkdbench store merge" in said.err
    assert "mutual-S-0" in again.ids()


def test_the_command_tells_what_it_packed(store: Store, cli: Cli, tmp_path: Path) -> None:
    said = cli("store", "pack", tmp_path / "x.tar.xz", "--store", store.url)
    assert said.out.startswith("broken, left out: half\n")
    assert ": 4 runs, " in said.out
