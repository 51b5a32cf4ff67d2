"""What the chain tests play with: an embedded EVM, the six contracts, funded accounts, and whole tasks."""

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, fields

import pytest

from chain.anchoring import RunAnchorer
from chain.case import Charge, Ground
from chain.client import ArenaClient
from chain.commitments import final_set_commitment
from chain.deployment import deploy
from chain.devnet import EmbeddedChain
from chain.errors import ContractReverted
from chain.terms import Clock, Court, Numerics, Pay, TaskConfig, Work
from chain.types import Role, open_segment, tokens
from pol.transcript import Segment, segment_tree

SUPPLY = tokens(10_000_000)
PURSE = tokens(500_000)
REGISTRATION = 1_000


def digest(*label):
    return hashlib.sha256(repr(label).encode()).digest()


def task_config(values):
    """The terms with these fields, each of which belongs to one of the four parts."""
    parts = {"clock": Clock, "work": Work, "pay": Pay, "court": Court}
    names = {name: {field.name for field in fields(part)} for name, part in parts.items()}
    unknown = set(values) - set().union(*names.values())
    assert not unknown, f"no such terms: {unknown}"
    return TaskConfig(
        **{name: part(**{key: values[key] for key in names[name] & set(values)}) for name, part in parts.items()}
    )


class World:
    """One chain with the contracts; ``clients[i]`` acts as account i. Account 0 deploys and creates the tasks."""

    def __init__(self, chain=None):
        self.chain = chain or EmbeddedChain(accounts=14)
        self.deployment = deploy(self.chain.web3, self.chain.accounts[0], SUPPLY)
        self.reader = ArenaClient(self.chain.web3, self.deployment)
        self.clients = [ArenaClient(self.chain.web3, self.deployment, account) for account in self.chain.accounts]
        self.creator = self.clients[0]
        for client in self.clients[1:]:
            self.creator.token.transfer(client.address, PURSE)

    @contextmanager
    def wound_back(self):
        """Undo on the chain, afterwards, whatever happens inside."""
        make_request = self.chain.web3.provider.make_request
        snapshot = make_request("evm_snapshot", [])["result"]
        yield
        make_request("evm_revert", [snapshot])

    def balances(self):
        """Every account's and contract's tokens."""
        d = self.deployment
        holders = [client.address for client in self.clients] + [d.vault, d.escrow, d.arena, d.scoring, d.challenges]
        return {holder: self.reader.token.balance_of(holder) for holder in holders}

    def terms(self, **changes):
        """Usable terms of a task that starts ``REGISTRATION`` seconds from now: 4 segments of 10 steps, two rounds.

        Names are those of the fields, whichever part of the terms they belong to.
        """
        terms = {
            "start": self.chain.now() + REGISTRATION,
            "round_length": 1_000,
            "window": 200,
            "challenge_length": 4_000,
            "rounds": 2,
            "program_digest": digest("program"),
            "train_root": digest("train"),
            "eval_root": digest("eval"),
            "final_set_commitment": final_set_commitment(digest("final root"), digest("final salt")),
            "numerics": Numerics.EXACT,
            "steps": 40,
            "segment_length": 10,
            "q": tokens("0.8"),
            "alpha_trainer": tokens(1),
            "alpha_validator": tokens(1),
            "lambda_": tokens(5),
            "gamma_bps": 1_000,
            "round_reward": tokens(1_000),
            "final_reward": tokens(3_000),
            "deposit": tokens(100),
            "min_trainer_stake": tokens(100),
            "min_validator_stake": tokens(100),
            "max_trainers": 16,
            "max_validators": 16,
            "run_bond": tokens(20),
            "min_delegation": tokens(1),
            "bond": tokens(50),
            "opening_cost": tokens(5),
            "sampled": 2,
            "named": 2,
            "burn_bps": 1_000,
            "slash_bps": 10_000,
            "show_window": 200,
            "answer_window": 200,
            "vote_window": 200,
            "appeal_window": 200,
            "jurors": 5,
            "appeals": 0,
        }
        return task_config({**terms, **changes})

    def task(self, **changes):
        """A new task with these terms."""
        return Task(self, self.terms(**changes))


@dataclass
class Proof:
    """What one trainer of a test would record: made-up states, honest structure."""

    label: object
    config: TaskConfig

    def __post_init__(self):
        work = self.config.work
        length = work.segment_length
        self.spec_digest, self.key_root = digest("spec", self.label), digest("key", self.label)
        self.segments = [
            Segment(
                index=index,
                start_step=index * length,
                end_step=min((index + 1) * length, work.steps),
                start_digest=digest("state", self.label, index),
                end_digest=digest("state", self.label, index + 1),
                batch_root=digest("batches", self.label, index),
            )
            for index in range(work.segments)
        ]
        self.model_digest, self.model_cid = digest("model", self.label), f"bafy-{self.label}"
        self.salt = digest("salt", self.label)
        self.anchors = []
        self.run_id = self.round = self.branch = None  # known when registered, committed and marked

    def open(self, index):
        return open_segment(self.segments, self.anchors, index)


class Task:
    """One task being played."""

    def __init__(self, world, config):
        self.world, self.config = world, config
        self.chain, self.reader = world.chain, world.reader
        self.id = world.creator.arena.create_task(config, "bafy-task")

    def stake(self, client, role, amount, commission_bps=0):
        client.vault.stake(self.id, role, amount, commission_bps)

    def trainer(self, index, amount, commission_bps=0):
        self.stake(self.world.clients[index], Role.TRAINER, amount, commission_bps)
        return self.world.clients[index]

    def validator(self, index, amount, commission_bps=0):
        self.stake(self.world.clients[index], Role.VALIDATOR, amount, commission_bps)
        return self.world.clients[index]

    def to(self, timestamp):
        """Move to the time when calls stamped ``timestamp`` or later can be sent, if that lies ahead."""
        if self.chain.now() < timestamp:
            self.chain.advance_to(timestamp)

    def to_submission(self):
        self.to(self.config.clock.start)

    def to_round_end(self, round_):
        self.to(self.config.clock.start + round_ * self.config.clock.round_length)

    def to_challenging(self):
        self.to(self.reader.arena.phase_times(self.id).challenge_from)

    def to_closed(self):
        self.to(self.reader.arena.phase_times(self.id).closed_from)

    def register(self, client, label=None):
        """Register a run and latch its beacon; returns the proof to come."""
        proof = Proof(label or client.address, self.config)
        proof.run_id = client.arena.register_run(self.id, proof.spec_digest, proof.key_root, self.config.pay.run_bond)
        self.chain.mine(2)
        client.arena.latch_beacon(proof.run_id)
        return proof

    def anchor(self, client, proof, parts=None):
        """Anchor all segments, in ``parts`` or in two."""
        anchorer, first = RunAnchorer(client, proof.run_id), 0
        for count in parts or (1, self.config.work.segments - 1):
            root = segment_tree(proof.segments[first : first + count]).root
            proof.anchors.append(anchorer.anchor(first, count, root))
            first += count

    def mark(self, client, proof, segment=2):
        """Name the reference state and latch the mark; submissions branch from there."""
        proof.branch = segment
        client.arena.anchor_reference(proof.run_id, proof.open(segment))
        self.chain.mine(2)
        client.arena.latch_mark(proof.run_id)

    def commit(self, client, proof):
        proof.round = client.arena.current_round(self.id)
        client.arena.commit_submission(
            proof.run_id,
            round_=proof.round,
            branch=proof.branch,
            model_digest=proof.model_digest,
            model_cid=proof.model_cid,
            salt=proof.salt,
        )

    def submit(self, client, label=None):
        """Everything a trainer does up to its commitment, within the submission phase."""
        proof = self.register(client, label)
        self.anchor(client, proof)
        self.mark(client, proof)
        self.commit(client, proof)
        return proof

    def reveal(self, client, proof):
        client.arena.reveal_submission(
            self.id,
            proof.round,
            branch=proof.branch,
            model_digest=proof.model_digest,
            model_cid=proof.model_cid,
            salt=proof.salt,
        )

    def score(self, round_, rows):
        """Commit and reveal scores: ``rows`` maps validators' clients to scores; ``None`` is committed, not shown."""
        times = self.reader.arena.round_times(self.id, round_)
        self.to(times.scores_from)
        for client, row in rows.items():
            client.scoring.commit_scores(self.id, round_, row or [0], digest("salt", client.address, round_))
        self.to(times.reveal_from)
        for client, row in rows.items():
            if row is not None:
                client.scoring.reveal_scores(self.id, round_, row, digest("salt", client.address, round_))

    def settle(self, round_):
        """Settle a round whole, whoever and whatever is left to do."""
        self.to(self.reader.arena.round_times(self.id, round_).settle_from)
        self.world.creator.scoring.settle_round(self.id, round_)

    def open_case(self, challenger, trainer, round_, *, ground=Ground.REPLAY, claim=0, named=()):
        """Seal a case against the trainer's submission of a round, show it at once and latch its seed; its id."""
        charge = Charge(
            trainer=trainer.address,
            round=round_,
            ground=ground,
            claim=claim,
            evidence_digest=digest("evidence"),
            named=named,
        )
        salt = digest("case", challenger.address)
        case = challenger.challenges.seal_case(self.id, charge, salt, bond=self.config.court.bond)
        challenger.challenges.show_case(case, charge, salt)
        self.chain.mine(2)
        challenger.challenges.latch_seed(case)
        return case


def refused(name, call, *args, **kwargs):
    """Insist that the contracts refuse the call with the error ``name``; returns the decoded error."""
    with pytest.raises(ContractReverted) as caught:
        call(*args, **kwargs)
    assert caught.value.name == name, str(caught.value)
    return caught.value
