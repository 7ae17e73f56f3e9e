"""Exchange with other programs: each module here needs one that is an extra."""
