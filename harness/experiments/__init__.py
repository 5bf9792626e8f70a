"""Experiments with many runs: sweeps of settings, ablations of a method."""
