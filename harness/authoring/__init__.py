"""For authors of methods and benchmarks: checks, a first file to start from, documentation pages."""
