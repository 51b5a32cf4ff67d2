"""What :mod:`challenge.doctor` can find, and what to change about it."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why an honest proof of a program would break."""

    HASH_ORDER = "hash-order"
    ENVIRONMENT = "environment"
    UNINITIALISED = "uninitialised-memory"
    ENTROPY = "entropy"
    CLOCK = "clock"
    GENERATOR = "generator"
    LOADER = "data-loader"
    OPERATOR = "operator"
    OUTSIDE = "outside"
    HIDDEN_STATE = "hidden-state"
    GRADIENTS = "gradients"
    ALIASING = "aliasing"
    SCHEDULE = "schedule"
    LAYOUT = "layout"
    RESTORE = "restore"
    BUILD = "build"
    STEP_MOVED = "step-moved"
    OPTIMIZER_STEPS = "optimizer-steps"
    LOSS = "loss"
    NOT_FINITE = "not-finite"
    UNBINDABLE = "unbindable"
    DEVICE = "device"


ADVICE = {
    Reason.HASH_ORDER: (
        "Python orders sets of strings differently in every process, and so does hash(): go through a list, "
        "or sorted(...), and derive numbers with hashlib."
    ),
    Reason.ENVIRONMENT: (
        "A replay has no environment variables, network, other processes or files of yours, and writes "
        "nowhere but in its own empty folder: put what the program needs into the config or the data set."
    ),
    Reason.UNINITIALISED: "Write memory before reading it: torch.zeros or numpy.zeros instead of empty.",
    Reason.ENTROPY: (
        "Draw from the global generators of torch, numpy or python, which are keyed by (seed, step) before "
        "every step; never from the operating system."
    ),
    Reason.CLOCK: "A step must not depend on the time: use state.step, and measure time outside the program.",
    Reason.GENERATOR: (
        "Draw from the global generators of torch, numpy or python, which are keyed by (seed, step) before "
        "every step, and never seed them; a generator of your own must be made anew in each step, from them."
    ),
    Reason.LOADER: (
        "A program gets its batch from the recorder, in the committed order: do not read data in train_step; "
        "augment there, from the global generators."
    ),
    Reason.OPERATOR: (
        "Use an operator with a deterministic implementation (torch.use_deterministic_algorithms lists those "
        "without), or one of your own that adds in a fixed order."
    ),
    Reason.OUTSIDE: (
        "Something that is neither in the state, nor in the batch, nor drawn from the global generators "
        "reaches the computation: look at the line named above for threads, races, addresses (id()) or files."
    ),
    Reason.HIDDEN_STATE: (
        "A step may read nothing but state, batch and global generators, because a replay starts from those "
        "alone: derive counters from state.step, and keep tensors as buffers of the model or in the "
        "optimizer's state."
    ),
    Reason.GRADIENTS: (
        "Gradients are no part of the state: end train_step with optimizer.zero_grad(), and accumulate over "
        "parts of one batch, within one step."
    ),
    Reason.ALIASING: (
        "Tensors of the state share memory, or lie in it in an unusual way, which a stored state cannot say: "
        "give each its own contiguous memory (.clone(), .contiguous()), or register one tensor under both "
        "names."
    ),
    Reason.SCHEDULE: (
        "Hyper-parameters must follow from the config and state.step alone, through a scheduler whose step() "
        "takes no argument: no ReduceLROnPlateau, no change of param_groups by what the loss was."
    ),
    Reason.LAYOUT: (
        "The state must have the same tensors after every step: make buffers in build, and let every "
        "parameter have its optimizer state from the first step on."
    ),
    Reason.RESTORE: (
        "A freshly built program must take over a stored state: model, averaged model and optimizer must give "
        "back by state_dict what load_state_dict gave them."
    ),
    Reason.BUILD: (
        "build must make everything anew, from config and seed alone: key the generators by the seed before "
        "drawing (torch.manual_seed(draw(seed, ...))), and keep nothing in the module."
    ),
    Reason.STEP_MOVED: "Do not change state.step in train_step: whoever runs the loop counts.",
    Reason.OPTIMIZER_STEPS: (
        "A step is one call of optimizer.step(): accumulate gradients within a train_step, over parts of a "
        "larger batch."
    ),
    Reason.LOSS: "Return the loss as a tensor with one element, such as loss.detach().",
    Reason.NOT_FINITE: (
        "A proof of NaN is worth nothing and is refused: lower the learning rate, clip the gradients, or "
        "guard the operator named above."
    ),
    Reason.UNBINDABLE: (
        "Only strided tensors of the dtypes in docs/spec/proof-format.md, numbers, strings and booleans can "
        "be part of a state: convert this one, or keep it out of state_dict."
    ),
    Reason.DEVICE: "Build on the CPU, without a device of your own: whoever runs the program moves the state.",
}

# Operators for which torch.use_deterministic_algorithms(True) raises on CUDA (its documentation, torch 2.13).
CUDA_ERRORS = {
    "avg_pool3d_backward": "", "_adaptive_avg_pool2d_backward": "", "_adaptive_avg_pool3d_backward": "",
    "adaptive_max_pool2d_backward": "", "fractional_max_pool2d_backward": "", "fractional_max_pool3d_backward": "",
    "max_unpool2d": "", "max_unpool3d": "", "upsample_linear1d_backward": "", "upsample_bilinear2d_backward": "",
    "upsample_bicubic2d_backward": "", "upsample_trilinear3d_backward": "", "reflection_pad1d_backward": "",
    "reflection_pad2d_backward": "", "reflection_pad3d_backward": "", "nll_loss2d_forward": "",
    "_ctc_loss_backward": "", "_embedding_bag_backward": "(mode max)", "put_": "", "histc": "",
    "bincount": "(with weights)", "median": "(with indices)", "grid_sampler_2d_backward": "",
    "grid_sampler_3d_backward": "", "cumsum": "(of floats)",
    "scatter_reduce": "(product)", "scatter_reduce_": "(product)",
}  # fmt: skip
