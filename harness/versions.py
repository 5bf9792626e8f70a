"""Version numbers."""
