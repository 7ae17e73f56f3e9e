"""Planning: labels, and the shapes and dtypes of arrays, in; plans out. No arrays."""
