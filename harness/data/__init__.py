"""Checked examples, their order in training, controls without images, leaks between splits."""
