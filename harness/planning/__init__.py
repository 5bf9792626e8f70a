"""From a configuration to a checked plan with estimated costs."""
