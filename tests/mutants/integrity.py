"""Runs that diverge, digests, longer runs, phases, tuning in stages, locks, marks of superseded runs."""

from __future__ import annotations

from mutants.mutation import once

DIVERGED = "unit/test_diverged.py::"
EVIDENCE = "unit/test_evidence.py::"
LONGER = "contract/test_longer_runs.py::"
CROSSED = "contract/test_crossed.py::"
DESIGN = "unit/test_tuning_design.py::"
LOCK = "unit/test_workflow_lock.py::"
SUPERSEDED = "unit/test_tracking_superseded.py::"
COVERAGE = "unit/test_stats_coverage.py::"

MUTATIONS = [
    once(
        "task.py",
        "outputs that are no numbers are right about class 0",
        "finite = logits.isfinite().flatten(-2).all(-1, keepdim=True)",
        "finite = torch.ones_like(logits.isfinite().flatten(-2).all(-1, keepdim=True))",
        DIVERGED + "test_outputs_that_are_not_finite_are_enough",
    ),
    once(
        "training.py",
        "a run that has diverged is called finished",
        "status = record.FINISHED if best.diverged is None else record.DIVERGED\n    recorder.end",
        "status = record.FINISHED\n    recorder.end",
        DIVERGED + "test_a_model_of_nans_has_no_accuracy",
    ),
    once(
        "training.py",
        "a run that has diverged goes on to its last round",
        "while state.round < last and not lost:",
        "while state.round < last:",
        DIVERGED + "test_a_diverged_run_is_not_run_again_and_has_the_same_bits_every_time",
    ),
    once(
        "training.py",
        "a model that has diverged is kept as the selected one",
        "best.look(theta, metric, state.round, unusable)",
        "best.look(theta, metric, state.round, False)",
        DIVERGED + "test_the_model_selected_before_keeps_its_value_and_the_last_has_none",
        DIVERGED + "test_without_validation_examples_the_last_finite_round_is_the_selected_one",
    ),
    once(
        "files.py",
        "an altered file is taken for the one that was written",
        "    if found == expected:\n        return None\n",
        "    if found:\n        return None\n",
        EVIDENCE + "test_an_altered_model_changes_no_published_number",
    ),
    once(
        "files.py",
        "the digest in a file is not compared",
        "if (actual := digest(found)) != expected:",
        "if not (actual := digest(found)):",
        EVIDENCE + "test_an_altered_end_ends_nothing",
    ),
    once(
        "engine/checkpoint.py",
        "a run goes on from a checkpoint whose record was altered",
        "if (problem := fault(found[0], found[2])) is None:",
        "if (problem := None) is None:",
        EVIDENCE + "test_what_was_altered_before_a_run_goes_on_is_not_gone_on_from",
    ),
    once(
        "records/succession.py",
        "a run whose rounds depend on their number goes on",
        "    if bound:\n",
        "    if bound and False:\n",
        EVIDENCE + "test_the_stages_of_a_stream_are_those_of_the_whole_run",
        LONGER + "test_a_longer_run_goes_on_with_the_bits_of_a_straight_one",
    ),
    once(
        "engine/synchronous.py",
        "rounds without anybody count as turns",
        "return (0, *np.cumsum(there).tolist())",
        "return tuple(range(len(there) + 1))",
        CROSSED + "test_turns_count_the_rounds_in_which_anybody_took_part",
    ),
    once(
        "executor/local.py",
        "the gradient of an anchor is cut short",
        "whole = algorithm.statistics or algorithm.whole(down, client)",
        "whole = algorithm.statistics",
        CROSSED + "test_passes_over_all_examples_are_not_cut_short",
    ),
    once(
        "tuning.py",
        "own hyper-parameters are varied around the defaults",
        "stage_two(trials.job, trials.jobs[base].tuned)",
        "stage_two(trials.job, trials.jobs[0].tuned)",
        DESIGN + "test_the_second_stage_is_around_the_best_of_the_first",
    ),
    once(
        "workflow_lock.py",
        "any process of the same number holds the lock",
        'process.create_time() != who["started"] or ',
        "",
        LOCK + "test_a_later_process_of_the_same_number_is_not_the_one_that_signed",
    ),
    once(
        "workflow_lock.py",
        "a lock of which nothing is known is released",
        "if not others and all(lock.stat().st_mtime >= since for lock in held) else []",
        "if not others else []",
        LOCK + "test_a_lock_of_which_nothing_is_known_stays",
    ),
    once(
        "tracking/superseded.py",
        "a run that was replaced is not marked",
        "value = entries.truth(state)",
        "value = entries.truth(False)",
        SUPERSEDED + "test_replaced_run_is_marked_out_of_the_links_and_still_there",
    ),
    once(
        "stats/intervals.py",
        "scenarios are taken for independent",
        "float(np.linalg.norm(apart.mean(axis=0)))",
        "float(np.linalg.norm(apart)) / len(apart)",
        COVERAGE + "test_interval_over_seeds_of_a_difference_over_scenarios",
    ),
]
