"""From stored runs to ranked rows with intervals. It needs no trainer."""
