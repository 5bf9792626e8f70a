"""Task 2 of the challenge: is the claim true, given image and context?

Files as in `benchmarks.challenge.files`; the choices are four verdicts, and `context` may be empty. Tested on generated
files in the published layout, not on the published files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmarks.challenge.files import Challenge, read
from benchmarks.shared.annotations import text
from harness.api import DataError, Example, Split

VERDICTS = ("True", "False", "Partially True", "Not Verifiable")


@dataclass(frozen=True)
class ChallengeFactuality(Challenge):
    """Claims with a context and four verdicts, always in the order of the site; `group` is the image."""

    name: ClassVar[str] = "challenge_factuality"
    task: ClassVar[Literal["hallucination", "factuality"]] = "factuality"
    revision: ClassVar[str] = "1"
    folder: ClassVar[str] = "FactChecking"

    def load(self, split: Split) -> Iterator[Example]:
        """The examples of a split in the order of its file; the category is the verdict."""
        verdicts = {verdict.lower(): k for k, verdict in enumerate(VERDICTS)}
        for item in read(self, split, "claim"):
            if sorted(map(str.lower, item.options)) != sorted(verdicts) or len(item.golds) != 1:
                raise DataError(f"{item.where}: choices are {', '.join(item.options)}; expected {', '.join(VERDICTS)}")
            gold = verdicts[item.options[item.golds[0]].lower()]
            yield Example(
                id=item.id,
                group=item.image.name,
                image=item.image,
                question=text(item.row, "question", item.where),
                claim=text(item.row, "claim", item.where),
                context=text(item.row, "context", item.where, blank=True),
                options=VERDICTS,
                gold=gold,
                category=VERDICTS[gold],
                source=self.name,
            )
