"""For authors of methods and benchmarks: checks, a template to start from, documentation pages."""
