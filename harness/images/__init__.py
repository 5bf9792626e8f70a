"""Images as every part of the project sees them: one way to read a picture, one hash of its content."""
