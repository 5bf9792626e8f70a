"""The data of the pages, as plain values and data frames."""
