"""The setting of the story: a chain, a store, a task's terms, and the people in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.client import ArenaClient
from chain.commitments import final_set_commitment, new_salt
from chain.deployment import deploy
from chain.devnet import DevChain
from chain.terms import Clock, Court, Numerics, Pay, TaskConfig, Work
from chain.types import Role, tokens
from challenge.task import TaskDescription
from pol.data import Dataset, digits
from pol.machine import this_machine
from pol.merkle import merkle_root
from pol.program import config_from, program_digest
from pol.store import BlobStore, LocalStore

PROGRAM = "pol.programs.classifier:ImageClassifier"
STEPS, SEGMENT_LENGTH, BATCH_SIZE, THREADS = 240, 10, 64, 1
HOUR = 3600
ROUNDS = 2
FINAL_ROUND = ROUNDS + 1
BLOCKS_TO_BEACON = 3
DEPLOYMENT = "deployment.json"
SUPPLY = tokens(1_000_000)
ALLOWANCE = tokens(10_000)
CONFIG = dict(
    inputs=64, width=512, hidden=2, classes=10, steps=STEPS,
    learning_rate=1e-3, weight_decay=0.0, dropout=0.1, batch_norm=False,
)  # fmt: skip
CREATOR = "creator"
TRAINERS = ("alice", "bob", "mallory")
VALIDATORS = ("vera", "victor", "viola", "wanda")
DELEGATIONS = {"dora": ("alice", tokens(500)), "dan": ("vera", tokens(400))}
STAKES = {
    "alice": tokens(1000), "bob": tokens(800), "mallory": tokens(1200),
    "vera": tokens(1000), "victor": tokens(900), "viola": tokens(1100), "wanda": tokens(1000),
}  # fmt: skip
COMMISSION_BPS = 2000
PEOPLE = (CREATOR, *TRAINERS, *VALIDATORS, *DELEGATIONS)


@dataclass(frozen=True)
class Setting:
    """Everything the acts share. ``clients`` act for one person each; ``say`` tells the reader what happens."""

    chain: DevChain
    store: BlobStore
    clients: dict[str, ArenaClient]
    task_id: int
    task: TaskDescription
    terms: TaskConfig
    final_salt: bytes
    runs: Path
    say: Callable[[str], None]

    def address(self, person: str) -> str:
        """The checksum address of ``person``."""
        return self.clients[person].address

    def wait_until(self, timestamp: int) -> None:
        """Let the chain's clock run to ``timestamp`` (seconds), if it is not there yet."""
        if self.chain.now() < timestamp:
            self.chain.advance_to(timestamp)


def prepare(runs: Path, say: Callable[[str], None], chain: DevChain) -> Setting:
    """Deploy the contracts on ``chain``, hand out tokens and publish the task (act 1)."""
    accounts = dict(zip(PEOPLE, chain.accounts, strict=True))
    deployment = deploy(chain.web3, accounts[CREATOR], SUPPLY)
    deployment.save(runs / DEPLOYMENT)
    clients = {name: ArenaClient(chain.web3, deployment, account) for name, account in accounts.items()}
    for name in PEOPLE[1:]:
        clients[CREATOR].token.transfer(clients[name].address, ALLOWANCE)
    store = LocalStore(runs / "store")
    train, evaluation, final = (digits(s) for s in ("train", "submission-validation", "final-validation"))
    task = TaskDescription(
        program=PROGRAM,
        config=config_from(CONFIG),
        batch_size=BATCH_SIZE,
        train_name="digits/train",
        train_cid=store.put(train.to_bytes()),
        evaluation_cid=store.put(evaluation.to_bytes()),
        machines=(this_machine(threads=THREADS).digest,),
    )
    salt = new_salt()
    terms = _terms(chain.now() + HOUR, task.machines, train, evaluation, final, salt)
    task_id = clients[CREATOR].arena.create_task(terms, store.put(task.to_bytes()))
    return Setting(
        chain=chain, store=store, clients=clients, task_id=task_id, task=task, terms=terms,
        final_salt=salt, runs=runs, say=say,
    )  # fmt: skip


def stake_everyone(setting: Setting) -> None:
    """Trainers and validators stake their own tokens, delegators lend theirs (act 2)."""
    for name in TRAINERS:
        setting.clients[name].vault.stake(setting.task_id, Role.TRAINER, STAKES[name], COMMISSION_BPS)
    for name in VALIDATORS:
        setting.clients[name].vault.stake(setting.task_id, Role.VALIDATOR, STAKES[name], COMMISSION_BPS)
    for name, (operator, amount) in DELEGATIONS.items():
        setting.clients[name].vault.delegate(setting.task_id, setting.address(operator), amount)


def _terms(
    start: int, machines: Sequence[bytes], train: Dataset, evaluation: Dataset, final: Dataset, salt: bytes
) -> TaskConfig:
    return TaskConfig(
        clock=Clock(start=start, round_length=24 * HOUR, window=2 * HOUR, challenge_length=48 * HOUR, rounds=ROUNDS),
        work=Work(
            program_digest=program_digest(PROGRAM),
            train_root=train.root,
            eval_root=evaluation.root,
            final_set_commitment=final_set_commitment(final.root, salt),
            classes_root=merkle_root(machines),
            numerics=Numerics.MACHINE,
            steps=STEPS,
            segment_length=SEGMENT_LENGTH,
        ),
        pay=Pay(
            q=tokens("0.9"),
            alpha_trainer=tokens(1),
            alpha_validator=tokens(1),
            lambda_=tokens(2),
            gamma_bps=2000,
            round_reward=tokens(200),
            final_reward=tokens(600),
            deposit=tokens(100),
            min_trainer_stake=tokens(100),
            min_validator_stake=tokens(100),
            max_trainers=16,
            max_validators=16,
            run_bond=tokens(20),
            min_delegation=tokens(1),
        ),
        court=Court(
            bond=tokens(50),
            opening_cost=tokens(5),
            sampled=4,
            named=2,
            burn_bps=1000,
            slash_bps=10_000,
            show_window=2 * HOUR,
            answer_window=4 * HOUR,
            vote_window=4 * HOUR,
            appeal_window=2 * HOUR,
            jurors=5,
            appeals=0,
        ),
    )
