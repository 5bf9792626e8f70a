"""A store in one file: `pack` writes it and makes a folder of it again, `archive` reads it in place."""
