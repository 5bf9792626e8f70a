"""Many runs with a question: sweeps of settings, ablations of a method."""
