"""heterobench: published comparisons of learning on unevenly split data, run again, fairly."""

__version__ = "0.1.0"
