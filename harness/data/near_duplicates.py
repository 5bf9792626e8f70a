"""Nearly equal texts and images: MinHash over words, difference hashes over pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JACCARD = 0.8
"""Texts are near duplicates from this fraction of common word runs on."""
BITS = 3
"""The largest number of different bits between two images' difference hashes."""
RISE = 2
"""How much brighter than its neighbour a pixel must be to set a bit."""
SIDE = 16
"""The side of a thumbnail in pixels."""
_PAIRS = 1 << 20
"""Candidate pairs compared at a time: limits the memory to some 100 MB."""

Hashes = NDArray[np.uint64]

_ODD, _SHIFT = np.random.default_rng(0).integers(0, 2**63, (2, 32), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 6.0, 48
"""The largest differences between two thumbnails, of 255."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The stored data of an image for the search: its difference hash and its thumbnail (16, 16, 3)."""

    hash: int
    thumbnail: NDArray[np.uint8]


def _candidates(bands_nb: Hashes, owner_n: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of rows (a before b) of different splits that agree in a band, in blocks; a pair may occur twice."""
    for band_n in bands_nb.T:
        order = np.argsort(band_n, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(band_n[order]) != 0))
        for bucket in np.split(order, starts[1:]):
            if len(bucket) < 2 or len(set(owner_n[bucket].tolist())) < 2:
                continue
            step = max(1, _PAIRS // len(bucket))
            for start in range(0, len(bucket), step):
                a, b = np.meshgrid(bucket[start : start + step], bucket, indexing="ij")
                keep = owner_n[a] < owner_n[b]
                if keep.any():
                    yield a[keep], b[keep]


def _runs(text: str) -> frozenset[str]:
    words = ["^", "^", *text.split(), "$", "$"]  # so that the first and last words are in as many runs
    return frozenset(" ".join(words[k : k + 3]) for k in range(len(words) - 2))


def near_texts(texts: Sequence[str], owner_n: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Pairs of texts, not equal, whose runs of three words have a Jaccard index of `JACCARD` or more."""
    firsts: dict[tuple[str, int], int] = {}  # a text that a split repeats is compared once
    for index, text in enumerate(texts):
        firsts.setdefault((text, int(owner_n[index])), index)
    rows = np.asarray([i for (text, _), i in firsts.items() if len(text.split()) > 2], dtype=np.int64)
    if not len(rows):
        return
    copies: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        copies[text, int(owner_n[index])].append(index)
    bands_nb = np.stack([_minhash_bands(_runs(texts[i])) for i in rows])
    for a_n, b_n in _candidates(bands_nb, owner_n[rows]):
        for a, b in zip(rows[a_n].tolist(), rows[b_n].tolist(), strict=True):
            if texts[a] != texts[b] and _jaccard(texts[a], texts[b]) >= JACCARD:
                yield from ((a, copy) for copy in copies[texts[b], int(owner_n[b])])


def _jaccard(a: str, b: str) -> float:
    ours, theirs = _runs(a), _runs(b)
    return len(ours & theirs) / len(ours | theirs)


def _minhash_bands(runs: Iterable[str]) -> Hashes:
    """8 bands of 4 MinHash values each, (8,): two texts with Jaccard 0.8 agree in one of them with probability 98 %,
    with 0.9 99.99 %, with 0.3 6 %."""
    hashes_r = np.asarray([_hash64(run.encode()) for run in runs], dtype=np.uint64)
    lowest = ((hashes_r[:, None] * _ODD + _SHIFT) >> np.uint64(16)).min(0)
    return np.asarray([_hash64(part.tobytes()) for part in lowest.reshape(8, 4)], dtype=np.uint64)


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def dhash(image: Image.Image) -> int:
    """64 bits: whether the brightness rises between neighbours of a 9 x 8 px picture, row by row.

    By more than `RISE`: on a plain background the last digit of a mean is noise.
    """
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits((grey[:, 1:] > grey[:, :-1] + RISE).ravel())
    return int.from_bytes(bits.tobytes(), "big")


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """The image in 16 x 16 RGB cells, each the mean of its area."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def near_images(
    images: Sequence[str], prints: dict[str, Fingerprint], owner_n: NDArray[Any]
) -> Iterator[tuple[int, int]]:
    """Pairs of examples whose images are near duplicates but not equal."""
    places: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, key in enumerate(images):
        places[key, int(owner_n[index])].append(index)
    entries = list(places)
    owners = np.asarray([owner for _, owner in entries])
    hashes_n = np.asarray([prints[key].hash for key, _ in entries], dtype=np.uint64)
    thumbs_n = np.stack([prints[key].thumbnail for key, _ in entries])
    for a_n, b_n in _candidates(bands_of(hashes_n), owners):
        close = np.bitwise_count(hashes_n[a_n] ^ hashes_n[b_n]) <= BITS
        for a_part, b_part in _blocks(a_n[close], b_n[close], _PAIRS // (SIDE * SIDE)):
            alike = alike_thumbnails(thumbs_n[a_part], thumbs_n[b_part])
            for a, b in zip(a_part[alike].tolist(), b_part[alike].tolist(), strict=True):
                if entries[a][0] != entries[b][0]:
                    yield from ((places[entries[a]][0], copy) for copy in places[entries[b]])


def bands_of(hashes_n: Hashes) -> Hashes:
    """The four 16-bit quarters of each hash, (N, 4): two hashes within 3 bits agree in at least one."""
    return np.asarray(hashes_n[:, None] >> np.asarray([0, 16, 32, 48], dtype=np.uint64) & np.uint64(0xFFFF))


def _blocks(a_n: NDArray[Any], b_n: NDArray[Any], size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for start in range(0, len(a_n), size):
        yield a_n[start : start + size], b_n[start : start + size]


def alike_thumbnails(a_n: NDArray[np.uint8], b_n: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether thumbnails differ little on average and not much anywhere: (N, 16, 16, 3) twice -> (N,)."""
    apart = np.abs(a_n.astype(np.int16) - b_n).reshape(len(a_n), -1)
    return np.asarray((apart.mean(1) <= MEAN_DIFFERENCE) & (apart.max(1, initial=0) <= LARGEST_DIFFERENCE))
