"""Executes the runs that the store lacks, on this machine or on a Ray cluster: from a plan to a record."""
