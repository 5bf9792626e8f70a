"""Submitted runs: packed, checked, verified, added to a store."""
