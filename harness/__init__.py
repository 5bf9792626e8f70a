"""hkdbench: distillation methods for small vision-language models, compared at equal budgets.

`open_store` reads results in Python, see docs/python_api.md. Plug-ins import `harness.api`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.analysis.results import Results

__all__ = ["__version__", "open_store"]

__version__ = "0.2.0"


def open_store(address: str | Path | None = None) -> Results:
    """The results in a store, as pandas frames; neither torch nor ray is loaded.

    `address` is a folder, `s3://bucket/prefix` or a packed `*.tar.xz`; default: `HKDBENCH_STORE`, else `./runs`.
    Raises `harness.errors.StoreError` if there is no store at this address.
    """
    from harness.analysis.results import Results  # here, so that `import harness` loads nothing
    from harness.store import Store

    store = Store(address)
    store.check_exists()
    return Results(store)
