"""Small made-up data sets in each benchmark's published layout, with drawn pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.amber import AMBER
from benchmarks.challenge.factuality import ChallengeFactuality
from benchmarks.challenge.hallucination import ChallengeHallucination
from benchmarks.coco.mhal_detect import MHalDetect
from benchmarks.coco.pope_v2 import POPEv2
from benchmarks.coco.valse import VALSE
from benchmarks.coco.vsr import VSR
from benchmarks.hallusionbench import HallusionBench
from benchmarks.haloquest import HaloQuest
from benchmarks.mfc_bench import MFCBench
from benchmarks.mhalubench import MHaluBench
from benchmarks.mmfakebench import CLASSES, MMFakeBench
from benchmarks.naturalbench import NaturalBench
from benchmarks.nlvr import NLVR
from benchmarks.pope import POPE, RePOPE
from benchmarks.sugar_crepe import SugarCrepe
from benchmarks.verite import VERITE
from harness.api import Answer, Benchmark, Example

Row = dict[str, Any]
Key = tuple[str | int, ...]
"""Where a value stands in a row: keys and places, from the outside in."""


@dataclass(frozen=True)
class StandIn:
    """One benchmark's data: the annotation file that tests damage, what else there is, and what it must hold."""

    make: Callable[[Path], Benchmark]
    file: str
    layout: str
    """array, lines, csv, table (an object of objects), or parquet."""
    rows: Sequence[Row]
    pictures: Sequence[str] = ()
    texts: Sequence[Key] = ()
    """Values that must be a text with something in it."""
    choices: Sequence[Key] = ()
    """Values that must be one of a few."""
    images: Sequence[Key] = ()
    """Values that name a file."""
    rebased: bool = False
    """Whether what such a name begins with is dropped, so that an absolute path stays inside too."""
    unique: bool = True
    """Whether two equal rows are an error."""
    others: dict[str, Sequence[Row]] = field(default_factory=dict)
    """Further files, arrays or lines of rows as `layout` has it."""

    @property
    def name(self) -> str:
        """The benchmark's, and the file's stem."""
        return f"{type(self.make(Path())).name}-{Path(self.file).stem}"

    def write(self, folder: Path, content: bytes | None = None) -> Path:
        """The data set in `folder`; `content` in place of the annotation file's own."""
        for file, rows in self.others.items():
            _put(folder / file, encoded(self.layout, rows))
        _put(folder / self.file, encoded(self.layout, self.rows) if content is None else content)
        for number, picture in enumerate(self.pictures):
            _put(folder / picture, png(number))
        return folder


def encoded(layout: str, rows: Sequence[Row]) -> bytes:
    """The rows as the bytes of an annotation file."""
    if layout == "array":
        return json.dumps(list(rows)).encode()
    if layout == "lines":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if layout == "table":
        pairs = (f"{json.dumps(str(k))}: {json.dumps(row)}" for k, row in enumerate(rows))
        return f"{{{', '.join(pairs)}}}".encode()
    if layout == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, [*dict.fromkeys(key for row in rows for key in row)], restval="")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def png(number: int, size: int = 8) -> bytes:
    """A picture of one colour, another one for each of the first 250 numbers."""
    out = io.BytesIO()
    Image.new("RGB", (size, size), (number % 250, 100, 200)).save(out, "PNG")
    return out.getvalue()


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cell(number: int) -> dict[str, Any]:
    """An image as a Parquet column has it."""
    return {"bytes": png(number), "path": f"{number}.png"}


def answers(examples: Sequence[Example], right: Sequence[bool]) -> list[Answer]:
    """An answer to each example, the first wrong option where it is to be wrong."""
    found = []
    for e, good in zip(examples, right, strict=True):
        chosen = e.gold if good else next(k for k in range(len(e.options)) if k != e.gold)
        found.append(Answer(e.id, e.group, e.category, e.options, e.gold, chosen, e.options[chosen], e.extra))
    return found


# ------------------------------------------------------------------------------------ the benchmarks


def _caption(number: int, right: str) -> Row:
    choices = ["No hallucination", "blue wire shelf", "two lamps", "a rug"]
    return {
        "image_id": f"{number}.jpg",
        "system1_question": "Describe the image.",
        "system1_answer": f"A room with a blue wire shelf, two lamps and a rug, number {number}.",
        "system2_question": "Which part is hallucinated?",
        "correct_answer": choices["ABCD".index(right)],
        "correct_choice": right,
        "choices": [{"id": letter, "choice": text} for letter, text in zip("ABCD", choices, strict=True)],
    }


def claim(number: int, right: str) -> Row:
    choices = ["True", "False", "Partially True", "Not Verifiable"]
    return {
        "image_id": f"{number}.jpg",
        "claim": f"The tower has {number} floors.",
        "context": "" if number == 2 else "It was built in 1910.",
        "question": "Is the claim true?",
        "correct_answer": choices["ABCD".index(right)],
        "correct_choice": right,
        "choices": [{"id": letter, "choice": text} for letter, text in zip("ABCD", choices, strict=True)],
    }


CHALLENGE_HALLUCINATION = StandIn(
    make=ChallengeHallucination,
    file="HallucinationDetection/json/train.json",
    layout="array",
    rows=[_caption(number, "ABCD"[number % 4]) for number in range(8)],
    pictures=[f"HallucinationDetection/images/{number}.jpg" for number in range(12)],
    texts=[("system1_answer",), ("system2_question",)],
    choices=[("correct_choice",), ("choices", 2, "id")],
    images=[("image_id",)],
    others={
        "HallucinationDetection/json/test.json": [_caption(10, "C")],
        "HallucinationDetection/json/val.json": [_caption(11, "A"), _caption(8, "B")],
    },
)
CHALLENGE_FACTUALITY = StandIn(
    make=ChallengeFactuality,
    file="Fact Checking/json/test.json",
    layout="array",
    rows=[claim(number, "ABCD"[number % 4]) for number in range(6)],
    pictures=[f"Fact Checking/images/{number}.jpg" for number in range(9)],
    texts=[("claim",), ("question",)],
    choices=[("correct_choice",), ("choices", 3, "choice")],
    images=[("image_id",)],
    others={
        "Fact Checking/json/train.json": [claim(number, "B") for number in (6, 7)],
        "Fact Checking/json/val.json": [claim(8, "D")],
    },
)
MHALUBENCH = StandIn(
    make=MHaluBench,
    file="MHaluBench_val-v0.1.json",
    layout="array",
    rows=[
        {
            "id": number,
            "image_path": f"/somewhere/else/{number}.jpg",
            "prompt": "Describe the image.",
            "response": "A cat sleeps. It is red.",
            "model": "llava",
            "task_type": "image-to-text" if number < 3 else "text-to-image",
            "label": "hallucination",
            "segments": [
                {
                    "segment": "A cat sleeps.",
                    "label": "non-hallucination",
                    "claims": [
                        {"claim": "There is a cat.", "claim_category": ["object"], "label": "non-hallucination"}
                    ],
                },
                {
                    "segment": f"It is red and weighs {number} kilograms.",
                    "label": "hallucination",
                    "claims": [
                        {"claim": "The cat is red.", "label": "non-hallucination"},
                        {"claim": f"The cat weighs {number} kilograms.", "label": "hallucination"},
                    ],
                },
            ],
        }
        for number in range(5)
    ],
    pictures=[f"data/{'image-to-text' if number < 3 else 'text-to-image'}/{number}.jpg" for number in range(5)],
    texts=[("segments", 0, "claims", 0, "claim"), ("segments", 1, "claims", 1, "claim")],
    choices=[("segments", 0, "claims", 0, "label"), ("segments", 1, "claims", 1, "label")],
    images=[("image_path",)],
    rebased=True,
    unique=False,
)
VERITE_ = StandIn(
    make=VERITE,
    file="VERITE.csv",
    layout="csv",
    rows=[
        {"": str(number), "caption": f"A photograph of event {event}, {label}.", "image_path": image, "label": label}
        for event in range(3)
        for number, label, image in [
            (3 * event, "true", f"images/true_{event}.jpg"),
            (3 * event + 1, "miscaptioned", f"images/true_{event}.jpg"),
            (3 * event + 2, "out-of-context", f"images/false_{event}.jpg"),
        ]
    ],
    pictures=[f"images/{kind}_{event}.jpg" for event in range(3) for kind in ("true", "false")],
    texts=[("caption",)],
    choices=[("label",), ("",)],
    images=[("image_path",)],
)
SUGAR_CREPE = StandIn(
    make=lambda folder: SugarCrepe(folder, parts=("swap_att",)),
    file="swap_att.json",
    layout="table",
    rows=[
        {
            "filename": f"{number:012}.jpg",
            "caption": f"{number} red dogs and a blue cat.",
            "negative_caption": f"{number} blue dogs and a red cat.",
        }
        for number in range(6)
    ],
    pictures=[f"val2017/{number:012}.jpg" for number in range(6)],
    texts=[("caption",), ("negative_caption",)],
    images=[("filename",)],
    unique=False,  # the keys are numbers that the file itself makes unique
)
HALOQUEST = StandIn(
    make=HaloQuest,
    file="haloquest-eval.csv",
    layout="csv",
    rows=[
        {
            "": str(number),
            "image_name": f"{number}.png",
            "url": "https://example.org/",  # it names no image: nor may image_name be empty
            "image type": "real",
            "hallucination type": kind,
            "question": f"What colour is the hat of person {number}?",
            "groundtruth responses": said,
            "split": "eval",
        }
        for number, (kind, said) in enumerate(
            [
                ("false premises", "There is no hat; no hat"),
                ("visual challenge", "The hat is red; Red"),
                ("insufficient context", "The hat is hidden; We can't see it"),
                ("visual challenge", "It is green"),
                ("visual challenge", "There is no hat to be seen"),
            ]
        )
    ],
    pictures=[f"images/{number}.png" for number in range(5)],
    texts=[("question",), ("groundtruth responses",)],
    choices=[("hallucination type",), ("",)],
    images=[("image_name",)],
)
NATURALBENCH = StandIn(
    make=NaturalBench,
    file="data/train-00000-of-00001.parquet",
    layout="parquet",
    rows=[
        {
            "Index": number,
            "Image_0": cell(2 * number),
            "Image_1": cell(2 * number + 1),
            "Question_0": "Is it red?" if number < 2 else "What is it?\nOption: A: A dog.; B: A cat.;",
            "Image_0_Question_0": "Yes" if number < 2 else "A",
            "Image_1_Question_0": "No" if number < 2 else "B",
            "Question_1": "Is it blue?" if number < 2 else "Where is it?\nOption: A: Here.; B: There.;",
            "Image_0_Question_1": "No" if number < 2 else "B",
            "Image_1_Question_1": "Yes" if number < 2 else "A",
            "Question_Type": "yes_no" if number < 2 else "multiple_choice",
            "Source": "Flickr30K",
        }
        for number in range(3)
    ],
    texts=[("Question_0",), ("Question_1",)],
    choices=[("Image_0_Question_0",), ("Image_1_Question_1",), ("Question_Type",), ("Index",)],
)
MFC_BENCH = StandIn(
    make=MFCBench,
    file="manipulation/train-00000-of-00001.parquet",
    layout="parquet",
    rows=[
        {
            "id": f"m{number}",
            "manipulate": number % 2,
            "manipulation_type": "face swap" if number % 2 else "original",
            "caption": f"A man in a hat, number {number}.",
            "image": cell(number),
        }
        for number in range(4)
    ],
    texts=[("caption",), ("id",)],
    choices=[("manipulate",)],
)


def _nlvr(number: int) -> Row:
    thing = {"type": "square", "size": 20, "color": "Black", "x_loc": 40, "y_loc": number}
    return {
        "identifier": f"{number}-0",
        "directory": str(number % 6),
        "sentence": f"There are {number} towers.",
        "label": "true" if number % 2 else "false",
        "structured_rep": [[thing], [thing], [thing]],
    }


NLVR_ = StandIn(
    make=NLVR,
    file="dev/dev.json",
    layout="lines",
    rows=[_nlvr(number) for number in range(6)],
    pictures=[f"dev/images/{number % 6}/dev-{number}-0-{k}.png" for number in range(6) for k in range(6)],
    texts=[("sentence",), ("identifier",), ("directory",), ("structured_rep", 0, 0)],
    choices=[("label",)],
    images=[("identifier",), ("directory",)],
)


def _polled(number: int) -> Row:
    said = "yes" if number % 2 else "no"
    return {"question_id": number, "image": f"i{number}.jpg", "text": f"Is there a dog {number}?", "label": said}


POPE_ = StandIn(
    make=lambda folder: POPE(folder, variant="random"),
    file="coco_pope_random.json",
    layout="lines",
    rows=[_polled(number) for number in range(1, 6)],
    pictures=[f"val2014/i{number}.jpg" for number in range(1, 6)],
    texts=[("text",)],
    choices=[("label",)],
    images=[("image",)],
)
REPOPE_ = replace(
    POPE_, make=lambda folder: RePOPE(folder, variant="popular"), file="annotations/coco_repope_popular.json"
)
AMBER_ = StandIn(
    make=AMBER,
    file="query_all.json",
    layout="array",
    rows=[{"id": number, "image": f"AMBER_{number}.jpg", "query": f"Is it so, {number}?"} for number in range(2, 7)],
    pictures=[f"image/AMBER_{number}.jpg" for number in range(2, 7)],
    texts=[("query",)],
    choices=[("id",)],
    images=[("image",)],
    others={
        "annotations.json": [
            {"id": 1, "type": "generative", "truth": ["sky"], "hallu": ["cloud"]},
            *({"id": number, "type": "relation", "truth": "no"} for number in range(2, 7)),
        ]
    },
)
AMBER_TRUTHS = replace(
    AMBER_, file="annotations.json", rows=AMBER_.others["annotations.json"][1:], texts=(), images=(),
    choices=[("id",), ("type",), ("truth",)], others={"query_all.json": AMBER_.rows},
)  # fmt: skip
HALLUSIONBENCH = StandIn(
    make=HallusionBench,
    file="HallusionBench.json",
    layout="array",
    rows=[
        {
            "category": "VS",
            "subcategory": "chart",
            "visual_input": "1",
            "set_id": "3",
            "figure_id": str(number),
            "question_id": "0",
            "question": "Is it larger?",
            "gt_answer": str(number % 2),
            "filename": f"./VS/chart/3_{number}.png",
        }
        for number in range(1, 6)
    ],
    pictures=[f"hallusion_bench/VS/chart/3_{number}.png" for number in range(1, 6)],
    texts=[("question",)],
    choices=[("category",), ("subcategory",), ("gt_answer",)],
    images=[("filename",)],
)
MMFAKEBENCH = StandIn(
    make=MMFakeBench,
    file="MMFakeBench_test.json",
    layout="array",
    rows=[
        {
            "text": f"Wi-Fi is a trademark of Microsoft, {number}.",
            "image_path": f"/{'real' if number == 0 else 'fake'}/a_source_test_5/{number}.jpg",
            "text_source": "",
            "image_source": "",
            "gt_answers": "True" if number == 0 else "Fake" if number < 3 else ["Fake"],
            "fake_cls": CLASSES[number],
        }
        for number in range(4)
    ],
    pictures=[f"MMFakeBench_test/{'real' if n == 0 else 'fake'}/a_source_test_5/{n}.jpg" for n in range(4)],
    texts=[("text",)],
    choices=[("fake_cls",), ("gt_answers",)],
    images=[("image_path",)],
    rebased=True,
    unique=False,  # an item is its place in the file
)

POPE_GQA = replace(
    POPE_,
    make=lambda folder: POPE(folder, variant="random", images="gqa"),
    file="output/seem/gqa/gqa_pope_seem_random.json",
    layout="array",
    pictures=[picture.replace("val2014", "gqa") for picture in POPE_.pictures],
)
POPE_V2 = StandIn(
    make=POPEv2,
    file="dataset/annotations.json",
    layout="array",
    rows=[
        {
            "image_id": number,
            "image_name": f"{place}/{number:012d}.jpg",
            "target_object": "remote",
            "query": "Is there a remote in the image?",
            "label": label,
        }
        for number in (7, 9)
        for place, label in (("/images", "No"), ("/coco/train2017", "Yes"))
    ],
    pictures=[f"dataset/{place}/{n:012d}.jpg" for place in ("images", "coco/train2017") for n in (7, 9)],
    texts=[("query",)],
    choices=[("label",)],
    images=[("image_name",)],
    rebased=True,
)


def _relation(number: int) -> Row:
    return {
        "image": f"{number:012d}.jpg",
        "image_link": f"http://example.org/{number:012d}.jpg",
        "caption": f"The cat number {number} is behind the laptop.",
        "label": number % 2,
        "relation": "behind",
        "annotator_id": 31,
        "vote_true_validator_id": "[2, 6]",
        "vote_false_validator_id": "[]",
    }


VSR_ = StandIn(
    make=VSR,
    file="data/splits/random/test.jsonl",
    layout="lines",
    rows=[_relation(number) for number in range(4)],
    pictures=[f"data/images/{number:012d}.jpg" for number in range(9)],
    texts=[("caption",), ("relation",)],
    choices=[("label",)],
    images=[("image",)],
    others={
        "data/splits/random/train.jsonl": [_relation(number) for number in (4, 5, 6, 0)],  # 0 is a test image
        "data/splits/random/dev.jsonl": [_relation(number) for number in (7, 8)],
    },
)
VALSE_ = StandIn(
    make=lambda folder: VALSE(folder, parts=("existence",)),
    file="data/existence.json",
    layout="table",
    rows=[
        {
            "dataset": "visual7w",
            "image_file": f"v7w_{number}.jpg",
            "linguistic_phenomena": "existence",
            "caption": f"There are {number} people in the picture.",
            "mturk": {"foil": 0, "caption": 3 - (number == 4) * 2, "other": 0},  # the last is not valid
            "foil": f"There are no {number} people in the picture.",
        }
        for number in range(5)
    ],
    pictures=[f"images/visual7w/v7w_{number}.jpg" for number in range(5)],
    texts=[("caption",), ("foil",)],
    images=[("image_file",)],
    unique=False,
)


def _described(number: int) -> Row:
    said = f"There are {number} cats. They sleep on a red sofa. It looks calm."
    ends = [said.index(".") + 1, said.index("sofa.") + 5, len(said)]
    labels = ("ACCURATE", "INACCURATE", "ANALYSIS")
    return {
        "question": "<image>\nDescribe the image.",
        "response": said,
        "image": f"COCO_val2014_{number:012d}.jpg",
        "annotations": [
            {"start": start, "end": end, "text": said[start:end], "label": label}
            for start, end, label in zip([0, *ends], ends, labels, strict=False)
        ],
    }


MHAL_DETECT = StandIn(
    make=MHalDetect,
    file="val_raw.json",
    layout="array",
    rows=[_described(number) for number in range(3)],
    pictures=[f"val2014/COCO_val2014_{number:012d}.jpg" for number in (0, 1, 2, 3, 4, 41)],
    texts=[("question",), ("response",)],
    choices=[("annotations", 0, "label")],
    images=[("image",)],
    unique=False,
    others={"train_raw.json": [_described(number) for number in (2, 3, 4, 41)]},
)

STAND_INS = (
    POPE_,
    REPOPE_,
    AMBER_,
    AMBER_TRUTHS,
    HALLUSIONBENCH,
    MMFAKEBENCH,
    NLVR_,
    CHALLENGE_HALLUCINATION,
    CHALLENGE_FACTUALITY,
    MHALUBENCH,
    VERITE_,
    SUGAR_CREPE,
    HALOQUEST,
    NATURALBENCH,
    MFC_BENCH,
    POPE_GQA,
    POPE_V2,
    VSR_,
    VALSE_,
    MHAL_DETECT,
)
