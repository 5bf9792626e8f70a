"""The generated world and its two benchmarks."""
