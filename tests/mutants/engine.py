"""Who comes, what clients do, how their work becomes one, what it costs, and how a run goes on."""

from __future__ import annotations

from mutants.mutation import once

HERE = "recomputed/test_training.py::"
MEAN = HERE + "test_fedavg_is_the_mean_of_the_cohorts_models_weighted_by_their_examples"
PERSONAL = HERE + "test_a_personal_model_is_its_clients_own_descent"
COUNTS = HERE + "test_bytes_gradients_and_time_of_every_round"
AGAIN = "recomputed/test_selection.py::test_a_run_that_was_left_and_taken_up_again_selects_what_the_straight_one_does"
ENGINE = "unit/test_engine.py::"
PARTICIPATION = "unit/test_participation.py::"

MUTATIONS = [
    once(
        "schedule.py",
        "the size of a cohort is rounded down",
        "schedule.participation * len(active) + 0.5",
        "schedule.participation * len(active)",
        COUNTS,
    ),
    once(
        "schedule.py",
        "a client may come twice",
        "choice(active, size, replace=False)",
        "choice(active, size, replace=True)",
        MEAN,
    ),
    once(
        "schedule.py",
        "the same cohort in every round",
        'keyed.generator(seed, "cohort", round)',
        'keyed.generator(seed, "cohort", 0)',
        MEAN,
    ),
    once(
        "schedule.py",
        "the same cohorts for every seed",
        'keyed.generator(seed, "cohort", round)',
        'keyed.generator(0, "cohort", round)',
        MEAN,
    ),
    once(
        "schedule.py",
        "a round takes as long as all clients one after the other",
        "slowest = max(slowest, part.down / own.down + part.examples / own.examples + part.up / own.up)",
        "slowest += part.down / own.down + part.examples / own.examples + part.up / own.up",
        COUNTS,
    ),
    once("schedule.py", "what goes up takes the link down", "part.up / own.up)", "part.up / own.down)", COUNTS),
    once(
        "schedule.py",
        "the server has work where nothing is sent",
        "if not parts or any(part.up for part in parts)",
        "if True",
        COUNTS,
    ),
    once(
        "schedule.py",
        "stragglers may finish everything",
        "generator.integers(1, full)",
        "generator.integers(1, full + 1)",
        ENGINE + "test_stragglers_finish_1_to_full_minus_1_epochs",
    ),
    once(
        "combine.py",
        "the weighted mean has no weights",
        "[n / total for n in examples]",
        "[1 / count for n in examples]",
        MEAN,
    ),
    once(
        "combine.py",
        "the weights do not add up to one",
        "[n / total for n in examples]",
        "[n / (total + 1) for n in examples]",
        MEAN,
    ),
    once(
        "engine/synchronous.py",
        "clients count by their validation examples",
        "examples = [len(now.train[int(client)])",
        "examples = [len(now.validation[int(client)])",
        MEAN,
    ),
    once(
        "engine/synchronous.py",
        "the training loss is a plain mean",
        "[result.loss for result in results], weights=examples)",
        "[result.loss for result in results])",
        MEAN,
    ),
    once(
        "engine/synchronous.py",
        "states go to other clients",
        "zip(work, results, strict=True) if result.state",
        "zip(work, results[::-1], strict=True) if result.state",
        PERSONAL,
    ),
    once(
        "engine/synchronous.py",
        "what goes down is counted once",
        "sum(part.down for part in parts + asked)",
        "max(part.down for part in parts + asked)",
        COUNTS,
    ),
    once(
        "engine/synchronous.py",
        "what goes up is counted without the number of examples",
        "size(result.uplink) + COUNT_BYTES if",
        "size(result.uplink) if",
        COUNTS,
    ),
    once(
        "engine/synchronous.py",
        "time is that of the last round",
        "simulated_seconds=state.simulated_seconds + _seconds(setting, cohort, parts)",
        "simulated_seconds=_seconds(setting, cohort, parts)",
        COUNTS,
    ),
    once(
        "channel.py",
        "every number has eight bytes",
        "tensor.numel() * tensor.element_size()",
        "tensor.numel() * 8",
        COUNTS,
    ),
    once(
        "executor/local.py",
        "the gradients of the last batch alone are counted",
        "self.examples = self.examples + (",
        "self.examples = self.examples * 0 + (",
        COUNTS,
    ),
    once("executor/local.py", "the loss of a client is a sum", "float(loss) / steps", "float(loss)", MEAN),
    once(
        "executor/local.py",
        "shares of local work are rounded down",
        "work.share * len(plan) + 0.5",
        "work.share * len(plan)",
        PARTICIPATION + "test_a_share_is_that_of_the_steps_at_least_one",
    ),
    once(
        "training.py",
        "all personal models are that of the first client",
        "state.client(i)) for i",
        "state.client(0)) for i",
        PERSONAL,
    ),
    once(
        "federation.py",
        "the same batches in every round",
        'keyed.generator(seed, "batches", round, client)',
        'keyed.generator(seed, "batches", 0, client)',
        ENGINE + "test_batches_depend_on_seed_round_and_client_only",
    ),
    once(
        "federation.py",
        "the rest of an epoch is dropped",
        "range(0, len(order), size)",
        "range(0, len(order) - size + 1, size)",
        ENGINE + "test_every_epoch_has_every_row_once",
    ),
    once(
        "federation.py",
        "each stage has one round, the last one the rest",
        "round * len(self._by_stage) // rounds",
        "min(round, len(self._by_stage) - 1)",
        "unit/test_what_clients_see.py::test_a_round_has_the_examples_of_its_stage_only",
    ),
    once(
        "availability.py",
        "who is not there comes",
        "return self._uniform(round) < self.rates",
        "return self._uniform(round) >= self.rates",
        PARTICIPATION + "test_clients_are_there_at_their_rates",
    ),
    once(
        "availability.py",
        "the chain comes as often as it goes",
        "np.where(there, 1 - go, come)",
        "np.where(there, 1 - come, come)",
        PARTICIPATION + "test_clients_are_there_at_their_rates",
    ),
    once(
        "availability.py",
        "a stretch is one round longer",
        "(round + first) % period < length",
        "(round + first) % period <= length",
        PARTICIPATION + "test_cyclic_clients_have_exact_counts_and_one_stretch",
    ),
    once(
        "availability.py",
        "rates without the number of classes",
        "rule.mean * classes * liking",
        "rule.mean * liking",
        PARTICIPATION + "test_rates_follow_the_labels",
    ),
    once(
        "engine/checkpoint.py",
        "bytes begin anew after a checkpoint",
        'bytes_up=numbers["bytes_up"]',
        "bytes_up=0",
        AGAIN,
    ),
    once(
        "engine/checkpoint.py",
        "time begins anew after a checkpoint",
        'simulated_seconds=numbers["simulated_seconds"]',
        "simulated_seconds=0.0",
        AGAIN,
    ),
    once(
        "engine/checkpoint.py",
        "a run goes on one round later",
        'round=numbers["round"],',
        'round=numbers["round"] + 1,',
        AGAIN,
    ),
    once(
        "engine/checkpoint.py",
        "a damaged checkpoint is believed",
        "if file_digest(path)[:16] != path",
        "if False and file_digest(path)[:16] != path",
        ENGINE + "test_a_damaged_checkpoint_costs_the_rounds_after_the_one_before",
    ),
    once(
        "engine/checkpoint.py",
        "one checkpoint is kept",
        "KEEP = 2",
        "KEEP = 1",
        ENGINE + "test_only_the_last_two_checkpoints_are_kept",
    ),
]
