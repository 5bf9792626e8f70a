"""What tests import from each other: a command's answer, and where published data lie. Fixtures are in conftest.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from PIL import Image

from harness.config import RunConfig, RungConfig

if TYPE_CHECKING:
    from harness.planning.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
SHARED = Path(os.environ.get("HKDBENCH_SHARED", ROOT.parent / "shared"))
"""Published data sets and the golden figures of their own scoring scripts."""


def lacking(told: str) -> NoReturn:
    """The test can't run here, and says why: it is skipped, but CI must have what it needs, and fails."""
    if os.environ.get("CI"):
        pytest.fail(f"{told} (CI must have it)")
    pytest.skip(told)


def present(path: Path) -> Path:
    if not path.exists():
        lacking(f"{path} isn't here: set HKDBENCH_SHARED to the folder that holds it")
    return path


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Cli = Callable[..., Said]
ToyConfig = Callable[..., RunConfig]
ToyPlan = Callable[..., "Plan"]
"""`toy_config` and `toy_plan` of conftest.py: a method, and changes to a small run on the toy benchmark."""


def rung(folder: Path) -> RungConfig:
    return RungConfig(name="S", model=str(folder))


def picture(colour: str) -> Callable[[], Image.Image]:
    return lambda: Image.new("RGB", (64, 64), colour)
