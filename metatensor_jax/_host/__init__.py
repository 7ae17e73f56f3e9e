"""NumPy on integers: rows of labels as keys, look-up, runs."""
