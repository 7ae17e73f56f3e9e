"""Running: plans and arrays in, arrays out. No labels."""
