"""One file per algorithm, discovered by its name; see `heterobench.registry`."""
