"""The types: labels, blocks, maps, and what they are made of."""
