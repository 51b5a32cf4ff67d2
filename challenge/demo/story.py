"""The story in acts. Each act is a few calls of the public functions; the settings are in ``setting.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chain.case import CaseVerdict, Charge, Ground
from chain.client import ArenaClient
from chain.commitments import new_salt
from chain.devnet import DevChain, EmbeddedChain
from challenge.claims import read_claim
from challenge.demo.mallory import disguise, forge
from challenge.demo.setting import (
    BLOCKS_TO_BEACON,
    CREATOR,
    DELEGATIONS,
    FINAL_ROUND,
    PEOPLE,
    TRAINERS,
    VALIDATORS,
    Setting,
    prepare,
    stake_everyone,
)
from challenge.demo.trainer import Submitted, claim_watermark, mark_and_commit, register, reveal, train
from challenge.dispute import answer_case, judge_case, vote
from challenge.scoring import score_model
from challenge.sealed import read_sealed_claim, seal_claim
from challenge.segments import Policy
from challenge.verdict import Verdict
from challenge.verify import verify
from pol.data import Dataset, digits
from pol.state import from_safetensors
from pol.store import write_atomically
from watermark.sealing import JurorKey

CONTRACTS = ("vault", "escrow", "arena", "challenges")


@dataclass
class Story:
    """What happened: balances in wei by person or contract, verdicts, cases, and the folders, chain and (secret) keys
    left behind."""

    setting: Setting
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    supply_before: int = 0
    supply_after: int = 0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    cases: dict[str, CaseVerdict] = field(default_factory=dict)
    claims: dict[str, Path] = field(default_factory=dict)
    submissions: dict[str, Submitted] = field(default_factory=dict)
    rewards: dict[str, int] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """The folder with a proof a trainer."""
        return self.setting.runs


def play(runs: Path, say: Callable[[str], None], chain: DevChain | None = None) -> Story:
    """Play the whole story into the folder ``runs``; ``say`` receives a line for everything that happens.

    It is played on ``chain``, a new one with an account for everybody; without one, inside this process.
    """
    say("Act 1: a task is published")
    runs.mkdir(parents=True, exist_ok=True)
    setting = prepare(runs, say, chain or EmbeddedChain(accounts=len(PEOPLE)))
    story = Story(setting)
    steps = setting.terms.work.steps
    say(f"  task {setting.task_id}: train a perceptron on 1,197 real digits, {steps} steps, two rounds")
    story.before = _balances(setting)
    story.supply_before = setting.clients[CREATOR].token.total_supply()
    say("Act 2: three trainers and four validators stake, two delegators lend")
    stake_everyone(setting)
    story.submissions = _first_round(setting)
    story.submissions["mallory"] = _second_round(setting, story.submissions["alice"])
    _final_validation(setting)
    story.rewards = {n: setting.clients[n].escrow.allocated(setting.task_id, setting.address(n)) for n in TRAINERS}
    _challenging(setting, story)
    _close(setting, story)
    story.after = _balances(setting)
    story.supply_after = setting.clients[CREATOR].token.total_supply()
    return story


def _first_round(setting: Setting) -> dict[str, Submitted]:
    say, times = setting.say, setting.clients[CREATOR].arena.round_times(setting.task_id, 1)
    setting.wait_until(setting.terms.clock.start)
    say("Act 3: round 1. Alice and Bob register, receive their beacons and train")
    submissions = {}
    for name in ("alice", "bob"):
        entry = register(setting, name)
        say(f"  {name}: promised spec and key, then drew seed block {entry.seed_source.block}")
        proof = train(setting, entry)
        submissions[name] = mark_and_commit(setting, entry, proof)
        say(f"  {name}: {len(proof.segments)} segments in {len(proof.anchors)} anchors, watermark embedded, committed")
    setting.wait_until(times.opens_at)
    for submitted in submissions.values():
        reveal(setting, submitted)
    say("  both reveal: their weights are public from here on")
    _score_round(setting, 1)
    return submissions


def _second_round(setting: Setting, victim: Submitted) -> Submitted:
    say, times = setting.say, setting.clients[CREATOR].arena.round_times(setting.task_id, 2)
    say("Act 4: round 2. Mallory takes Alice's published model")
    entry = register(setting, "mallory")
    dataset = Dataset.from_bytes(setting.store.get(setting.task.train_cid))
    mark = victim.proof.submission
    assert mark is not None
    stolen = from_safetensors(setting.store.get(mark.model_cid), where="published model")
    target = disguise(stolen, entry, dataset)
    say("  mallory: fine-tuned it a little, shuffled its hidden units, pruned 30 % of the hidden layer")
    proof = forge(setting, entry, target, dataset)
    submitted = mark_and_commit(setting, entry, proof)
    say(f"  mallory: forged {len(proof.segments)} consistent segments, anchored them, marked and committed")
    setting.wait_until(times.opens_at)
    reveal(setting, submitted)
    _score_round(setting, 2)
    return submitted


def _final_validation(setting: Setting) -> None:
    creator = setting.clients[CREATOR]
    setting.say("Act 5: final validation, on a set that was committed at the start and hidden since")
    final = digits("final-validation")
    times = creator.arena.round_times(setting.task_id, FINAL_ROUND)
    setting.wait_until(times.opens_at)
    creator.scoring.open_final_set(setting.task_id, final.root, setting.final_salt, setting.store.put(final.to_bytes()))
    _score_round(setting, FINAL_ROUND)


def _score_round(setting: Setting, round_: int) -> None:
    """Every validator scores every standing model for itself; all commit before anyone reveals."""
    times = setting.clients[CREATOR].arena.round_times(setting.task_id, round_)
    models, dataset = _standing_models(setting, round_), _evaluation_set(setting, round_)
    half = Dataset(dataset.inputs[::2], dataset.labels[::2])  # wanda saves effort, and her distance shows it
    scores = {name: _scores(setting, models, half if name == "wanda" else dataset) for name in VALIDATORS}
    salts = {name: new_salt() for name in VALIDATORS}
    setting.wait_until(times.scores_from)
    for name in VALIDATORS:
        setting.clients[name].scoring.commit_scores(setting.task_id, round_, scores[name], salts[name])
    setting.wait_until(times.reveal_from)
    for name in VALIDATORS:
        setting.clients[name].scoring.reveal_scores(setting.task_id, round_, scores[name], salts[name])
    setting.wait_until(times.settle_from)
    setting.clients[CREATOR].scoring.settle_round(setting.task_id, round_)
    shown = ", ".join(f"{n} {s / 100:.2f} %" for n, s in zip(TRAINERS, scores["vera"], strict=True) if s)
    setting.say(f"  round {round_} scored by {len(VALIDATORS)} validators and settled: {shown}")


def _standing_models(setting: Setting, round_: int) -> list[tuple[bytes, bytes] | None]:
    """(blob, promised digest) of every staked trainer's model, in staking order; None where none stands."""
    client = setting.clients[CREATOR]
    models: list[tuple[bytes, bytes] | None] = []
    for name in TRAINERS:
        trainer = setting.address(name)
        if not client.arena.standing_order(setting.task_id, trainer, round_):
            models.append(None)
            continue
        revealed = client.arena.events("SubmissionRevealed", taskId=setting.task_id, trainer=trainer)
        latest = next(event for event in reversed(revealed) if event.args["round"] <= round_)
        models.append((setting.store.get(str(latest.args["modelCid"])), bytes(latest.args["modelDigest"])))
    return models


def _evaluation_set(setting: Setting, round_: int) -> Dataset:
    final = round_ == FINAL_ROUND
    cid = _final_cid(setting.clients[CREATOR], setting.task_id) if final else setting.task.evaluation_cid
    return Dataset.from_bytes(setting.store.get(cid))


def _scores(setting: Setting, models: Sequence[tuple[bytes, bytes] | None], dataset: Dataset) -> list[int]:
    """One validator's basis points in the order of the staked trainers; 0 where no submission stands."""
    return [
        score_model(
            *model,
            program=setting.task.program,
            program_digest=setting.terms.work.program_digest,
            config=setting.task.config,
            dataset=dataset,
        )
        if model
        else 0
        for model in models
    ]


def _final_cid(client: ArenaClient, task_id: int) -> str:
    return str(next(iter(client.scoring.events("FinalSetOpened", taskId=task_id))).args["cid"])


def _challenging(setting: Setting, story: Story) -> None:
    say, vera = setting.say, setting.clients["vera"]
    say("Act 6: the challenging phase. The watermark beacon is drawn, Alice and Bob open the leaves it picks")
    setting.wait_until(vera.arena.phase_times(setting.task_id).challenge_from)
    vera.scoring.request_opening_beacon(setting.task_id)
    setting.chain.mine(BLOCKS_TO_BEACON)
    vera.scoring.latch_opening_beacon(setting.task_id)
    story.claims = {name: claim_watermark(setting, story.submissions[name]) for name in ("alice", "bob")}
    claims = {name: read_claim(folder) for name, folder in story.claims.items()}
    for name in TRAINERS:
        story.verdicts[name] = verify(setting.runs / name, Policy(), claims=list(claims.values()), chain=vera)
        say(f"  vera runs challenge verify {setting.runs / name}: {_one_line(story.verdicts[name])}")
    say("  vera challenges Mallory; wanda, without a reason, challenges Alice")
    evidence = claims["alice"].claim.digest
    for challenger, name in (("vera", "mallory"), ("wanda", "alice")):
        submitted = story.submissions[name]
        story.cases[name] = _case(setting, challenger, submitted, evidence, list(story.claims.values()))


def _case(
    setting: Setting, challenger: str, submitted: Submitted, evidence: bytes, claims: Sequence[Path]
) -> CaseVerdict:
    """One case from the sealed charge to settlement; all other validators are its jury, and ``claims`` are sealed to
    them."""
    say, client, trainer = setting.say, setting.clients[challenger], submitted.entry.name
    charge = Charge(
        trainer=setting.address(trainer), round=submitted.round, ground=Ground.REPLAY, evidence_digest=evidence
    )
    salt = new_salt()
    case_id = client.challenges.seal_case(setting.task_id, charge, salt, bond=setting.terms.court.bond)
    client.challenges.show_case(case_id, charge, salt)
    setting.chain.mine(BLOCKS_TO_BEACON)
    client.challenges.latch_seed(case_id)
    drawn = client.challenges.segments_to_open(case_id)
    say(f"  case {case_id}, {challenger} against {trainer}: a later block drew segments {drawn}")
    answer_case(setting.clients[trainer], case_id, setting.runs / trainer, setting.store)
    case = client.challenges.case(case_id)
    keys = {juror: JurorKey.generate() for juror in VALIDATORS if juror != challenger}
    sealed = [_sealed(claim, keys, case_id) for claim in claims]
    say(f"    the claims are sealed to {', '.join(keys)}, for this case only")
    votes = {}
    for juror, key in keys.items():
        opened = [read_sealed_claim(path, key, case=case_id) for path in sealed]
        verdict = judge_case(setting.clients[juror], case_id, setting.store, claims=opened)
        votes[juror] = vote(setting.clients[juror], case_id, verdict)
        say(f"    {juror} replays the opened segments: {_one_line(verdict)}")
    setting.wait_until(case.deadline)
    for juror, cast in votes.items():
        if cast:
            uphold, reproduction, salt = cast
            setting.clients[juror].challenges.reveal_vote(case_id, uphold=uphold, reproduction=reproduction, salt=salt)
    setting.wait_until(case.reveal_by)
    outcome = client.challenges.settle(case_id)
    say(f"  case {case_id} is {outcome.name}")
    return outcome


def _sealed(claim: Path, keys: Mapping[str, JurorKey], case_id: int) -> Path:
    """The claim as its owner hands it to the jurors of one case."""
    path = claim.with_name(f"{claim.name}-case-{case_id}.sealed")
    write_atomically(path, seal_claim(claim, [key.public for key in keys.values()], case=case_id))
    return path


def _close(setting: Setting, story: Story) -> None:
    """After the challenging phase everybody takes what is theirs; nobody could before."""
    setting.say("Act 7: the challenging phase is over; rewards, stakes and credits are paid out")
    creator = setting.clients[CREATOR]
    setting.wait_until(creator.arena.phase_times(setting.task_id).closed_from)
    for name, submitted in story.submissions.items():
        run_id = submitted.entry.run_id
        if story.cases.get(name) is CaseVerdict.UPHELD:
            creator.challenges.award(setting.task_id, setting.address(name))
            creator.arena.void_run(run_id)
        else:
            setting.clients[name].arena.release_run_bond(run_id)
    for name in (*TRAINERS, *VALIDATORS):
        client = setting.clients[name]
        if client.escrow.claimable(setting.task_id, client.address):
            client.escrow.claim(setting.task_id)
        if client.challenges.credit(client.address):
            client.challenges.withdraw_credit()
        if client.vault.own_stake(setting.task_id, client.address) > client.vault.slashed(
            setting.task_id, client.address
        ):
            client.vault.withdraw(setting.task_id)
    for name, (operator, _) in DELEGATIONS.items():
        client = setting.clients[name]
        if client.escrow.claimable_delegated(setting.task_id, setting.address(operator), client.address):
            client.escrow.claim_delegated(setting.task_id, setting.address(operator))
        client.vault.undelegate(setting.task_id, setting.address(operator))
    creator.escrow.reclaim(setting.task_id)


def _balances(setting: Setting) -> dict[str, int]:
    """Everybody's tokens in wei, contracts included."""
    token, deployment = setting.clients[CREATOR].token, setting.clients[CREATOR].deployment
    people = {name: token.balance_of(setting.address(name)) for name in PEOPLE}
    return people | {name: token.balance_of(getattr(deployment, name)) for name in CONTRACTS}


def _one_line(verdict: Verdict) -> str:
    found = [f"{m['matches']}/{m['trials']}" for m in verdict.watermarks if m["found"] and not m["own"]]
    foreign = f"; another trainer's watermark found ({', '.join(found)} bits)" if found else ""
    return f"{verdict.outcome.value} (exit code {int(verdict.exit_code)}){foreign}"
