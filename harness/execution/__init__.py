"""Runs what the store lacks: here, or on a Ray cluster; from a plan to a record."""
