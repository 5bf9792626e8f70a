"""Ladders, loading, encoding and scoring of vision-language models; the tiny ladder."""
