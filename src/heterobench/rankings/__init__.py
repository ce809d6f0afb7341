"""Rankings of methods from a table of scores; what a score and a missing one mean is in `scores`.

A rule of aggregation is a choice of values (whether a task that separates all methods weighs more than one that
they tie on, whether one bad task may be made up for): several rules side by side show where they disagree, and
`stability` shows how far one of them hangs on a single task, seed or method.
"""
