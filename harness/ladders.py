"""Ladders: named rungs, largest model first. `tiny` ships with the package; others are TOML files."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from harness.config import RungConfig, Settings, parse, read_toml
from harness.errors import ConfigError, near

TINY = Path(__file__).parent / "weights" / "tiny"


class LadderConfig(Settings):
    """A ladder's file: `name` and `[[rungs]]`, largest first; a relative folder counts from the file."""

    name: str
    rungs: tuple[RungConfig, ...] = Field(min_length=1)


def names() -> list[str]:
    """The ladders that can be named without a file."""
    return ["tiny"]


def find(ladder: str | tuple[RungConfig, ...]) -> LadderConfig:
    """The ladder of a name, a TOML file's path, or rungs as they are. Raises `ConfigError`."""
    if not isinstance(ladder, str):
        found = LadderConfig(name="+".join(rung.name for rung in ladder), rungs=ladder)
    elif ladder == "tiny":
        found = LadderConfig(
            name="tiny", rungs=tuple(RungConfig(name=name, model=str(TINY / name)) for name in ("L", "M", "S"))
        )
    elif ladder.endswith(".toml"):
        path = Path(ladder)
        raw = parse(LadderConfig, read_toml(path), str(path))
        found = raw.model_copy(update={"rungs": tuple(_beside(rung, path) for rung in raw.rungs)})
    else:
        raise ConfigError(f"unknown ladder {ladder!r}: {near(ladder, names())}; or give a ladder's .toml file")
    seen = [rung.name for rung in found.rungs]
    if len(set(seen)) < len(seen):
        raise ConfigError(f"ladder {found.name!r}: two rungs of one name among {', '.join(seen)}")
    return found


def _beside(rung: RungConfig, file: Path) -> RungConfig:
    folder = file.parent / rung.model
    return rung.model_copy(update={"model": str(folder.resolve())}) if folder.is_dir() else rung
