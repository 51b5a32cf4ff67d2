"""Whether a training is long enough to bear a mark, tried before anything is promised.

How far a run gets from its initial state is known when it is over, and then a mark that is too strong for it is refused
(:func:`watermark.mark_run`). A trial takes the run's first steps with a seed of its own and looks as it goes.
"""

from __future__ import annotations

from typing import Final

from pol.data import Samples
from pol.errors import SpecError
from pol.order import DataOrder
from pol.program import Program
from pol.spec import TrainingSpec
from pol.state import TrainingState, model_tensors
from watermark.key import WatermarkKey
from watermark.parameters import MarkParameters
from watermark.weights.arrays import State
from watermark.weights.embed import MAX_EMBED_CHANGE, embed_weights, moved_too_far
from watermark.weights.parameters import WeightMark

TRIAL_STEPS: Final = 256
TRIAL_SEED: Final = bytes(range(32))
"""No run has it: seeds of runs are digests."""


def require_bearable(spec: TrainingSpec, program: Program, samples: Samples, parameters: MarkParameters) -> None:
    """Insist that the training of ``spec`` by ``program`` on ``samples`` can bear the mark; raises :class:`SpecError`.

    A run of at most ``TRIAL_STEPS`` steps is tried until the mark is bearable, to its end if need be. Of a longer one
    only these steps are: it is refused where the mark would be too strong even if the way grew with the square of the
    steps, as it does while a learning rate warms up. A mark that is trained in is bound by no distance.
    """
    mark = parameters.weights
    if mark is None or parameters.trained_in:
        return
    state = program.build(spec.config, TRIAL_SEED)
    first, order = _model(state), DataOrder(TRIAL_SEED, len(samples), spec.batch_size)
    key = WatermarkKey(TRIAL_SEED, parameters.leaf_count)
    steps = min(spec.steps, TRIAL_STEPS)
    for step in range(1, steps + 1):
        state.key_generators(TRIAL_SEED)
        program.train_step(state, samples.batch(order.batch(state.step)))
        state.step += 1
        if step == steps or step & (step - 1) == 0:
            growth = 1.0 if spec.steps == steps else (spec.steps / step) ** 2
            far = _too_far(first, _model(state), key, mark, MAX_EMBED_CHANGE * growth)
            if not far:
                return
    raise SpecError(
        f"the mark is too strong for so short a training: in a trial of {steps} steps {far[0]}; train longer, or "
        "promise fewer groups or a smaller margin"
    )


def _model(state: TrainingState) -> State:
    return model_tensors(state.capture(TRIAL_SEED))


def _too_far(first: State, reference: State, key: WatermarkKey, mark: WeightMark, bound: float) -> list[str]:
    return moved_too_far(first, reference, embed_weights(reference, key, TRIAL_SEED, mark), mark, bound)
