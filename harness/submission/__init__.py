"""Runs from elsewhere: packed, checked, verified, taken in."""
