"""The first hour: what is missing on a machine (`doctor`), and a first comparison of one's own (`first_suite`)."""
