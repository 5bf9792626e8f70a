"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import ConfigError


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by a home folder. Raises `ConfigError` for the name of a user that isn't there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{str(path)!r}: nobody on this machine has this home folder; expected ~/FOLDER, or a path without ~"
        ) from None


def absolute(path: str | Path) -> Path:
    """The path from the root, without `~` and links. Raises `ConfigError`."""
    return expanded(path).resolve()


def cache_folder() -> Path:
    """The user's own folder for what is kept on this machine outside of a store: caches that may be deleted."""
    return expanded(os.environ.get("HKDBENCH_CACHE") or "~/.cache/hkdbench").absolute()
