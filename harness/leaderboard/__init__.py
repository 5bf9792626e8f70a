"""From stored runs to ranked rows with intervals. It doesn't need the trainer."""
