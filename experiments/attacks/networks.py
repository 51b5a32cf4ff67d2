"""What attacks share about networks: copies, their state dicts, the tensors that matter, what they answer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import nn

from pol.programs import convnet

State: TypeAlias = dict[str, torch.Tensor]


class Host(nn.Module):
    """A stolen ``model`` that is only reached through what its host does with inputs and answers."""

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def weights_of(network: nn.Module) -> State:
    """The state dict that a white-box test gets to see: a host's model, without the host."""
    while isinstance(network, Host):
        network = network.model
    return state_of(network)


def copied(network: nn.Module) -> nn.Module:
    """A network of its own with the same values."""
    return copy.deepcopy(network)


def state_of(network: nn.Module) -> State:
    """A copy of the network's state dict."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def loaded(network: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of ``network`` that holds ``state``, whose tensors may have more or fewer units than its own.

    ``state`` has the network's names. Attributes that record a size (``in_features`` and the like) are left as they
    are, because no layer reads them, but for the channels that a ResNet's shortcut adds.
    """
    result = copied(network)
    for name, tensor in (*result.named_parameters(), *result.named_buffers()):
        if name in state:
            tensor.data = state[name].detach().clone().to(tensor.dtype)
    for block in result.modules():
        if isinstance(block, convnet.Block):
            first, *_, last = (part for part in block.residual if isinstance(part, nn.Conv2d))
            block.added = len(last.weight) - first.weight.shape[1]
    return result


def outputs_of(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The network's outputs: logits, or images. Transformers-library models return them in a field."""
    outputs = network(inputs)
    return getattr(outputs, "logits", outputs)  # type: ignore[no-any-return]


@torch.no_grad()
def query(network: nn.Module, inputs: torch.Tensor, batch: int = 256) -> torch.Tensor:
    """All outputs of ``network`` in evaluation mode, a batch at a time."""
    network.eval()
    return torch.cat([outputs_of(network, part) for part in batches(inputs, batch)])


def batches(rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """``rows`` in their order, ``size`` at a time."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def matrices(network: nn.Module) -> list[str]:
    """The names of the weights of linear and convolutional layers; of the adapters alone, if there are any.

    Norms, biases, statistics and embeddings are left out, as in the toolbox of Lukas et al. 2022.
    """
    modules = network.named_modules()
    names = [f"{name}.weight" for name, module in modules if isinstance(module, nn.Linear | nn.Conv2d)]
    return [name for name in names if "lora_" in name] or names


def layers(network: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """The trainable linear and convolutional layers in the order of the network; the last gives the outputs."""
    found = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [module for module in found if module.weight.requires_grad]
