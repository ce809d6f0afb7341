"""What all forms of a table say alike: headings, and what stands under the title."""

from __future__ import annotations

from heterobench.report.table import Column, Table

ARROW = {"max": "↑", "min": "↓"}
BETTER = {"max": "higher is better", "min": "lower is better"}


def shared(table: Table) -> bool:
    """True where all columns have one unit and direction: said once, above the table."""
    return len({(column.unit, column.direction) for column in table.columns}) == 1


def heading(table: Table, column: Column) -> str:
    """Title of a column, with its unit and an arrow to what is better unless all columns share them."""
    if shared(table):
        return column.title
    unit = f" ({column.unit})" if column.unit else ""
    return column.title + unit + (f" {ARROW[column.direction]}" if column.direction else "")


def about(table: Table) -> str:
    """What stands under the title."""
    direction = BETTER.get(table.columns[0].direction, "") if shared(table) and not table.extra else ""
    return "; ".join(filter(None, (table.about, direction)))
