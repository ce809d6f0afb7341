"""The number in a cell, and its forms."""

from __future__ import annotations

from mutants.mutation import given, once

HERE = "recomputed/test_tables.py::"
ONE = HERE + "test_tables_of_one_metric"
SEVERAL = HERE + "test_tables_of_several_metrics"
DIFFERENCE = HERE + "test_the_table_of_differences"
COMPARISON = HERE + "test_the_comparison_over_scenarios"
FORMS = HERE + "test_every_form_shows_value_interval_bold_and_how_many_runs"
BOUNDS = HERE + "test_a_lower_bound_is_shown_as_one_in_every_form"
BOLD = "recomputed/test_aggregation.py::test_bold_is_the_best_and_who_cannot_be_told_from_it"

MUTATIONS = [
    once(
        "report/tables.py",
        "± is the deviation, under a note that says interval",
        '(row["high"] - row["low"]) / 2 * scale',
        'row["std"] * scale',
        ONE,
    ),
    once(
        "report/tables.py",
        "± is the whole width of the interval",
        '(row["high"] - row["low"]) / 2 * scale',
        '(row["high"] - row["low"]) * scale',
        ONE,
    ),
    once(
        "report/tables.py",
        "a bound is printed as a mean",
        'bound = math.isfinite(row["bound"])',
        "bound = False",
        SEVERAL,
    ),
    once(
        "report/tables.py",
        "the mean of those who got there, as a bound",
        '(row["bound"] if bound else row["mean"])',
        'row["mean"]',
        SEVERAL,
    ),
    once(
        "report/tables.py",
        "runs that are there count as runs with a value",
        'n_finite=row["n_finite"],',
        'n_finite=row["n"],',
        SEVERAL,
    ),
    once(
        "report/metrics.py",
        "1 MB is 2^20 bytes",
        'Metric("Sent up", "MB", 1e-6',
        'Metric("Sent up", "MB", 2**-20',
        SEVERAL,
    ),
    once(
        "report/metrics.py",
        "of worst clients the lowest is bold",
        '"client_accuracy_min": Metric("Worst client", "%", 100, "max")',
        '"client_accuracy_min": Metric("Worst client", "%", 100, "min")',
        BOLD,
    ),
    once(
        "report/metrics.py",
        "less spread is bold",
        '"client_accuracy_std": Metric("Std. dev.", "points", 100)',
        '"client_accuracy_std": Metric("Std. dev.", "points", 100, "min")',
        BOLD,
    ),
    once(
        "report/sections/results.py",
        "the table shows the last round",
        '"accuracy", title, "validation",',
        '"accuracy", title, "last",',
        ONE + "[accuracy]",
    ),
    once(
        "report/sections/last.py",
        "the table shows the selected round",
        '"last", "test_accuracy"',
        '"validation", "test_accuracy"',
        ONE + "[accuracy-last]",
    ),
    once(
        "report/sections/difference.py",
        "± is the whole width of the interval",
        "(high - low) / 2 * of.scale",
        "(high - low) * of.scale",
        DIFFERENCE,
    ),
    once(
        "report/sections/difference.py",
        "a star for every difference below zero",
        "if low > 0 or high < 0",
        "if low > 0 or low < 0",
        DIFFERENCE,
    ),
    once(
        "report/sections/comparison.py",
        "runs count alike instead of scenarios",
        "float(np.mean([row.mean() for row in finite]))",
        "float(np.concatenate(finite).mean())",
        COMPARISON,
    ),
    once(
        "report/differences.py",
        "won and lost change places",
        "int((ahead > 0).sum()), int((ahead == 0).sum()), int((ahead < 0).sum())",
        "int((ahead < 0).sum()), int((ahead == 0).sum()), int((ahead > 0).sum())",
        COMPARISON,
    ),
    once(
        "report/table.py",
        "numbers are rounded to one digit less",
        '.{column.digits}f}"\n    if float',
        '.{max(column.digits - 1, 0)}f}"\n    if float',
        FORMS,
    ),
    once("report/table.py", "a lower bound looks like a mean", 'f"> {text}" if cell.bound else text', "text", BOUNDS),
    once(
        "report/table.py",
        "k/n counts runs that are there",
        "if self.n_finite < self.n_expected",
        "if self.n < self.n_expected",
        BOUNDS,
    ),
    once(
        "report/latex.py",
        "LaTeX has no bold",
        '\\\\mathbf{{{text}}}$" if cell.bold',
        '\\\\mathbf{{{text}}}$" if False',
        FORMS,
    ),
    once("report/latex.py", "LaTeX does not say how many runs", "(cell.runs,) if cell.runs else ()", "()", FORMS),
    once("report/latex.py", "LaTeX has no intervals", "if half := spread(cell, column):", 'if half := "":', FORMS),
    once("report/render.py", "Markdown has no bold", 'f"**{text}**" if cell.bold else text', "text", FORMS),
    once("report/render.py", "Markdown loses the minus", 'text.replace("-", "−")', 'text.replace("-", "")', BOUNDS),
    once(
        "report/render.py",
        "Markdown does not say how many runs",
        'f" ({cell.runs})" if cell.runs',
        'f" ({cell.runs})" if False',
        FORMS,
    ),
    once(
        "report/render.py",
        "CSV has the deviation as interval",
        "numbers = (cell.value, cell.half,",
        "numbers = (cell.value, cell.std,",
        ONE,
    ),
    once("report/render.py", "CSV has no bold", "int(cell.bold)", "0", ONE),
    once("report/templates/table.html", "HTML has no bold", "{{ 'best' if cell.bold }}", "", FORMS),
    once(
        "report/templates/table.html",
        "HTML has the widths of slots as intervals",
        "± {{ spread(cell, column) }}",
        "± {{ slot[0] }}",
        FORMS,
    ),
    once(
        "report/curves.py",
        "curves are over the bytes of all seeds",
        'total.groupby(["arm", "round"]).mean()',
        'total.groupby(["arm", "round"]).sum()',
        "unit/test_report.py::test_curve_is_the_mean_with_its_interval",
    ),
]
MUTATIONS = given("evaluated", MUTATIONS)
