"""Metrics, bootstrap intervals, differences, ranks, power."""
