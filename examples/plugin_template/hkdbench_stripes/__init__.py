"""Striped pictures, and distillation from a teacher who is sure."""
