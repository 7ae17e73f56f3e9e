"""The commands of ``python -m metatensor_jax``."""
