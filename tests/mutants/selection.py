"""Which round a run selects, what it saves of it, and which trial tuning chooses."""

from __future__ import annotations

from mutants.mutation import Edit, Mutation, once

SELECTION = "recomputed/test_selection.py::"
ROUND = SELECTION + "test_the_selected_round_is_the_first_of_the_highest_validation_accuracy"
SCORES = SELECTION + "test_scores_of_a_round_are_those_of_the_model_of_that_round"
MODELS = SELECTION + "test_saved_models_are_those_of_the_selected_and_of_the_last_round"
PERSONAL = SELECTION + "test_saved_personal_models_have_the_scores_of_the_selected_and_of_the_last_round"
LAST = SELECTION + "test_without_validation_examples_the_last_round_is_selected"
AGAIN = SELECTION + "test_a_run_that_was_left_and_taken_up_again_selects_what_the_straight_one_does"
TUNING = "unit/test_tuning.py::"
CHOSEN = TUNING + "test_the_chosen_trial_has_the_best_validation_accuracy_and_the_table_runs_with_it"
EQUAL = TUNING + "test_equal_accuracy_is_decided_by_loss_then_by_number_and_failures_are_last"
BEST_ROUND = TUNING + "test_a_run_counts_with_its_best_round_on_validation_data"
ORACLE = TUNING + "test_a_trial_that_is_best_on_the_test_set_alone_is_chosen_by_the_oracle_alone"

MUTATIONS = [
    Mutation(
        "the worst validation round is selected",
        (
            Edit("training.py", "accuracy > self.accuracy or", "accuracy < self.accuracy or"),
            Edit("training.py", 'accuracy: float = float("-inf")', 'accuracy: float = float("inf")'),
        ),
        (ROUND,),
    ),
    once(
        "training.py",
        "the round is selected on the test set",
        'metric = metrics["validation_accuracy"]',
        'metric = metrics.get("test_accuracy", metrics["validation_accuracy"])',
        ROUND,
    ),
    once("training.py", "the latest of equals", "accuracy > self.accuracy or", "accuracy >= self.accuracy or", ROUND),
    once(
        "training.py",
        "without validation examples the first round is selected",
        "accuracy > self.accuracy or np.isnan(accuracy):",
        "accuracy > self.accuracy or (np.isnan(accuracy) and not self.round):",
        LAST,
    ),
    once(
        "training.py",
        "the last model is saved as the selected one",
        "record.SELECTED, layout, best.theta",
        "record.SELECTED, layout, theta",
        MODELS,
    ),
    once(
        "training.py",
        "the selected model is saved as the last one",
        "record.FINAL, layout, theta",
        "record.FINAL, layout, best.theta",
        MODELS,
    ),
    once(
        "training.py",
        "a run that goes on has forgotten its best accuracy",
        'Best(extra["selected"], notes["best"],',
        'Best(extra["selected"], float("-inf"),',
        AGAIN,
    ),
    once(
        "training.py",
        "a run that goes on takes the newest model for the best",
        'checkpoint.save(folder, state, {"selected": best.theta}',
        'checkpoint.save(folder, state, {"selected": theta}',
        AGAIN,
    ),
    once(
        "training.py",
        "validation scores are those of the test set",
        "federation.pool.chunks(federation.all_validation)",
        "federation.global_test.chunks()",
        SCORES,
    ),
    once(
        "training.py",
        "personal models are judged by the first one",
        "personal.scores(task, federation.pool, theta,",
        "personal.scores(task, federation.pool, theta[:1].expand_as(theta),",
        PERSONAL,
    ),
    once(
        "training.py",
        "snapshots are of the best model so far",
        "saved_model.save(path, setting.task.layout, theta, notes)",
        "saved_model.save(path, setting.task.layout, best.theta, notes)",
        SCORES,
    ),
    once("tuning.py", "the last round of a trial counts", "accuracies.index(max(finite))", "-1", BEST_ROUND),
    once("tuning.py", "the worst trial is chosen", "value = -self.value if", "value = self.value if", EQUAL),
    once(
        "tuning.py",
        "of equal trials the one with the higher loss",
        "return value, self.loss if",
        "return value, -self.loss if",
        EQUAL,
    ),
    once("tuning.py", "a trial counts with its best seed", "math.fsum(column) / len(scores)", "max(column)", CHOSEN),
    once("tuning.py", "trials that go on are rounded down", "math.ceil(share", "math.floor(share", EQUAL),
    once(
        "tuning.py",
        "the test set chooses",
        'ruling = validation if tuning.rule == "validation" else oracle',
        "ruling = oracle",
        ORACLE,
    ),
    once("tuning.py", "the table runs with the defaults", "jobs[chosen].tuned", "jobs[0].tuned", ORACLE),
]
