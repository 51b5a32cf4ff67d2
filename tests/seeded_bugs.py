"""Plants one bug after the other in a copy of the packages, and insists that the named test notices each.

    python tests/seeded_bugs.py            all of them; with a word, those whose name has it

A defence that no test needs is no defence: if a bug survives, the test named beside it must be made stronger.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "pol",
    "watermark",
    "challenge",
    "chain/*.py",
    "chain/artifacts",
    "tests",
    "docs",
    "examples",
    "pyproject.toml",
    "LICENSE",
)


@dataclass(frozen=True)
class Bug:
    """``before`` stands exactly once in ``file`` and becomes ``after``; ``test`` (a pytest node) fails then."""

    name: str
    file: str
    before: str
    after: str
    test: str


STATE, RESUME, RECORDER = "tests/pol/test_whole_state.py", "tests/pol/test_resume.py", "tests/pol/test_recorder.py"
TENSORS, PROOF, SOURCES = "tests/pol/test_tensors.py", "tests/pol/test_proof.py", "tests/pol/test_sources.py"
DECIDED = "tests/pol/test_state.py::test_what_the_program_decides_is_not_taken_from_the_state"

EXACT = "tests/pol/portable"
ONCHAIN, BRANCHES = "tests/challenge/test_onchain.py", "tests/challenge/test_branches.py"

BUGS = [
    Bug(
        "exact: an operator that is not in the table runs as it is", "pol/portable/mode.py",
        "        raise SpecError(_refusal(name))", "        return False, func",
        f"{EXACT}/test_mode.py::test_an_operator_outside_the_table_is_refused_by_name",
    ),
    Bug(
        "exact: a product's grid has one bit more than its sums bear", "pol/portable/dot.py",
        "return (MANTISSA - (length - 1).bit_length()) // 2", "return (MANTISSA - (length - 1).bit_length()) // 2 + 1",
        f"{EXACT}/test_grid.py::test_one_bit_more_and_the_order_shows",
    ),
    Bug(
        "exact: a slice of eight bits does not borrow from the next", "pol/portable/slices.py",
        "rest = (rest - low) >> BITS", "rest = rest >> BITS",
        f"{EXACT}/test_slices.py::test_a_product_by_slices_is_the_product",
    ),
    Bug(
        "exact: a convolution's unit changes along the contraction", "pol/portable/convolution.py",
        "images = quantised(_padded(x, padding), list(range(1, x.dim())), beta)",
        "images = quantised(_padded(x, padding), [1], beta)",
        f"{EXACT}/test_orders.py::test_a_convolution_is_that_of_its_integers",
    ),
    Bug(
        "exact: the first steps are compared with those of the same kernels", "pol/recorder.py",
        "with alone(), KERNELS.using(None):", "with alone():",
        "tests/challenge/test_exact_runs.py::test_wrong_kernels_are_noticed_before_training_begins",
    ),
    Bug(
        "exact: compiled kernels alone convict", "challenge/segments.py",
        "if job.spec.exact and not agrees(result)]", "if False]",
        "tests/challenge/test_exact_runs.py::test_torchs_operators_decide_where_kernels_differ",
    ),
    Bug(
        "exact: compiled kernels alone convict a branch", "challenge/branch.py",
        "for fused in (True, False) if proof.spec.exact else (True,):", "for fused in (True,):",
        "tests/challenge/test_trained_in.py::test_kernels_do_not_decide_an_exact_branch",
    ),
    Bug(
        "exact: alpha is left to the device", "pol/portable/elementwise.py",
        "return torch.add(a, b if alpha == 1 else torch.mul(_tensor(b, a), alpha))",
        "return torch.add(a, b, alpha=alpha)",
        f"{EXACT}/test_mode.py::test_no_multiplication_is_contracted_with_an_addition",
    ),
    Bug(
        "exact: repeated indices are added in float32", "pol/portable/sums.py",
        "return places.index_add_(0, index, quantised(values, [0], sum_bits(len(values))))",
        "return places.float().index_add_(0, index, values).double()",
        f"{EXACT}/test_orders.py::test_no_order_changes_a_bit",
    ),
    Bug(
        "the dtype is left out of a tensor's header", "pol/tensors.py",
        'struct.pack(">B", len(kind)), kind]', 'struct.pack(">B", 0)]',
        f"{TENSORS}::test_dtype_shape_and_name_are_bound",
    ),
    Bug(
        "a state's digest leaves the tensors' names out", "pol/tensors.py",
        "label, kind = name.encode", 'label, kind = b"x" or name.encode',
        f"{TENSORS}::test_names_and_contents_cannot_be_swapped",
    ),
    Bug(
        "the last block of a tensor is not hashed", "pol/tensors.py",
        "range(0, max(1, len(data)), BLOCK_BYTES)", "range(0, max(1, len(data) - BLOCK_BYTES), BLOCK_BYTES)",
        f"{TENSORS}::test_blocks_are_as_the_format_says",
    ),
    Bug(
        "NaN is accepted", "pol/tensors.py",
        "not all(np.isfinite(_floats(piece, dtype)).all() for", "any(np.isinf(_floats(piece, dtype)).any() for",
        f"{TENSORS}::test_non_finite_values_are_found",
    ),
    Bug(
        "-0.0 equals 0.0", "pol/tensors.py",
        "return torch.equal(_byte_view(mine.detach()), _byte_view(other.detach()))",
        "return torch.equal(mine, other)",
        f"{STATE}::test_bits_are_compared_and_not_values",
    ),
    Bug(
        "the recorded learning rate is trusted", "pol/state.py",
        "if name not in tensors or not same_bits(value, tensors[name]):",
        'if name != "scalars" and (name not in tensors or not same_bits(value, tensors[name])):',
        f"{DECIDED}[smuggle_rate]",
    ),
    Bug(
        "the recorded generators are trusted", "pol/state.py",
        "if name not in tensors or not same_bits(value, tensors[name]):",
        'if not name.startswith("rng/") and (name not in tensors or not same_bits(value, tensors[name])):',
        f"{DECIDED}[other_generator]",
    ),
    Bug(
        "NaN in a stored state is restored", "pol/state.py",
        "        check_values(tensors, where=where)\n        _check_layout", "        _check_layout",
        f"{DECIDED}[poison]",
    ),
    Bug(
        "tensors that the program does not have are ignored", "pol/state.py",
        "if set(layout) != set(found):", "if set(layout) - set(found):",
        f"{DECIDED}[extra]",
    ),
    Bug(
        "the optimizer trains on in the caller's tensors", "pol/state.py",
        "[slot] = value.to(device, copy=True)", "[slot] = value.to(device)",
        "tests/pol/test_state.py::test_restoring_does_not_share_memory",
    ),
    Bug(
        "buffers outside the state dict are forgotten", "pol/state.py",
        "if name not in saved}", "if name not in saved and False}",
        f"{STATE}::test_each_part_is_bound[cache]",
    ),
    Bug(
        "averaged weights are forgotten", "pol/state.py",
        'live |= {f"ema/{name}": value for name, value in averaged.items()}', "live |= {}",
        f"{STATE}::test_each_part_is_bound[ema.module.hidden.weight]",
    ),
    Bug(
        "the scaler's scale is forgotten", "pol/state.py",
        'torch.tensor(scaling["scale"], dtype=torch.float64)', "torch.tensor(1.0, dtype=torch.float64)",
        f"{STATE}::test_each_part_is_bound[scale]",
    ),
    Bug(
        "a pinned base model may change", "pol/state.py",
        "bytearray(tensors_digest(base))", "bytearray(32)",
        f"{STATE}::test_pinned_tensors_are_bound_by_one_digest_and_not_stored",
    ),
    Bug(
        "the data order does not depend on the seed", "pol/order.py",
        "digest(ORDER_DOMAIN, seed,", "digest(ORDER_DOMAIN, bytes(32),",
        "tests/pol/test_golden.py",
    ),
    Bug(
        "a sample's position is not bound", "pol/data.py",
        'SAMPLE_DOMAIN.encode("ascii") + u64(index)', 'SAMPLE_DOMAIN.encode("ascii") + u64(0)',
        "tests/pol/test_data.py::test_equal_samples_at_other_positions_have_other_leaves",
    ),
    Bug(
        "samples are not compared with their leaves", "pol/data.py",
        "!= self.leaves[index]:", "!= self.leaves[index] and False:",
        f"{SOURCES}::test_a_source_that_answers_twice_differently_is_noticed",
    ),
    Bug(
        "a segment's leaf leaves its batches out", "pol/transcript.py",
        "self.start_digest + self.end_digest + self.batch_root", "self.start_digest + self.end_digest + bytes(32)",
        "tests/pol/test_golden.py",
    ),
    Bug(
        "segments need not join", "pol/transcript.py",
        "if index and segments[index - 1].end_digest != segment.start_digest:", "if False:",
        f"{PROOF}::test_segments_join_end_to_start",
    ),
    Bug(
        "the tail of a run may go without an anchor", "pol/transcript.py",
        "if covered != len(segments):", "if False:",
        PROOF,
    ),
    Bug(
        "a shorter run passes undeclared", "pol/transcript.py",
        "if len(segments) != expected:", "if len(segments) > expected:",
        "tests/attacks/test_27_log_truncation.py",
    ),
    Bug(
        "a Merkle path may be longer than its tree", "pol/merkle.py",
        "if used != len(proof.siblings):", "if False:",
        "tests/pol/test_merkle.py",
    ),
    Bug(
        "the first step is not compared with the program's", "pol/recorder.py",
        "if promised is not None:", "if False:",
        f"{RECORDER}::test_a_loop_that_does_something_else_is_told_at_once",
    ),
    Bug(
        "the first step after an interruption is not compared with the program's", "pol/recorder.py",
        "if twin is None or self.ended:", "if twin is None or state.step:",
        "tests/pol/test_resume.py::test_a_resumed_loop_that_does_something_else_is_told_at_once",
    ),
    Bug(
        "a proof is sealed without what another machine promised", "challenge/arena/models.py",
        "if not held.model_digest and self._can_be_shown(held.round) and", "if False and",
        "tests/challenge/test_branches.py::test_nothing_is_sealed_while_another_machines_promise_may_be_shown",
    ),
    Bug(
        "a proof is sealed without what was shown while its last model was made", "challenge/arena/models.py",
        "for other in self._held().values()}", "for other in {}.values()}",
        "tests/challenge/test_branches.py::test_what_is_shown_while_the_last_model_is_made_is_sealed_too",
    ),
    Bug(
        "a state that was not copied to its end is taken for one", "pol/relay.py",
        "                if self._broken:  #", "                if self._broken and self._left:  #",
        "tests/pol/test_relay.py::test_who_reads_after_the_sender_failed_is_told",
    ),
    Bug(
        "a copy's memory is used again while it is read", "pol/relay.py",
        "            yield name, copy\n            self._take_back(copy)\n",
        "            self._take_back(copy)\n            yield name, copy\n",
        "tests/pol/test_relay.py",
    ),
    Bug(
        "a stopped run's last state is whatever the model is by then", "pol/recorder.py",
        "if tensors_digest(tensors) != self._segments[-1].end_digest:", "if False:",
        f"{RECORDER}::test_a_stop_after_the_state_has_changed_is_refused",
    ),
    Bug(
        "only the first step is compared", "pol/recorder.py",
        "COMPARED_STEPS = 2", "COMPARED_STEPS = 1",
        f"{RECORDER}::test_what_a_step_leaves_to_the_next_is_noticed",
    ),
    Bug(
        "a state is written over while it is hashed", "pol/recorder.py",
        "        self.wait()\n        tensors, index", "        tensors, index",
        f"{RECORDER}::test_hashing_slower_than_training_loses_nothing",
    ),
    Bug(
        "the last, shorter segment is not recorded", "pol/recorder.py",
        "% self.spec.segment_length == 0 or state.step == self.spec.steps:", "% self.spec.segment_length == 0:",
        "tests/attacks/test_23_short_last_segment.py",
    ),
    Bug(
        "a resumed run may come out otherwise", "pol/recorder.py",
        "if known and known[0] != segment:", "if False:",
        f"{RESUME}::test_a_run_that_comes_out_otherwise_says_so",
    ),
    Bug(
        "a damaged state is resumed from", "pol/recorder.py",
        "if tensors_digest(tensors) == ends.get(stored.step):", "if True:",
        f"{RESUME}::test_a_state_of_another_step_is_not_resumed_from",
    ),
    Bug(
        "anchors go on after a refusal", "pol/anchorer.py",
        "        self.check()\n        anchor =", "        anchor =",
        f"{RESUME}::test_nothing_is_anchored_after_a_refusal",
    ),
    Bug(
        "an anchor that the chain holds is grouped anew", "pol/recorder.py",
        "count = self._held.get(self._grouped, min(count, ready) if last else count)",
        "count = min(count, ready) if last else count",
        f"{RESUME}::test_an_anchor_whose_receipt_was_lost_is_taken_from_the_chain",
    ),
    Bug(
        "batches are not compared", "challenge/segments.py",
        "if result.batch_root != segment.batch_root:", "if False:",
        "tests/attacks/test_12_order_grinding.py",
    ),
    Bug(
        "a program runs although its source changed", "pol/program.py",
        "    if found != expected_digest:", "    if False:",
        "tests/pol/test_replay.py::test_a_built_in_program_of_another_version_is_not_run",
    ),
    Bug(
        "a key file may ask for any amount of memory", "watermark/keyfile.py",
        "or self.n > MAX_N or", "or",
        "tests/watermark/test_keyfile.py::test_a_hostile_file_costs_nothing",
    ),
    Bug(
        "a sealed file is good for every case", "watermark/sealing.py",
        "if occasion != self.occasion:", "if False:",
        "tests/watermark/test_sealing.py::test_it_is_worth_nothing_in_another_case",
    ),
    Bug(
        "two jurors may be shown two contents", "watermark/sealing.py",
        "if digest(CONTENT_KEY_DOMAIN, content_key) != self._content_key:", "if False:",
        "tests/watermark/test_sealing.py::test_two_jurors_cannot_be_shown_two_contents",
    ),
    Bug(
        "anybody may sign a claim", "challenge/signing.py",
        'if bytes.fromhex(signer.removeprefix("0x")) != spec.trainer:', "if False:",
        "tests/challenge/test_signed_claims.py",
    ),
    Bug(
        "a signature has a second form", "chain/eip712.py",
        "0 < s <= CURVE_ORDER // 2", "0 < s < CURVE_ORDER",
        "tests/chain/test_eip712.py",
    ),
    Bug(
        "a model that was shown may be left out of the proof", "challenge/onchain.py",
        "(shown.branch, shown.model_digest) not in held", "not held",
        f"{ONCHAIN}::test_a_model_that_the_run_showed_is_in_its_proof",
    ),
    Bug(
        "a model that was struck is held against its trainer", "challenge/onchain.py",
        " and not shown.struck", "",
        f"{ONCHAIN}::test_a_model_that_the_run_showed_is_in_its_proof",
    ),
    Bug(
        "theta_ref is not compared with the reference on chain", "challenge/onchain.py",
        "if (run.reference_segment, run.reference_digest) != (", "if False and (",
        f"{ONCHAIN}::test_what_is_not_on_chain_is_an_anchor_finding",
    ),
    Bug(
        "theta_ref is after the first branch", "pol/proof.py",
        "if segment >= self.submissions[0].reference_segment:", "if False:",
        "tests/pol/test_submissions.py::test_a_theta_ref_that_cannot_be_is_refused",
    ),
    Bug(
        "theta_ref is named where the trunk does not bear the mark", "challenge/arena/models.py",
        "self._marked(segment, bytes(32))", "pass",
        BRANCHES,
    ),
    Bug(
        "a run has marked and unmarked models", "challenge/arena/models.py",
        "if first and unmarked", "if False and unmarked",
        BRANCHES,
    ),
    Bug(
        "only the last submitted model must be a branch", "challenge/verify.py",
        "        for mark in proof.submissions:\n", "        for mark in proof.submissions[-1:]:\n",
        f"{BRANCHES}::test_an_earlier_model_is_a_branch_like_the_last",
    ),
    Bug(
        "a submission branches off before the reference", "pol/submission.py",
        "or branches[-1:] < branches[:1]:", "or False:",
        "tests/pol/test_submissions.py::test_what_cannot_be_is_refused",
    ),
    Bug(
        "a lent account is taken without looking", "chain/journal.py",
        "        _lock(self._file, self._account)\n", "        pass\n",
        "tests/chain/test_journal.py",
    ),
    Bug(
        "an accuser opens the groups of its choice", "challenge/onchain.py",
        "if claim.groups != opening_groups(", "if False and claim.groups != opening_groups(",
        "tests/challenge/test_onchain.py",
    ),
    Bug(
        "a juror does not look at the shape of the key that was opened", "challenge/dispute.py",
        "sound = [tied for tied in claims if opened_as_promised(client, case_id, tied)]", "sound = list(claims)",
        "tests/challenge/test_case_cli.py::test_a_claim_is_made_and_its_leaves_are_opened",
    ),
    Bug(
        "the end of a trained-in branch is not compared", "challenge/branch.py",
        "tensors_digest(marked) != mark.model_digest", "tensors_digest(marked) == bytes(32)",
        "tests/challenge/test_trained_in.py",
    ),
    Bug(
        "a mark in outputs is left out of the branch", "watermark/branch.py",
        "        if parameters.outputs:\n", "        if False:\n",
        "tests/challenge/test_trained_in_outputs.py::test_the_branch_writes_bits_and_the_trunk_has_none",
    ),
    Bug(
        "closed groups may have moved anywhere", "challenge/branch.py",
        "if not findings and len(openings) < weights.leaf_count:", "if False:",
        "tests/challenge/test_short_training.py::test_what_is_hidden_in_closed_groups_never_passes",
    ),
    Bug(
        "a trainer is not told that its mark went too far", "watermark/branch_replay.py",
        ", theta_0=_initial(proof))", ")",
        "tests/challenge/test_short_training.py::test_the_trainer_is_told_before_anything_is_committed",
    ),
    Bug(
        "rows that a thief drew anew are read on", "watermark/weights/reading.py",
        "LEAST_COSINE: Final = 0.2", "LEAST_COSINE: Final = -9.0",
        "tests/watermark/weights/test_reading.py::test_rows_that_are_gone_are_no_trials",
    ),
    Bug(
        "what is left of a group is read without what was there before the mark", "watermark/weights/reading.py",
        "kept.mean() * reference - rest", "0 * reference",
        "tests/watermark/weights/test_reading.py::test_few_units_that_are_left_still_tell",
    ),
    Bug(
        "an opening that is kept back is no miss", "watermark/detect.py",
        'trials + len(_opened(claim, "weights")) - len(leaves)', "trials",
        "tests/watermark/weights/test_reading.py::test_leaves_that_were_not_shown_are_misses",
    ),
    Bug(
        "values that are not finite are set aside", "watermark/weights/reading.py",
        "alike | ~np.isfinite(lengths)", "alike & np.isfinite(lengths)",
        "tests/watermark/weights/test_reading.py::test_what_is_not_finite_is_a_miss_and_not_set_aside",
    ),
    Bug(
        "triggers have full weight whatever was promised", "watermark/branch.py",
        "return mark.percent / FULL * label_loss", "return label_loss",
        "tests/watermark/test_branch.py::test_triggers_weigh_as_much_beside_the_task_as_was_promised",
    ),
    Bug(
        "the loss of the mark in the weights weighs nothing", "watermark/weights/loss.py",
        "return total / self._count", "return 0 * total / self._count",
        "tests/watermark/test_branch.py::test_training_writes_the_bits_before_the_last_step_does",
    ),
    Bug(
        "a branch is finished a step late", "watermark/branch.py",
        "state.step + 1 == self.end", "state.step == self.end",
        "tests/watermark/test_branch.py",
    ),
    Bug(
        "a model that was shown is sealed at another branch", "challenge/arena/models.py",
        "if before is not None and proof.submission is None:", "if False:",
        "tests/challenge/test_branches.py::test_a_model_that_was_shown_is_sealed_where_it_was_shown",
    ),
    Bug(
        "a promise counts for ever", "challenge/arena/models.py",
        "if digest is None and self._can_be_shown(held.round):", "if digest is None:",
        "tests/challenge/test_branches.py::test_a_promise_that_was_not_shown_in_its_time_is_made_again",
    ),
    Bug(
        "two commands submit from one folder", "challenge/arena/submit.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass",
        "tests/challenge/test_branches.py::test_one_command_at_a_time_submits_from_a_folder",
    ),
    Bug(
        "a promise is sent for another round than its salt's", "chain/arena.py",
        "if (current := self.current_round(run.task_id)) != round_:", "if (current := round_) != round_:",
        "tests/chain/test_arena.py::TestSubmission::test_a_promise_for_another_round_is_not_sent",
    ),
    Bug(
        "a claim brings the last model of its run", "challenge/dispute.py",
        "_, cid = min(shown)", "_, cid = max(shown)",
        "tests/challenge/test_two_claims.py::test_a_claim_brings_the_first_model_of_its_run",
    ),
    Bug(
        "a stop is tried once", "pol/anchorer.py",
        "if time.monotonic() + FIRST_RETRY_SECONDS > end:", "if True:",
        "tests/pol/test_resume.py::test_a_stop_is_declared_when_the_account_is_free_again",
    ),
    Bug(
        "two claims are judged by time alone", "challenge/verify.py",
        "if mine and theirs:", "if False:",
        "tests/challenge/test_two_claims.py",
    ),
]  # fmt: skip


def survives(bug: Bug, copy: Path) -> str | None:
    """Why the bug counts as surviving, or None if its test noticed it."""
    path = copy / bug.file
    source = path.read_text()
    if source.count(bug.before) != 1:
        return f"its place in {bug.file} was not found once: bring this list up to date"
    path.write_text(source.replace(bug.before, bug.after))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", bug.test],
            check=False, cwd=copy, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        path.write_text(source)
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not failed:
        return f"{bug.test} did not fail (pytest's exit code {done.returncode})\n{done.stdout[-500:]}"
    print(f"killed    {bug.name}: {failed.group(1)}", flush=True)
    return None


def main() -> int:
    """Plant them all; the exit code says whether any survived."""
    chosen = [bug for bug in BUGS if all(word in bug.name for word in sys.argv[1:])]
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for pattern in COPIED:
            for path in ROOT.glob(pattern):
                target = copy / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                leave = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(path, target, ignore=leave) if path.is_dir() else shutil.copy(path, target)
        for bug in chosen:
            reason = survives(bug, copy)
            if reason:
                survivors += 1
                print(f"SURVIVED  {bug.name}: {reason}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} bugs killed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
