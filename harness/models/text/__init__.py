"""What a model reads as text: prompts, options as tokens, control tokens in a benchmark's texts."""
