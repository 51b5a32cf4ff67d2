"""Sick programs, each with a twin that does the same thing right: what tests/challenge/test_doctor.py examines.

All are edits of one healthy program, a small perceptron. A case's edits have a hole, ``§``; what fills it makes the
program sick, or well again.
"""

from __future__ import annotations

from dataclasses import dataclass

from challenge.advice import Reason

STEPS, MIDDLE = 8, 4

HEALTHY = """
import os, random, time
import numpy as np
import torch
from torch import nn
from pol.seed import draw
from pol.state import TrainingState

class Middle(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
    def forward(self, value):
        return self.linear(value)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), Middle(), nn.Linear(8, 4)])
    def forward(self, value):
        for layer in self.layers[:-1]:
            value = torch.relu(layer(value))
        return self.layers[-1](value)

class Program:
    def build(self, config, seed):
        torch.manual_seed(draw(seed, "init"))
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, foreach=False)
        return TrainingState(model=model, optimizer=optimizer)

    def train_step(self, state, batch):
        inputs, labels = batch
        loss = nn.functional.cross_entropy(state.model(inputs), labels)
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        return loss.detach()
"""

Edit = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A program with a hole, what makes it sick and well, and what must be said of it when it is sick."""

    edits: tuple[Edit, ...]
    sick: str
    twin: str
    reason: Reason
    step: int | None = 0
    phase: str | None = None
    module: str | None = None
    parameter: str | None = None
    operator: str | None = None
    detail: str = ""

    def source(self, filling: str) -> str:
        """The whole program with the hole filled."""
        text = HEALTHY
        for old, new in self.edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text.replace("§", filling)


def forward(expression: str) -> Edit:
    """What the module layers.1 returns; ``out`` is its linear layer's output."""
    return "return self.linear(value)", f"out = self.linear(value)\n        return {expression}"


def top(code: str) -> Edit:
    """Code at the module's top level."""
    return "class Middle", f"{code}\n\nclass Middle"


def member(code: str) -> Edit:
    """Code in the constructor of layers.1."""
    return "self.linear = ", f"{code}\n        self.linear = "


def before(line: str, *code: str) -> Edit:
    """Lines of train_step before ``line``."""
    return line, "\n        ".join([*code, line])


def own_optimizer(update: str) -> tuple[Edit, ...]:
    """An optimizer of the program's own that does ``update`` to each parameter ``p`` with its ``slots``."""
    code = f"""
class Own(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, dict(lr=0.05))
        self.count = 0
    @torch.no_grad()
    def step(self):
        self.count += 1
        for p in self.param_groups[0]["params"]:
            slots = self.state[p]
            {update}
"""
    built = "torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, foreach=False)"
    return top(code), (built, "Own(model.parameters())")


BACKWARD, STEPPED, ZEROED = "loss.backward()", "state.optimizer.step()", "state.optimizer.zero_grad()"
LOSS, BUILT = "return loss.detach()", "return TrainingState(model=model, optimizer=optimizer)"
INIT = 'torch.manual_seed(draw(seed, "init"))'
BIAS_GRADIENT = "state.model.layers[2].bias.grad"
SCALE = """
class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()
    @staticmethod
    def backward(ctx, grad):
        return grad * (1 + § / 1e3)
"""
NOISE = """
@torch.library.custom_op("sick::noise", mutates_args=())
def noise(value: torch.Tensor) -> torch.Tensor:
    return value + §
"""
WORDS = '{"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"}'
OWN_GENERATOR = "g = torch.Generator()"
LOADER = "torch.utils.data.DataLoader(torch.arange(9999), shuffle=True, generator=g, num_workers={})"
IN_LAYER = {"phase": "forward", "module": "layers.1"}
IN_OPTIMIZER = {"phase": "optimizer", "module": "layers.0", "parameter": "layers.0.weight"}

CASES = {
    # different in every process, or every time
    "a clock in a module": Case(
        edits=(forward("out + §"),), sick="time.time() % 1", twin="0 * time.time() + 0.5",
        reason=Reason.CLOCK, **IN_LAYER, operator="aten.add.Tensor", detail="time.time at sick.py:15",
    ),
    "entropy at step 7": Case(
        edits=(before(STEPPED, f"if state.step == 7: {BIAS_GRADIENT}.add_(§)"),),
        sick="int.from_bytes(os.urandom(4)) / 2**32", twin="random.random()",
        reason=Reason.ENTROPY, step=7, phase="step", operator="aten.add_.Tensor", detail="os.urandom at sick.py",
    ),
    "the system's numbers in a backward": Case(
        edits=(top(SCALE), forward("Scale.apply(out)")), sick="random.SystemRandom().random()", twin="random.random()",
        reason=Reason.ENTROPY, phase="backward", module="layers.1", operator="aten.mul.Tensor",
    ),
    "a clock in an optimizer": Case(
        edits=own_optimizer("p.add_(p.grad, alpha=-0.01 - §)"), sick="time.perf_counter() % 1e-3", twin="1e-3",
        reason=Reason.CLOCK, **IN_OPTIMIZER, operator="aten.add_.Tensor",
    ),
    "the order of a set": Case(
        edits=(before(STEPPED, "for n, word in enumerate(§): " + f"{BIAS_GRADIENT}.add_(ord(word[0]) / 7 ** n)"),),
        sick=WORDS, twin=f"sorted({WORDS})",
        reason=Reason.HASH_ORDER, phase="step", operator="aten.add_.Tensor",
    ),
    "an environment variable": Case(
        edits=(forward("out * §"),), sick="float(os.environ.get('DOCTOR_TEST_SCALE', 1))", twin="2.0",
        reason=Reason.ENVIRONMENT, **IN_LAYER, operator="aten.mul.Tensor",
    ),
    "a file of the trainer's": Case(
        edits=(before(STEPPED, "open('§').close()"),), sick="pyproject.toml", twin="/proc/self/stat",
        reason=Reason.ENVIRONMENT,
    ),
    "processes of its own": Case(
        edits=(before(BACKWARD, f"{OWN_GENERATOR}.manual_seed(1)", f"loss = loss * next(iter({LOADER.format('§')}))"),),
        sick="1 * (state.step == 2)", twin="0",
        reason=Reason.ENVIRONMENT, step=2,
    ),
    "memory of numpy's that nobody wrote": Case(
        edits=(forward("out + torch.from_numpy(np.§(2000, np.int32)[1000:1008] % 5)"),), sick="empty", twin="zeros",
        reason=Reason.UNINITIALISED, **IN_LAYER, operator="aten.lift_fresh.default",
    ),
    "memory of torch's that nobody wrote": Case(
        edits=(forward("out + torch.empty(8)§"),), sick="", twin=".fill_(0.5)",
        reason=Reason.UNINITIALISED, **IN_LAYER, operator="aten.empty.memory_format",
    ),
    "a generator that seeds itself": Case(
        edits=(member(OWN_GENERATOR + "; self.g = g"), forward("(self.g.§, out * torch.rand(8, generator=self.g))[1]")),
        sick="seed()", twin="manual_seed(int(torch.randint(9, ())))",
        reason=Reason.GENERATOR, **IN_LAYER, operator="aten.rand.generator",
    ),
    "an operator that is no function": Case(
        edits=(top(NOISE), forward("out + noise(value.detach())")), sick="int.from_bytes(os.urandom(1))", twin="1",
        reason=Reason.OPERATOR, **IN_LAYER, operator="sick.noise.default",
    ),
    "data read in the step": Case(
        edits=(before(BACKWARD, f"{OWN_GENERATOR}; g.§", f"loss = loss * next(iter({LOADER.format(0)}))"),),
        sick="seed()", twin="manual_seed(7)",
        reason=Reason.LOADER, phase="step",
    ),
    "a build that asks the system": Case(
        edits=((INIT, "torch.manual_seed(int.from_bytes(§))"),), sick="os.urandom(4)", twin="seed[:4]",
        reason=Reason.ENTROPY, step=None, phase="build", operator="aten.uniform_.default",
    ),
    "an address": Case(
        edits=(forward("out + §"),), sick="id(out) % 997 / 997", twin="(id(out) == id(out)) / 997",
        reason=Reason.OUTSIDE, **IN_LAYER, operator="aten.add.Tensor",
    ),
    # different after a restart from the middle
    "a generator that lives on": Case(
        edits=(top(f"{OWN_GENERATOR}.manual_seed(1)"), forward("out * torch.rand(8§)")), sick=", generator=g", twin="",
        reason=Reason.GENERATOR, step=MIDDLE, **IN_LAYER, operator="aten.rand.generator",
        detail="sick.g: a generator (torch.Generator)",
    ),
    "python's generator, kept": Case(
        edits=(top("own = random.Random(1)"), forward("out * §.random()")), sick="own", twin="random",
        reason=Reason.GENERATOR, step=MIDDLE, **IN_LAYER, operator="aten.mul.Tensor",
        detail="sick.own: a generator (random.Random)",
    ),
    "a counter in a module": Case(
        edits=(member("self.calls = 0"), forward("setattr(self, 'calls', self.calls + 1) or out / §")),
        sick="self.calls", twin="2",
        reason=Reason.HIDDEN_STATE, step=MIDDLE, **IN_LAYER, operator="aten.div.Tensor",
        detail="model.layers.1.calls: 4 in the run, 0 restored",
    ),
    "a global counter that matters at step 6": Case(
        edits=(top("CALLS = []"), before(BACKWARD, "CALLS.append(0)", "loss = loss * (2 if § else 1)")),
        sick="len(CALLS) == 7", twin="state.step == 6",
        reason=Reason.HIDDEN_STATE, step=6, phase="step", operator="aten.mul.Tensor", detail="sick.CALLS: list of 4",
    ),
    "a counter in an optimizer": Case(
        edits=own_optimizer("slots['n'] = slots.get('n', torch.zeros(())) + 1; p.sub_(p.grad / §)"),
        sick="self.count", twin="slots['n']",
        reason=Reason.HIDDEN_STATE, step=MIDDLE, **IN_OPTIMIZER, operator="aten.div.Tensor",
        detail="optimizer.count: 4 in the run",
    ),
    "gradients carried over": Case(
        edits=((ZEROED, f"if §: {ZEROED}"),), sick="state.step % 3 == 2", twin="state.step >= 0",
        reason=Reason.GRADIENTS, step=MIDDLE, phase="backward", module="layers.2", parameter="layers.2.bias",
        detail="gradient of layers.0.weight",
    ),
    "two names for one memory": Case(
        edits=own_optimizer("slots.setdefault('old', §); p.sub_(p.grad * 0.1 + slots['old'] * 0.1)"),
        sick="p", twin="p.clone()",
        reason=Reason.ALIASING, step=MIDDLE, detail="shared with model.layers.0.weight",
    ),
    "a buffer with stride 0": Case(
        edits=(member("self.register_buffer('ones', torch.ones(1).§(8))"),), sick="expand", twin="repeat",
        reason=Reason.ALIASING, step=MIDDLE,
    ),
    "a schedule that wants the loss": Case(
        edits=((BUILT, "return TrainingState(model, optimizer, torch.optim.lr_scheduler.§)"),
               before(LOSS, "s = state.scheduler", "s.step(loss.detach()) if hasattr(s, 'patience') else s.step()")),
        sick="ReduceLROnPlateau(optimizer)", twin="StepLR(optimizer, 3)",
        reason=Reason.SCHEDULE, step=None,
    ),
    "a rate that follows the loss": Case(
        edits=(before(LOSS, "state.optimizer.param_groups[0]['lr'] = 0.05 * §"),), sick="float(loss)", twin="1",
        reason=Reason.SCHEDULE, step=MIDDLE, detail="param_groups.0.lr: ",
    ),
    "optimizer state that comes late": Case(
        edits=(before(STEPPED, "weight = state.model.layers[0].weight", "if state.step < 3: weight.grad§"),),
        sick=" = None", twin=".zero_()",
        reason=Reason.LAYOUT, step=MIDDLE,
    ),
    "a module that loads another state": Case(
        edits=(member("self.register_load_state_dict_pre_hook(lambda m, d, *_: [d[k].mul_(§) for k in d])"),),
        sick="2", twin="1",
        reason=Reason.RESTORE, step=MIDDLE,
    ),
    # wrong however often it runs
    "a step that counts itself": Case(
        edits=(before(LOSS, "state.step += §"),), sick="1", twin="0",
        reason=Reason.STEP_MOVED,
    ),
    "an optimizer that waits": Case(
        edits=((STEPPED, f"if §: {STEPPED}"),), sick="state.step % 2", twin="state.step >= 0",
        reason=Reason.OPTIMIZER_STEPS,
    ),
    "a logarithm of zero at step 3": Case(
        edits=(before(BACKWARD, "if state.step == 3: loss = loss + (inputs * 0).§().mean()"),), sick="log", twin="exp",
        reason=Reason.NOT_FINITE, step=3, phase="step", operator="aten.log.default",
    ),
    "a loss that is a number": Case(
        edits=((LOSS, "return §(loss)"),), sick="float", twin="torch.detach",
        reason=Reason.LOSS,
    ),
    "a complex buffer": Case(
        edits=(member("self.register_buffer('wave', torch.ones(2, dtype=torch.§))"),), sick="complex64", twin="float64",
        reason=Reason.UNBINDABLE, step=None,
    ),
    "a device of its own": Case(
        edits=(member("self.register_buffer('far', torch.ones(2, device='§'))"),), sick="meta", twin="cpu",
        reason=Reason.DEVICE, step=None,
    ),
    "a build that is not keyed": Case(
        edits=((INIT, "§"),), sick="print('unkeyed')", twin="torch.default_generator.manual_seed(draw(seed, 'x'))",
        reason=Reason.BUILD, step=None, phase="build", operator="aten.uniform_.default",
    ),
    "a model that is built once": Case(
        edits=(top("NETS = []"), ("model = Net()", "NETS.append(Net()); model = NETS[§]")), sick="0", twin="-1",
        reason=Reason.BUILD, step=None,
    ),
    "an operator that torch refuses": Case(
        edits=(forward("out.§"),),
        sick="put(torch.tensor([0]), torch.ones(1))", twin="index_fill(0, torch.tensor(0), 1.0)",
        reason=Reason.OPERATOR, **IN_LAYER, operator="aten.put.default",
    ),
}  # fmt: skip
