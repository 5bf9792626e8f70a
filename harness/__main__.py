"""`python -m harness` is `hkdbench`."""

from harness.cli import main

main()
