"""Verbs for the first hour: `init`, `doctor`."""
