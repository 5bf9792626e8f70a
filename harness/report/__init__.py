"""Tables and texts for people: terminal, Markdown, LaTeX, HTML."""
