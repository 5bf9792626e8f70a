"""What a benchmark must satisfy before methods compete on it, and warnings for its author.

`hkdbench check-benchmark NAME` runs `check`; a plugin's own pytest can too:

    def test_my_benchmark():
        assert_sound(MyBenchmark(data_dir=...))

The level of a finding: `fail`, it must change (its text says how); `warn`, its author should know; `ok`, with figures.
"""

from __future__ import annotations

import math
import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from harness.api import Benchmark, DataError, Example, Figures, Scorer, Split
from harness.data import leakage
from harness.data.dataset import Dataset
from harness.data.example_checks import faults
from harness.errors import first_line
from harness.evaluation import controls
from harness.evaluation.scoring import answer
from harness.record import Interval
from harness.stats import inference
from harness.store import Store

IMAGES = 200
"""The number of images per split that are opened, evenly spaced."""
UNSCORED: tuple[Split, ...] = ("train", "pool")
"""The splits that are only learned from."""
SLOW_LOADING, SLOW_IMAGE = 0.25, 50.0
"""Milliseconds per example (POPE's 9,000 in 2 s) and per image above which there is a warning."""

Level = Literal["ok", "warn", "fail"]
Splits = Mapping[Split, Sequence[Example]]


class Finding(BaseModel):
    """The result of one check."""

    model_config = ConfigDict(frozen=True)

    check: str
    level: Level
    text: str


def check(benchmark: Benchmark, store: Store | None = None) -> list[Finding]:
    """All checks; later ones build on earlier ones. `store`: may have controls to cite.

    If a split's examples can't be read, the later checks are left out.
    """
    findings = list(_attributes(benchmark))
    splits: dict[Split, list[Example]] = {}
    for split in _splits_of(benchmark):
        examples, more = _loaded(benchmark, split)
        findings += more
        if examples is not None:
            splits[split] = examples
    if not splits or any(f.level == "fail" for f in findings):
        return findings
    for step in (_groups, _balance, _texts, _images, _pickled, _scoring, _shared):
        findings += step(benchmark, splits)
    if store is not None:
        findings += [
            Finding(check="controls", level="warn", text=line) for line in controls.flags(store, benchmark.name)
        ]
    return findings


def assert_sound(benchmark: Benchmark) -> None:
    """Raise `AssertionError` that says what must change if a check fails."""
    failed = [f"{f.check}: {f.text}" for f in check(benchmark) if f.level == "fail"]
    assert not failed, "\n".join(failed)


def to_text(name: str, findings: Sequence[Finding]) -> str:
    """The findings as text; at the end what must change."""
    lines = [f"{f.level:4} {f.check:10} {f.text}" for f in findings]
    failed = [f for f in findings if f.level == "fail"]
    warned = sum(f.level == "warn" for f in findings)
    if not failed:
        return "\n".join([*lines, "", f"{name} is sound" + (f"; {warned} warnings to look at" if warned else "")])
    changes = [f"  {k}. {f.check}: {f.text}" for k, f in enumerate(failed, 1)]
    return "\n".join([*lines, "", f"{name} must change:", *changes])


def _fail(check: str, text: str) -> Finding:
    return Finding(check=check, level="fail", text=text)


def _warn(check: str, text: str) -> Finding:
    return Finding(check=check, level="warn", text=text)


def _ok(check: str, text: str) -> Finding:
    return Finding(check=check, level="ok", text=text)


# -------------------------------------------------------------------------------- the class itself


def _attributes(benchmark: Benchmark) -> Iterator[Finding]:
    cls = type(benchmark)
    wrong = [
        f"{key} is {getattr(cls, key, None)!r}, expected a non-empty string"
        for key in ("name", "revision", "licence", "citation")
        if not isinstance(getattr(cls, key, None), str) or not getattr(cls, key).strip()
    ]
    if getattr(cls, "task", None) not in ("hallucination", "factuality"):
        wrong.append(f"task is {getattr(cls, 'task', None)!r}, expected 'hallucination' or 'factuality'")
    unknown = [split for split in benchmark.splits if split not in get_args(Split)]
    if unknown or not benchmark.splits or len(set(benchmark.splits)) < len(benchmark.splits):
        wrong.append(f"splits are {benchmark.splits!r}, expected some of {', '.join(get_args(Split))}, each once")
    yield from (_fail("class", text) for text in wrong)
    if not wrong:
        yield _ok("class", f"{benchmark.name}: {cls.task}, revision {cls.revision}, {cls.licence}")
    if cls.needs_data_dir and not cls.homepage:
        yield _warn("class", "it reads published files, but has no homepage that says where to get them")
    if not (cls.__doc__ or "").strip():
        yield _warn("class", "it has no docstring: `hkdbench list benchmarks` shows no summary")
    if not set(benchmark.splits) & {"test", "ood", "validation"}:
        yield _fail("class", f"splits are {benchmark.splits!r}: none of them is scored; add a test split")
    if not {"train", "validation"} <= set(benchmark.splits):
        what = "zero_shot, imported answers and runs that learn elsewhere (train_on)"
        yield _warn("class", f"no train and validation split: only {what} can be scored")


def _splits_of(benchmark: Benchmark) -> list[Split]:
    return [split for split in benchmark.splits if split in get_args(Split)]


def _loaded(benchmark: Benchmark, split: Split) -> tuple[list[Example] | None, list[Finding]]:
    """The examples of a split (None if they aren't usable), and the findings."""
    clock = time.perf_counter()
    try:
        examples = list(benchmark.load(split))
        seconds = time.perf_counter() - clock
        again = list(benchmark.load(split))
    except DataError as error:
        return None, [_fail("load", f"{split}: {first_line(error)}")]
    except Exception as error:
        reason = (
            f"{split}: load() failed with {type(error).__name__}: {first_line(error)}; raise DataError with the file"
        )
        return None, [_fail("load", f"{reason} and the line")]
    if not examples and split == "pool":
        return None, [_ok("load", "pool: no examples with these settings")]
    if not examples:
        return None, [_fail("load", f"{split}: no examples; leave the split out of `splits`, or yield some")]
    wrong = _schema(split, examples, golds=split != "pool" or benchmark.pool_has_golds)
    if wrong:
        return None, wrong
    findings = []
    if [_key(e) for e in examples] != [_key(e) for e in again]:
        findings.append(_fail("load", f"{split}: a second load() gives different examples or another order; seed it"))
    each = 1000 * seconds / len(examples)
    text = f"{split}: {len(examples)} examples in {seconds:.2f} s ({each:.2f} ms each)"
    slow = each > SLOW_LOADING and seconds > 1
    return examples, [
        *findings,
        (_warn if slow else _ok)("load", text + ("; read or draw images lazily" if slow else "")),
    ]


def _key(e: Example) -> tuple[object, ...]:
    return e.id, e.group, e.question, e.claim, e.context, e.options, e.gold, e.category


def _schema(split: Split, examples: Sequence[Example], golds: bool) -> list[Finding]:
    """Wrong types and ids: the first example with each kind of mistake, and how many have it."""
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    for number, e in enumerate(examples):
        if not isinstance(e, Example):
            wrong[f"a {type(e).__name__}, expected an Example"].append(f"number {number}")
            continue
        for fault in faults(e, golds):
            wrong[fault].append(repr(e.id))
        for key in ("id", "group", "category", "source"):
            if isinstance(value := getattr(e, key), str) and not value.strip():
                wrong[f"{key} is empty"].append(repr(e.id))
        if not f"{e.question}{e.claim}".strip():
            wrong["it has neither question nor claim"].append(repr(e.id))
    found = [_fail("schema", f"{split}: example {ids[0]}: {what}{_more(ids)}") for what, ids in wrong.items()]
    twice = [id_ for id_, count in Counter(e.id for e in examples if isinstance(e, Example)).items() if count > 1]
    if twice:
        found.append(_fail("ids", f"{split}: id {twice[0]!r} occurs twice{_more(twice)}; ids are unique in a split"))
    return found


def _more(ids: Sequence[object]) -> str:
    return f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""


# ------------------------------------------------------------------------------------- the examples


def _groups(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    home: dict[str, Split] = {}
    torn: dict[str, str] = {}
    for split, examples in splits.items():
        sizes = Counter(e.group for e in examples)
        text = f"{split}: {len(sizes)} groups of {min(sizes.values())} to {max(sizes.values())} examples"
        text += f", median {median(sizes.values()):g}"
        yield (_ok if len(sizes) > 1 else _warn)(
            "groups", text + ("" if len(sizes) > 1 else ": no interval is possible")
        )
        owners: dict[object, set[str]] = defaultdict(set)
        for e in examples:
            for image in e.images:
                if isinstance(image, Path | bytes):
                    owners[image].add(e.group)
        if shared := [sorted(owned) for owned in owners.values() if len(owned) > 1]:
            text = f"{split}: groups {shared[0][0]!r} and {shared[0][1]!r} have one image{_more(shared)}"
            yield _warn("groups", f"{text}: put all examples about an image in one group")
        for group in sizes:
            if home.setdefault(group, split) != split:
                torn[group] = f"{home[group]} and {split}"
    if torn:
        group, where = next(iter(torn.items()))
        yield _fail("groups", f"group {group!r} is in {where}{_more(list(torn))}: put each group in one split only")


def _balance(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    for split, examples in splits.items():
        if split == "pool" and not benchmark.pool_has_golds:
            continue
        places = Counter(e.known_gold for e in examples)
        same = len({e.options for e in examples}) == 1
        names = [f"{examples[0].options[k] if same else f'place {k}'} {n}" for k, n in sorted(places.items())]
        text = f"{split}: golds {', '.join(names)}"
        widest = max(len(e.options) for e in examples)
        if never := [k for k in range(widest) if k not in places]:
            yield _warn("balance", f"{split}: no gold at position {', '.join(map(str, never))}")
        chance = float(np.mean([1 / len(e.options) for e in examples]))
        most = max(places, key=lambda k: places[k], default=0)
        said = "" if split in UNSCORED else controls.flag("majority", _share_right(examples, most), chance, None)
        if said or not never:
            yield (_warn if said else _ok)("balance", text + (f"; this constant answer is {said}" if said else ""))


def _share_right(examples: Sequence[Example], place: int) -> Interval:
    """The accuracy of always choosing one position, with its interval over groups."""
    right_n1 = np.asarray([[e.gold == place] for e in examples], dtype=np.float64)
    return inference.mean_intervals(right_n1, [e.group for e in examples])[0]


def _texts(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    lengths = sorted((len(e.prompt()), e.id) for examples in splits.values() for e in examples)
    yield _ok("prompts", f"{lengths[0][0]} to {lengths[-1][0]} characters, median {lengths[len(lengths) // 2][0]}")
    if lengths[-1][0] > 20_000:
        yield _warn("prompts", f"example {lengths[-1][1]!r} has {lengths[-1][0]} characters, too many for most models")


def _images(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    for split, examples in splits.items():
        files = [(e.id, image) for e in examples for image in e.images if isinstance(image, Path)]
        missing = {id_: path for id_, path in files if not path.is_file()}
        for id_, path in list(missing.items())[:1]:
            text = f"{split}: images of {len(missing)} of {len(examples)} examples are missing, first {path} of {id_!r}"
            yield _fail("images", f"{text}; check --data-dir")
        there = [e for e in examples if e.id not in missing]
        sample = there[:: max(1, len(there) // IMAGES)][:IMAGES]
        sizes: Counter[tuple[int, int]] = Counter()
        clock = time.perf_counter()
        for e in sample:
            try:
                sizes[e.load_image().size] += 1
            except DataError as error:
                yield _fail("images", f"{split}: {first_line(error)}")
            except Exception as error:
                yield _fail("images", f"{split}: the image of example {e.id!r} can't be drawn: {first_line(error)}")
        if not sizes:
            continue
        each = 1000 * (time.perf_counter() - clock) / len(sample)
        (width, height), _ = sizes.most_common(1)[0]
        text = f"{split}: {len(sample)} opened, {each:.1f} ms each, mostly {width} x {height} px"
        yield (_warn if each > SLOW_IMAGE else _ok)("images", text)


def _pickled(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    """Workers receive examples by pickle."""
    for split, examples in splits.items():
        try:
            pickle.dumps(list(examples[:20]))
        except Exception as error:
            text = f"{split}: examples can't be pickled ({first_line(error)}); make the image a frozen dataclass"
            yield _fail("pickle", f"{text} with __call__, not a lambda or an open file")


def _scoring(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    """Each protocol must accept any choices, and must not score wrong answers higher than right ones."""
    for name, scorer in benchmark.protocols().items():
        for split, examples in splits.items():
            asked = [e for e in examples if benchmark.asked(name, e)]
            if split in UNSCORED or not asked:
                continue
            try:
                right, wrong = (_scored(scorer, asked, shift) for shift in (0, 1))
            except Exception as error:
                text = f"protocol {name!r} fails on {split}: {type(error).__name__}: {first_line(error)}"
                yield _fail("protocols", text)
                continue
            odd = [
                key
                for figures in (right, wrong)
                for key, value in figures.items()
                if value is not None and not _finite(value)
            ]
            if odd or all(value is None for value in right.values()):
                yield _fail("protocols", f"protocol {name!r} on {split}: {odd[:1] or 'no figures'}: expected numbers")
            elif all(right[key] == wrong.get(key) for key in right):
                yield _warn("protocols", f"protocol {name!r} on {split}: all right and all wrong give the same figures")
            else:
                known = {key: value for key, value in right.items() if value is not None}
                shown = ", ".join(f"{key} {known[key]:.4g}" for key in list(known)[:4])
                yield _ok("protocols", f"{name} on {split}, all right: {shown}")


def _scored(scorer: Scorer, examples: Sequence[Example], shift: int) -> Figures:
    return scorer([answer(e, (e.known_gold + shift) % len(e.options), None) for e in examples])


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shared(benchmark: Benchmark, splits: Splits) -> Iterator[Finding]:
    """Exact duplicates between the splits (near ones: `hkdbench leaks`); of texts also where images are missing."""
    if len(splits) < 2:
        left_out = [split for split in benchmark.splits if split not in splits]
        why = f"{', '.join(left_out)} couldn't be read" if left_out else "there is one split"
        yield _warn("leaks", f"not looked for: {why}; `hkdbench leaks` compares with other benchmarks")
        return
    files = {one for examples in splits.values() for e in examples for one in e.images if isinstance(one, Path)}
    unseen = sum(not path.is_file() for path in files)
    found = leakage.exact(
        Dataset(benchmark, {split: list(examples) for split, examples in splits.items()}, needs_images=False)
    )
    for pair, counts in found.items():
        first, second = pair.split("/")
        size = sum(len(examples) for split, examples in splits.items() if split == second)
        if counts.get("image") or counts.get("both"):
            text = f"{counts.get('image', 0)} examples of {second} have an image of {first}"
            text += f", {counts.get('both', 0)} of them with the same text" if counts.get("both") else ""
            yield _fail("leaks", f"{text}; split by what examples share (`hkdbench leaks` shows them)")
        elif counts.get("text"):
            text = f"{counts['text']} examples of {second} have a text of {first} (of {size})"
            yield _warn("leaks", f"{text}: harmless for templates, a leak for captions (`hkdbench leaks` shows them)")
    if unseen:
        yield _warn("leaks", f"{unseen} of {len(files)} images were not compared: they are missing")
    elif not found:
        yield _ok("leaks", "no image or text is in two splits (near duplicates: `hkdbench leaks`)")
