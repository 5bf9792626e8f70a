"""What several benchmarks read and score alike."""
