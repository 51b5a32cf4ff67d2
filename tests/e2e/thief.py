"""The thief's own program, for which there is no command: record a training, and put a published model at its end.

``python -m tests.e2e.thief FOLDER VICTIM STORE``: the folder of a registered run, the address of the trainer to steal
from, and the store that serves its models. Network, account and arena are the environment's, as for ``arena``. Killed
and started again it goes on, as ``arena run train`` does.
"""

import os
import sys
from pathlib import Path

from chain.anchoring import RunAnchorer
from challenge.arena.run import open_run
from challenge.arena.session import open_session
from pol import Recorder
from pol.data import digits
from pol.proof import MANIFEST
from pol.state import from_safetensors
from pol.store import open_store


def main(folder, victim, store):
    place, account, arena = (os.environ[f"ARENA_{name}"] for name in ("NETWORK", "ACCOUNT", "ADDRESS"))
    with open_session(place, account, arena, yes=True) as session:
        kept = open_run(session, folder)
        if (kept.proof / MANIFEST).is_file():
            return
        stolen = published(session, kept.task, victim, store)
        anchorer = RunAnchorer(session.client, kept.number)
        with Recorder(kept.spec, kept.proof, seed_source=kept.seed, anchorer=anchorer) as recorder:
            state = recorder.program.build(kept.spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(digits("train")):
                loss = recorder.program.train_step(state, batch)
                if steps_taken(state.optimizer) == kept.spec.steps:
                    state.model.load_state_dict(stolen)
                recorder.step(loss)


def published(session, task, victim, store):
    """The weights that the victim showed last."""
    shown = session.client.arena.events("SubmissionRevealed", taskId=task, trainer=victim)
    blob = open_store(store).get(str(shown[-1].args["modelCid"]))
    return from_safetensors(blob, where="the published model")


def steps_taken(optimizer):
    """As the optimiser counts, also in a training that goes on after an interruption."""
    return max(int(kept["step"]) for kept in optimizer.state.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
