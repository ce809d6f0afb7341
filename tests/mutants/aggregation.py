"""From one value per run to means, intervals, bounds, bold, ranks and tests."""

from __future__ import annotations

from mutants.mutation import Edit, Mutation, given, once

HERE = "recomputed/test_aggregation.py::"
MEANS = HERE + "test_means_with_their_intervals_and_counts"
PAIRED = HERE + "test_differences_are_paired_by_seed"
BOUND = HERE + "test_a_cost_to_a_target_that_some_runs_missed_is_bounded_by_their_whole_cost"
BOLD = HERE + "test_bold_is_the_best_and_who_cannot_be_told_from_it"
TABLES = "recomputed/test_tables.py::"
COMPARISON = TABLES + "test_the_comparison_over_scenarios"
PAIRS = TABLES + "test_the_table_of_pairs"
UNIT = "unit/test_"

MUTATIONS = [
    once(
        "stats/intervals.py",
        "the deviation for the interval",
        "t_quantile(n - 1, level) * std / math.sqrt(n)",
        "std",
        MEANS,
    ),
    once(
        "stats/intervals.py",
        "the standard error for the interval",
        "t_quantile(n - 1, level) * std / math.sqrt(n)",
        "std / math.sqrt(n)",
        MEANS,
    ),
    once("stats/intervals.py", "a normal quantile", "stdtrit(degrees,", "stdtrit(10**9,", MEANS),
    once(
        "stats/intervals.py",
        "one-sided quantile",
        "stdtrit(degrees, (1 + level) / 2)",
        "stdtrit(degrees, level)",
        MEANS,
    ),
    once(
        "stats/intervals.py",
        "population instead of sample deviation",
        "for value in finite) / (n - 1))",
        "for value in finite) / n)",
        MEANS,
    ),
    once(
        "stats/intervals.py",
        "values that are not finite are forgotten",
        "mean + half, std, len(given), n)",
        "mean + half, std, n, n)",
        MEANS,
    ),
    once(
        "stats/intervals.py",
        "pairs by position instead of seed",
        "[a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]",
        "[one - other for one, other in zip(a.values(), b.values(), strict=False)]",
        PAIRED,
    ),
    once(
        "report/aggregate.py",
        "differences have the other sign",
        "paired_difference(found, of[base])",
        "paired_difference(of[base], found)",
        PAIRED,
    ),
    once(
        "report/aggregate.py",
        "bytes and seconds are bounded by rounds",
        '"run", CENSORED_AT[metric])',
        '"run", "rounds")',
        BOUND,
    ),
    once(
        "report/aggregate.py", "no bound where any run got there", "CENSORED_AT or all(", "CENSORED_AT or any(", BOUND
    ),
    once(
        "report/aggregate.py",
        "who did not get there does not count in the bound",
        "value if math.isfinite(value) else end.get(seed, math.nan) for",
        "value for",
        BOUND,
    ),
    once(
        "report/aggregate.py",
        "what was chosen on the test set may be bold",
        "and selection in RANKED else None",
        "else None",
        BOLD,
    ),
    once(
        "report/aggregate.py",
        "references may be bold",
        "ranked = [arm.name for arm in methods(benchmark)]",
        "ranked = [arm.name for arm in benchmark.arms]",
        BOLD,
    ),
    once("stats/ties.py", "of losses the largest is bold", '(max if direction == "max" else min)', "max", BOLD),
    Mutation(
        "methods with a run that is missing may be bold",
        (
            Edit("stats/ties.py", "if all(math.isfinite(values.get", "if any(math.isfinite(values.get"),
            Edit(
                "stats/ties.py", "values[seed] for seed in seeds}", "values[seed] for seed in seeds if seed in values}"
            ),
        ),
        (BOLD,),
    ),
    once(
        "stats/ties.py",
        "who is below the best is bold as well",
        "difference.low <= 0 <= difference.high",
        "difference.high >= 0",
        BOLD,
    ),
    once("stats/ties.py", "the best alone is bold", "name == first or", "name == first and", BOLD),
    Mutation(
        "what is missing counts as the best",
        (
            Edit(
                "report/missing.py",
                'filler = np.inf if direction == "max" else -np.inf',
                'filler = -np.inf if direction == "max" else np.inf',
            ),
            Edit(
                "report/missing.py",
                'known.min(axis=0) if direction == "max" else known.max(axis=0)',
                'known.max(axis=0) if direction == "max" else known.min(axis=0)',
            ),
        ),
        (COMPARISON,),
    ),
    once(
        "report/missing.py",
        "a missing run has reached its target",
        "np.where(nothing, np.nan, math.inf) if metric",
        "np.where(nothing, np.nan, 1.0) if metric",
        UNIT + "report_comparison.py::test_a_target_that_a_missing_run_would_have_had_is_not_reached",
    ),
    once(
        "report/pooling.py",
        "a missing run has every example right",
        "np.zeros(n, bool) if correct is None",
        "np.ones(n, bool) if correct is None",
        UNIT + "report_comparison.py::test_answers_of_a_run_that_is_not_there_are_all_wrong",
    ),
    once(
        "stats/checks.py",
        "the worst has rank 1",
        '-scores if direction == "max" else scores',
        'scores if direction == "max" else -scores',
        COMPARISON,
    ),
    once(
        "stats/signed_rank.py",
        "equal values share the highest rank",
        "(np.cumsum(counts) - (counts - 1) / 2)",
        "np.cumsum(counts)",
        UNIT + "stats_signed_rank.py::test_mid_ranks_are_those_of_scipy",
    ),
    once(
        "stats/signed_rank.py",
        "no correction for the number of comparisons",
        "raw[order] * np.arange(raw.size, 0, -1)",
        "raw[order]",
        COMPARISON,
    ),
    once("stats/signed_rank.py", "p is one-sided", "min(1.0, 2 * ways[", "min(1.0, ways[", COMPARISON),
    once(
        "stats/mean_ranks.py", "another scale of mean ranks", "k * (k + 1) / (6 * n)", "k * (k + 1) / (12 * n)", PAIRS
    ),
    once(
        "stats/improvement.py",
        "ties count nothing",
        "(first[:, None] == second) / 2",
        "(first[:, None] == second) * 0",
        UNIT + "stats_profiles.py::test_probability_of_improvement_is_the_share_of_pairs",
    ),
    once(
        "report/differences.py",
        "differences have the other sign",
        "np.where(kept, a - b, np.nan)",
        "np.where(kept, b - a, np.nan)",
        COMPARISON,
    ),
]
MUTATIONS = given("evaluated", MUTATIONS)
