"""The order in which training sees examples, and prefetching in this order."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from harness.api import Example
from harness.data.dataset import T


def batch_at(
    examples: Sequence[Example],
    seed: int,
    position: int,
    size: int,
    group_size: int = 1,
    pictured: Sequence[Example] | None = None,
) -> list[tuple[int, Example]]:
    """The `size` examples from `position` on, each with its position.

    The order consists of reshuffled epochs and depends only on the seed and the position: every method
    sees the same examples in the same order, a resumed run continues where it was, and the workers divide one
    global batch. Up to `group_size` questions about one image are adjacent; `pictured` are the
    same examples with their own images, if a control has removed these.
    """
    positions = range(position, position + size)
    orders = {
        epoch: _order(pictured or examples, seed, epoch, group_size)
        for epoch in {p // len(examples) for p in positions}
    }
    return [(p, examples[orders[p // len(examples)][p % len(examples)]]) for p in positions]


def share_of(batch: Sequence[T], rank: int, world: int, group_size: int = 1) -> Sequence[T]:
    """A rank's share of a global batch: each `world`-th example, or a contiguous part if images' questions are
    adjacent."""
    if group_size == 1:
        return batch[rank::world]
    return batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]


_orders: dict[tuple[int, int, int, int], tuple[Sequence[Example], list[int]]] = {}


def _order(examples: Sequence[Example], seed: int, epoch: int, group_size: int) -> list[int]:
    key = (id(examples), seed, epoch, group_size)
    known = _orders.get(key)
    if known is None or known[0] is not examples:
        if len(_orders) > 16:
            _orders.clear()
        rng = random.Random(f"order/{seed}/{epoch}")
        known = _orders[key] = examples, _shuffled(examples, group_size, rng)
    return known[1]


def _shuffled(examples: Sequence[Example], group_size: int, rng: random.Random) -> list[int]:
    """Every example's index once; up to `group_size` of one image are adjacent, in other combinations in each epoch."""
    if group_size == 1:
        return rng.sample(range(len(examples)), len(examples))
    image_groups = (rng.sample(group, len(group)) for group in by_image(examples))
    chunks = [group[at : at + group_size] for group in image_groups for at in range(0, len(group), group_size)]
    return [i for chunk in rng.sample(chunks, len(chunks)) for i in chunk]


def by_image(examples: Sequence[Example]) -> list[list[int]]:
    """The examples' indices by image, in the order in which the images first occur."""
    image_groups: dict[Hashable, list[int]] = {}
    for i, example in enumerate(examples):
        image_groups.setdefault(_image(example), []).append(i)
    return list(image_groups.values())


def _image(example: Example) -> Hashable:
    try:
        hash(example.images)
    except TypeError:  # a callable with unhashable fields
        return tuple(map(id, example.images))
    return example.images


class Prefetcher(Iterator[T]):
    """The results of `make` for each of `positions`, in order; the next one is made in a thread meanwhile.

    `begin` is called first, in the thread. An error of `make` is raised when its position is requested.
    """

    def __init__(self, make: Callable[[int], T], positions: Sequence[int], begin: Callable[[], object]) -> None:
        self.make, self.positions = make, iter(positions)
        self.thread = ThreadPoolExecutor(1, "hkdbench-data", begin)
        self.coming = self._submitted()

    def _submitted(self) -> Future[T] | None:
        for position in self.positions:
            return self.thread.submit(self.make, position)
        self.thread.shutdown(wait=False)
        return None

    def __next__(self) -> T:
        if self.coming is None:
            raise StopIteration
        found = self.coming.result()
        self.coming = self._submitted()
        return found
