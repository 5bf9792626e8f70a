"""Buckets and other places behind an address, for stores and for published files: how they are opened, their errors."""
