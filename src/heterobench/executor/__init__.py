"""How the local work of a cohort is computed; every executor gives the same answer."""
