"""Functions for reading and scoring that several benchmarks share."""
