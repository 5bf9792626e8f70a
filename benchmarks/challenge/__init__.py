"""The challenge's two tasks, from the organisers' files."""
