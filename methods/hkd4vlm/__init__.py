"""HKD4VLM, reconstructed from its abstract: PPOD, TCRD, MSI."""
