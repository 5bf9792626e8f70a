"""The dashboard as a folder of files that opens without a server: `hkdbench dashboard --export DIR`."""
