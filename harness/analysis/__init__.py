"""Results of a store for notebooks and scripts: `harness.open_store`."""
