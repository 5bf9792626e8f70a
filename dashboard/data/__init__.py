"""What pages show, as plain values and data frames."""
