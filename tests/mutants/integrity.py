"""Runs that diverge, digests, longer runs, phases, tuning in stages, locks, marks of superseded runs."""

from __future__ import annotations

from mutants.mutation import Edit, Mutation, once

DIVERGED = "unit/test_diverged.py::"
EVIDENCE = "unit/test_evidence.py::"
LONGER = "contract/test_longer_runs.py::"
CROSSED = "contract/test_crossed.py::"
DESIGN = "unit/test_tuning_design.py::"
LOCK = "unit/test_workflow_lock.py::"
SUPERSEDED = "unit/test_tracking_superseded.py::"
COVERAGE = "unit/test_stats_coverage.py::"
BAND = "unit/test_stats_profiles.py::test_band_holds_the_profile_and_is_the_wider_of_two_intervals"
TURNS = CROSSED + "test_turns_count_the_rounds_in_which_anybody_took_part"

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
        DIVERGED + "test_a_model_of_nans_has_no_accuracy",
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
        TURNS,
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
    once(
        "stats/intervals.py",
        "gaps take no degrees of freedom",
        "1 / float(np.mean(1 / count)) - 1",
        "float(np.sum(count - 1))",
        COVERAGE + "test_interval_over_seeds_with_gaps_is_not_too_narrow",
    ),
    once("stats/intervals.py", "what never happened never will", "z2 / (4 * count**2)", "0 / (4 * count**2)", BAND),
    once(
        "stats/intervals.py",
        "the interval of a share is around it",
        "centre = (p + z2 / (2 * count)) / (1 + z2 / count)",
        "centre = p",
        BAND,
    ),
    once(
        "executor/local.py",
        "phases are told the round",
        "rounds, self.turn(round), turns)",
        "rounds, round, turns)",
        TURNS,
    ),
    once(
        "engine/synchronous.py",
        "the server is told the round",
        "turn = setting.local.turn(round)",
        "turn = round",
        TURNS,
    ),
    once(
        "algorithms/ggeur.py",
        "clients count by their own numbers of examples",
        "base = fedavg.make(hp)",
        'base = fedavg.make(hp.model_copy(update={"weighting": "weighted"}))',
        "cards/test_ggeur.py::test_clients_count_equally_although_they_differ_in_their_own_numbers",
    ),
    Mutation(
        "a trial that has diverged keeps what it had reached",
        (
            Edit("tuning.py", "if not finite or not math.isfinite(accuracies[-1]):", "if not finite:"),
            Edit("tuning.py", "if rounds and math.isnan(", "if False and math.isnan("),
            Edit("tuning.py", 'end := run.end) and end["status"] ==', 'end := run.end) and "" =='),
        ),
        (DIVERGED + "test_tuning_never_chooses_a_trial_that_diverges",),
    ),
    once(
        "tuning.py",
        "the first stage is judged on validation examples whatever the rule",
        "trial: trials.ruling(trial) for trial",
        "trial: trials.validation(trial) for trial",
        DESIGN + "test_the_second_stage_is_around_what_the_rule_of_the_table_chooses",
    ),
    once(
        "tuning.py",
        "the second stage is not compared with the first at the cut",
        ".tuned), 2, [base])",
        ".tuned), 2)",
        DESIGN + "test_the_second_stage_is_compared_with_the_best_of_the_first_at_the_cut",
    ),
    once(
        "tracking/superseded.py",
        "links find the runs that were replaced",
        "= 'false'\"",
        "!= 'none'\"",
        SUPERSEDED + "test_ui_prints_links_that_search_for_current_runs",
    ),
    once(
        "tracking/superseded.py",
        "runs of another project are marked",
        "return owner is None or run.data.tags.get(entries.PROJECT) == owner",
        "return True",
        SUPERSEDED + "test_a_project_changes_no_run_of_another",
    ),
]
