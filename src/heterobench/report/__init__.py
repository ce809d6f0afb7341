"""From evaluations to tables, figures and one page."""
