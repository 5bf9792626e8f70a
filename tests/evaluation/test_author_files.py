"""Authors' own answer files are taken as they are: the same answers give the same figures in every form."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.amber import AMBER
from benchmarks.hallusionbench import HallusionBench
from benchmarks.nlvr import NLVR
from benchmarks.pope import POPE
from harness.api import Benchmark, DataError, Example
from harness.evaluation.answer_files import load_splits, match, read
from helpers.answer_files import ALL_YES, save
from helpers.common import Cli

Rows = list[dict[str, Any]]
LINES = "\n".join


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def answered(benchmark: Benchmark, path: Path, content: str | bytes) -> dict[str, str | None]:
    """The text of each example, by id."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {e.id: text for _, e, text in match(benchmark, load_splits(benchmark), read(path)).answers}


def excel(path: Path, rows: Sequence[Sequence[str | int]]) -> bytes:
    """A small Excel file: texts shared, the first also inline, numbers as numbers; empty cells are left out."""
    texts = sorted({cell for row in rows for cell in row if isinstance(cell, str)})
    sheet = ""
    for n, row in enumerate(rows, 1):
        cells = ""
        for k, cell in enumerate(row):
            at = f'r="{chr(65 + k)}{n}"'
            if isinstance(cell, int):
                cells += f"<c {at}><v>{cell}</v></c>"
            elif cell and n == 2:
                cells += f'<c {at} t="inlineStr"><is><t>{escape(cell)}</t></is></c>'
            elif cell:
                cells += f'<c {at} t="s"><v>{texts.index(cell)}</v></c>'
        sheet += f'<row r="{n}">{cells}</row>'
    name = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(f"<si><r><t>{escape(t[:1])}</t></r><r><t>{escape(t[1:])}</t></r></si>" for t in texts)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/worksheets/sheet1.xml", f"<worksheet {name}><sheetData>{sheet}</sheetData></worksheet>")
        file.writestr("xl/sharedStrings.xml", f"<sst {name}>{shared}</sst>")
    return path.read_bytes()


# ---------------------------------------------------------------------------------------------- POPE

SAID = {"random/1": "Yes", "random/2": "no", "popular/1": "Yes", "popular/2": "no", "adversarial/1": "Yes"}
SAID |= {"adversarial/2": "no"}


def asked(folder: Path) -> list[Example]:
    return list(POPE(folder).load("test"))


def test_popes_lines_are_paired_by_their_order(pope: Path) -> None:
    """As evaluate.py does; a file for another variant, or in another order, is refused by its questions."""
    rows = [{"question": e.question, "answer": SAID[e.id]} for e in asked(pope)]
    for name in ("answers.json", "answers.jsonl"):  # the README's are lines in a .json file
        assert answered(POPE(pope), pope / name, lines(rows)) == SAID
    one = POPE(pope, variant="popular")
    assert answered(one, pope / "p.json", lines(rows[2:4])) == {"popular/1": "Yes", "popular/2": "no"}
    with pytest.raises(DataError, match=r"the answer to 'random/1' is to the question 'Is there a dog 2"):
        answered(POPE(pope), pope / "p.json", lines(rows[::-1]))
    with pytest.raises(DataError, match=r"2 answers without ids .* there are test 6; choose"):
        answered(POPE(pope), pope / "p.json", lines(rows[:2]))


def test_lmms_evals_samples(pope: Path) -> None:
    """`answer` in the document is the gold; category and number name the question, not the row's own id."""
    rows = []
    for number, e in enumerate(reversed(asked(pope))):
        variant, _, question_id = e.id.partition("/")
        doc = {"id": str(number), "question_id": question_id, "question": e.question, "answer": "wrong"}
        doc |= {"category": variant, "image_source": e.group.removesuffix(".jpg")}
        rows.append({"doc_id": number, "doc": doc, "target": "wrong", "resps": [[SAID[e.id]]]})
        if number % 2:
            rows[-1]["filtered_resps"] = [SAID[e.id]]
    assert answered(POPE(pope), pope / "x_samples_pope.jsonl", lines(rows)) == SAID
    assert answered(POPE(pope), pope / "old.json", json.dumps({"args": {}, "logs": rows})) == SAID
    part = answered(POPE(pope, variant="random"), pope / "s.jsonl", lines(rows))
    assert part == {"random/1": "Yes", "random/2": "no"}  # answers to the other variants are passed over


def test_vlmevalkits_predictions(pope: Path) -> None:
    """One row for each image and question, for all variants that ask it; `answer` is the gold."""
    header = ["index", "image_path", "question", "answer", "category", "prediction"]
    rows = [
        [7, f"/x/i{n}.jpg", f"Is there a dog {n}?", "wrong", "random,popular,adversarial", said]
        for n, said in ((2, "no"), (1, "Yes"))
    ]
    assert answered(POPE(pope), pope / "m_POPE.xlsx", excel(pope / "x.xlsx", [header, *rows])) == SAID
    table = LINES("\t".join(map(str, row)) for row in [header, *rows])
    assert answered(POPE(pope), pope / "m_POPE.tsv", table) == SAID


def test_llavas_answers(pope: Path) -> None:
    rows = [
        {"question_id": n, "prompt": f"Is there a dog {n}?\nAnswer with one word.", "text": said, "answer_id": "x"}
        for n, said in ((1, "Yes"), (2, "no"))
    ]
    one = POPE(pope, variant="random")
    assert answered(one, pope / "llava.jsonl", lines(rows)) == {"random/1": "Yes", "random/2": "no"}
    with pytest.raises(DataError, match="is to the question 'Is there a cat"):
        answered(one, pope / "llava.jsonl", lines([rows[0], rows[1] | {"prompt": "Is there a cat?"}]))


def test_questions_with_their_golds_are_no_answers(pope: Path) -> None:
    content = (pope / "coco_pope_random.json").read_text()
    with pytest.raises(DataError, match="expected an object with id and answer"):
        answered(POPE(pope, variant="random"), pope / "gold.json", content)
    with pytest.raises(DataError, match="no column 'id'"):
        answered(POPE(pope), pope / "p.csv", LINES(["name,answer", *["x,yes"] * 6]))
    with pytest.raises(DataError, match="no column 'id'"):  # VLMEvalKit's questions: their answers are the golds
        answered(POPE(pope), pope / "p.csv", LINES(["index,answer", *[f"{n},yes" for n in range(6)]]))


# ------------------------------------------------------------------------------------- other authors


def test_ambers_responses(published: Callable[[str], Path], tmp_path: Path) -> None:
    """All 15,220 answers in one file: those that describe an image are passed over."""
    rows = [{"id": n, "response": "Yes" if n % 2 else "No"} for n in range(1, 15221)]
    benchmark = AMBER(published("amber"), dimension="existence")
    found = answered(benchmark, tmp_path / "amber.json", json.dumps(rows))
    assert len(found) == len(list(benchmark.load("test")))
    assert all(text == ("Yes" if int(id_) % 2 else "No") for id_, text in found.items())
    with pytest.raises(DataError, match="1 unknown id"):
        answered(benchmark, tmp_path / "amber.json", json.dumps([*rows, {"id": 15221, "response": "No"}]))


def test_hallusionbenchs_result_file(published: Callable[[str], Path], tmp_path: Path) -> None:
    folder = published("hallusionbench")
    rows = json.loads((folder / "HallusionBench.json").read_text())
    for number, row in enumerate(rows):
        row["model_prediction"] = f"Yes {number}"
    content = json.dumps(rows)
    keys = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
    found = answered(HallusionBench(folder), tmp_path / "HallusionBench_result.json", content)
    assert found == {"_".join(str(row[key]) for key in keys): row["model_prediction"] for row in rows}
    assert len(answered(HallusionBench(folder, rows="image"), tmp_path / "r.json", content)) == 951
    theirs = [  # VLMEvalKit's columns
        {"index": n, "category": row["category"], "l2-category": row["subcategory"], "question": row["question"]}
        | {key: row[key] for key in ("set_id", "figure_id", "question_id")}
        | {"answer": "wrong", "prediction": f"Yes {n}"}
        for n, row in enumerate(rows)
    ]
    assert answered(HallusionBench(folder), tmp_path / "v.json", json.dumps(theirs)) == found


@pytest.mark.parametrize("third", ["", ",0.93"])
def test_nlvrs_csv_without_a_header(third: str, nlvr_dir: Path, tmp_path: Path) -> None:
    ids = [e.id for s in ("train", "validation", "test") for e in NLVR(nlvr_dir).load(s)]  # type: ignore[arg-type]
    found = answered(NLVR(nlvr_dir), tmp_path / "p.csv", LINES(f"{id_}.png,True{third}" for id_ in reversed(ids)))
    assert (set(found), set(found.values())) == (set(ids), {"True"})


# ------------------------------------------------------------------------------- encodings and layouts


@given(st.lists(st.text(st.characters(codec="cp1252", exclude_categories=["Cc"]), max_size=30), min_size=6, max_size=6))
def test_every_form_of_a_file_says_the_same(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """With a byte order mark, other line ends, other delimiters, a long field."""
    folder = tmp_path_factory.mktemp("forms")
    texts = ["x" * 140_000, *texts[1:]]
    rows = [{"id": str(n), "answer": text} for n, text in enumerate(texts)]
    plain = list(enumerate(texts))

    def table(mark: str, end: str) -> str:
        quoted = [f"{n}{mark}" + '"' + text.replace('"', '""') + '"' for n, text in plain]
        return end.join([f"id{mark}answer", *quoted])

    forms = [
        ("a.csv", table(",", "\n")),
        ("b.csv", table(",", "\r\n")),
        ("c.csv", "\ufeff" + table(",", "\r\n")),
        ("d.csv", table(";", "\r\n")),
        ("e.tsv", table("\t", "\n")),
        ("f.jsonl", lines(rows)),
        ("g.jsonl", "\ufeff" + lines(rows).replace("\n", "\r\n")),
        ("h.json", "\ufeff" + json.dumps(rows, ensure_ascii=False)),
    ]
    for name, content in forms:
        (folder / name).write_bytes(content.encode())
        assert list(read(folder / name).given) == [(str(n), text) for n, text in plain], name


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json"])
def test_windows_1252_is_read_and_said(name: str, tmp_path: Path) -> None:
    said = "Café – “déjà vu” à l’œil: naïve, 5 €"
    row = {"id": "1", "answer": said}
    content = f'id,answer\r\n1,"{said}"\r\n' if name == "p.csv" else json.dumps(row, ensure_ascii=False)
    content = f"[{content}]" if name == "p.json" else content
    path = tmp_path / name
    path.write_bytes(content.encode("cp1252"))
    with pytest.warns(UserWarning, match=rf"{name}: not UTF-8 from line \d on; read as Windows-1252"):
        assert list(read(path).given) == [("1", said)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("café, 図".encode() + b"\xe9", "not UTF-8 text"),  # damaged UTF-8
        ("красный круг".encode("cp1251"), "not UTF-8 text"),
        ("红色的圆".encode("gbk"), "not UTF-8 text"),
        (b"\xff", "not UTF-8 text"),
        ("yes".encode("utf-16"), "UTF-16; save it as UTF-8"),
    ],
)
def test_other_encodings_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content if content[:2] == b"\xff\xfe" else b"id,answer\n1," + content + b"\n")
    with pytest.raises(DataError, match=says):
        read(path)


def test_damaged_excel_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "p.xlsx"
    whole = excel(path, [["id", "answer"], ["1", "yes"], ["2", "no"]])
    assert list(read(path).given) == [("1", "yes"), ("2", "no")]
    for content in (b"", whole[:100], b"PK\x03\x04" + whole[4:60], whole.replace(b"sheet1", b"sheetX")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"^[^\n]*p\.xlsx: not an Excel file[^\n]*$"):
            read(path)


# ---------------------------------------------------------------------------------------- no images


def test_answers_are_scored_and_imported_without_images(cli: Cli, pope: Path, tmp_path: Path) -> None:
    """The figures are those with images; a part that is missing is still an error."""
    path = save(pope / "p.csv", ALL_YES)
    args = ["--benchmark", "pope", "--data-dir", pope]
    imported = ["import-predictions", path, *args, "--name", "m", "--json", "--store"]
    with_images = cli(*imported, tmp_path / "a").json
    for image in (pope / "images").iterdir():
        image.unlink()
    (pope / "images").rmdir()
    without = cli(*imported, tmp_path / "b")
    assert without.code == 0, without.err
    assert "no image was found in --data-dir: the row is ranked apart" in without.err
    assert without.json["metrics"] == with_images["metrics"]
    assert (with_images["data"]["leaks"], without.json["data"]["leaks"]) == ({}, None)  # not looked for
    assert without.json["data"]["fingerprint"] != with_images["data"]["fingerprint"]
    assert cli("score", *args, "--predictions", path, "--protocol", "official").code == 0
