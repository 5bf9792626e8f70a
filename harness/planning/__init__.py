"""From a configuration to a checked and priced plan."""
