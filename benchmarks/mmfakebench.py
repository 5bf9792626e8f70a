"""MMFakeBench (Liu et al. 2025): is a piece of news (image and text) true, and if not, what is wrong with it?

Published layout under `data_dir`: `MMFakeBench_{part}.json` beside the unpacked `MMFakeBench_{part}.zip` (the Hugging
Face repository), or `MMFakeBench_{part}/source/MMFakeBench_{part}.json` (the README), where `data_dir` may also be
`MMFakeBench_{part}` itself. The file is an array of objects with image_path, text, text_source, image_source,
gt_answers and fake_cls. image_path begins with a slash and is relative to the folder that has `real` and `fake`.
gt_answers is "True" or "Fake", in the README's example in a list. The items have no ids: the index in the
file is used, from 0.

Sources: README and eval/ of liuxuannan/MMFakeBench at 240d879; for the repository on the hub its card (two
configurations, `MMFakeBench_val.json` and `MMFakeBench_test.json`) and public loaders that were run on its files.
Access to the files is restricted; they were not available.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from benchmarks.shared.annotations import choice, data_folder, image_in, items, listed, shown, text
from benchmarks.shared.yes_no import macro_figures, picked, without_signs
from harness.api import Answer, Benchmark, DataError, Example, Figures, Scorer, Split

CLASSES = ("original", "textual_veracity_distortion", "visual_veracity_distortion", "mismatch")
"""The published labels, in the order of the options."""
OPTIONS = (
    "Original: image and text are true and agree",
    "The text is false",
    "The image is false",
    "Image and text don't match",
)
QUESTION = "Is this news, an image with a text, true? If not, what is wrong with it?"


@dataclass(frozen=True)
class MMFakeBench(Benchmark):
    """Mixed-source misinformation, four classes; `group` is the image, category the published class."""

    part: Literal["test", "val"] = "test"

    name: ClassVar[str] = "mmfakebench"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 10000}
    revision: ClassVar[str] = "mmfakebench@240d879-1"
    licence: ClassVar[str] = "CC-BY-4.0; access on conditions (non-commercial research, no copies passed on)"
    citation: ClassVar[str] = (
        "Xuannan Liu et al. MMFakeBench: A Mixed-Source Multimodal Misinformation Detection Benchmark for LVLMs. "
        "ICLR 2025."
    )
    homepage: ClassVar[str] = "https://github.com/liuxuannan/MMFakeBench"
    obtain: ClassVar[str] = (
        "request it at https://huggingface.co/datasets/liuxuannan/MMFakeBench, and unpack MMFakeBench_test.zip "
        "(10,000 items) or MMFakeBench_val.zip (1,000: --set benchmark_settings.part=val) beside the JSON files"
    )
    needs_data_dir: ClassVar[bool] = True

    def load(self, split: Split) -> Sequence[Example]:
        """The items of the part in the published order."""
        folder, name = data_folder(self, split), f"MMFakeBench_{self.part}"
        places = [folder / name / name, folder / name, folder]  # unpacking a zip may add a level
        files = [folder / f"{name}.json", *(place / "source" / f"{name}.json" for place in places)]
        path = next((file for file in files if file.is_file()), files[0])
        expected = path.parent.parent if path.parent.name == "source" else folder / name
        root = next((place for place in places if (place / "real").is_dir() or (place / "fake").is_dir()), expected)
        return [_example(str(k), root, where, row) for k, (where, row) in enumerate(items(path))]

    def protocols(self) -> Mapping[str, Scorer]:
        return {"official": official}


def _example(id_: str, root: Path, where: str, row: Mapping[str, object]) -> Example:
    label = choice(row, "fake_cls", where, CLASSES)
    truth = row.get("gt_answers")
    if isinstance(truth, list):
        truth = listed(row, "gt_answers", where, least=1)[0]
    if truth != ("True" if label == "original" else "Fake"):
        raise DataError(
            f"{where}: gt_answers is {shown(row.get('gt_answers'))} but fake_cls {label!r}: one of them is wrong"
        )
    name = text(row, "image_path", where).removeprefix("/")
    return Example(
        id=id_,
        group=name,
        image=image_in(root, name, where),
        question=QUESTION,
        claim=" ".join(text(row, "text", where).split()),
        options=OPTIONS,
        gold=CLASSES.index(label),
        category=label,
        source=f"mmfakebench/{name.split('/')[1] if name.count('/') > 1 else ''}",
        claim_label="Text",
    )


# ------------------------------------------------------------------------------------------- protocols

PHRASES = (
    ("finish text refutes", 1),
    ("finish image refutes", 2),
    ("finish mismatch", 3),
    ("finish original", 0),
    ("finish match", 0),
)


def official(answers: Sequence[Answer]) -> Figures:
    """As MMFakeBench's main_eval_only.py: four classes (mlc, mcl), and original against the rest (bina). Fractions.

    A free text is classified by the first of the phrases "Finish[TEXT REFUTES]", "Finish[IMAGE REFUTES]",
    "Finish[MISMATCH]", "Finish[ORIGINAL]" or "Finish[MATCH]", in this order, that it contains (see `label`). If it has
    none, the original stops with an UnboundLocalError instead of counting the label "X"; here it is
    "X": wrong, and X_label_num is their number. The names are the original's.
    """
    if not answers:
        raise DataError("mmfakebench: no answers to score")
    gold = [a.gold for a in answers]
    said = [a.chosen if picked(a) else label(a.text) for a in answers]
    four = macro_figures(gold, said, 4)
    binary = macro_figures([min(g, 1) for g in gold], [None if s is None else min(s, 1) for s in said], 2)
    return {
        "bina_ACC": binary["accuracy"],
        "bina_RECALL": binary["recall"],
        "bina_F1": binary["f1_score"],
        "bina_Precision": binary["precision"],
        "mlc_ACC": four["accuracy"],
        "mlc_RECALL": four["recall"],
        "mcl_F1": four["f1_score"],
        "mcl_precision": four["precision"],
        "X_label_num": sum(s is None for s in said),
    }


def label(text: str) -> int | None:
    """The class that a free text names, or None: whole words, ignoring punctuation, articles and case.

    Punctuation is removed by `without_signs`; a "." is removed unless a digit follows it. So "Finish [MISMATCH]" is
    found; but a bracket after a space elsewhere in the text joins "Finish[MISMATCH" into one word, which isn't.
    """
    spaced = without_signs(text.replace("\n", " ").replace("\t", " ").strip())
    lower = re.sub(r"\.(?!\d)", "", spaced, count=32).lower()
    words = " ".join(word for word in lower.split() if word not in ("a", "an", "the"))
    for phrase, found in PHRASES:
        if re.search(rf"\b{phrase}\b", words):
            return found
    return None
