"""Opens the filesystem of an address, like `s3://bucket/prefix` or `hf://datasets/OWNER/NAME`."""

from __future__ import annotations

import os
from typing import Any

ATTEMPTS = 2
"""s3fs's own attempts; each is several of botocore's. The defaults, five of five, took 40 s for one request."""
S3_OPTIONS = {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 3}}}


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of an address, and the address within it. Raises `ValueError` or `ImportError` if none
    supports it."""
    from fsspec.core import url_to_fs

    fewer = S3_OPTIONS if url.startswith("s3://") and "AWS_MAX_ATTEMPTS" not in os.environ else {}
    fs, root = url_to_fs(url, use_listings_cache=False, **fewer)  # other processes write there too
    if is_s3(fs):
        fs.retries = ATTEMPTS
    return fs, root


def is_s3(fs: Any) -> bool:
    """Whether it is S3 or a compatible service."""
    return "s3" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def how_to_install(url: str) -> str:
    """What to install for an address that no filesystem supports, for the end of an error's text."""
    return "; `pip install hkdbench[s3]` installs it" if url.startswith("s3") else ""
