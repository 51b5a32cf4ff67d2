"""Reading the state dict of a decoder-only transformer: in each block, the matrices that meet the residual stream.

A block reads the stream through a norm and writes to it twice: its attention through ``attention_out``, its perceptron
through ``mlp_out``. Between the two ends lie units that a thief can permute, scale or mix (hidden units, the
coordinates of a head's values), but the product of the two ends sums over them and stays. Two families of names are
known: the built-in GPT (:mod:`pol.programs.language`; LayerNorm, GELU) and what the transformers library gives Llama
and its kin (RMSNorm, gated SiLU, grouped queries), with or without the leading ``model.``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from pol.errors import SpecError
from watermark.weights.arrays import Array, State, finite_array

Part: TypeAlias = Literal["attention", "mlp"]

MAX_DEPTH: Final = 1024
HEAD_UNIT: Final = 8
"""Sizes of heads are multiples of it, where queries share values and the size has to be found."""

_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Scheme:
    """The names of one family: ``block`` with a block's number put in, then one of the others, then ``.weight``.

    The values are the last of ``fused`` equal parts of the rows of ``value``. ``gate`` decides when a hidden unit
    fires, ``up`` is what it then passes on; without a gated activation they are one tensor. ``vocabulary`` names the
    embeddings, which write to the stream by the row. ``layer_norm``: the norms take the mean out of the stream.
    """

    block: str
    attention_norm: str
    value: str
    fused: int
    attention_out: str
    mlp_norm: str
    gate: str
    up: str
    mlp_out: str
    vocabulary: tuple[str, ...]
    layer_norm: bool


def _llama(prefix: str) -> Scheme:
    return Scheme(
        block=prefix + "layers.{}.", attention_norm="input_layernorm", value="self_attn.v_proj", fused=1,
        attention_out="self_attn.o_proj", mlp_norm="post_attention_layernorm", gate="mlp.gate_proj", up="mlp.up_proj",
        mlp_out="mlp.down_proj", vocabulary=(prefix + "embed_tokens",), layer_norm=False,
    )  # fmt: skip


SCHEMES: Final = (
    Scheme(
        block="blocks.{}.", attention_norm="attention_norm", value="attention", fused=3,
        attention_out="attention_out", mlp_norm="mlp_norm", gate="mlp", up="mlp", mlp_out="mlp_out",
        vocabulary=("tokens", "positions"), layer_norm=True,
    ),
    _llama("model."),
    _llama(""),
)  # fmt: skip


def open_transformer(state: State, *, where: str) -> Transformer:
    """A view of ``state``, whose tensors are checked when they are read.

    Tensors of other names play no part. Raises :class:`SpecError` naming ``where`` if there is no block of a known
    family, or more than 1,024 of them.
    """
    for scheme in SCHEMES:
        depth = 0
        while depth <= MAX_DEPTH and f"{scheme.block.format(depth)}{scheme.value}.weight" in state:
            depth += 1
        if depth > MAX_DEPTH:
            raise SpecError(f"{where}: more than {MAX_DEPTH} blocks")
        if depth:
            return Transformer(state, scheme, depth, where)
    known = " or ".join(scheme.block.format(0) + scheme.value + ".weight" for scheme in SCHEMES)
    raise SpecError(f"{where}: no transformer of a known family; expected {known}")


@dataclass(frozen=True, slots=True, eq=False)
class Transformer:
    """``depth`` blocks of ``state`` under the names of ``scheme``. Matrices are float64, norm gains folded into them.

    Every method raises :class:`SpecError` for a tensor that is missing, not finite, or of a shape that does not fit.
    """

    state: State
    scheme: Scheme
    depth: int
    where: str

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        tensor = self.state.get(f"{self.scheme.vocabulary[0]}.weight")
        if tensor is None or tensor.dim() != 2:
            raise SpecError(f"{self.where}: {self.scheme.vocabulary[0]}.weight is missing or no matrix")
        return int(tensor.shape[1])

    @property
    def carriers(self) -> dict[str, tuple[Part, int]]:
        """The tensors that can carry a mark: those that write to the stream, with part and number of their block."""
        found: dict[str, tuple[Part, int]] = {}
        for number in range(self.depth):
            found[self._name(number, self.scheme.attention_out)] = ("attention", number)
            found[self._name(number, self.scheme.mlp_out)] = ("mlp", number)
        return found

    def check(self) -> None:
        """Read everything once."""
        width = self.width
        self.embeddings()
        for number in range(self.depth):
            self.head_sizes(number)
            value, up, gates = self.value(number), self.up(number), self.gates(number)
            self._fits(value.shape[1] == up.shape[1] == gates.shape[1] - 1 == width, number)
            out, units = self.attention_out(number), self.mlp_out(number)
            self._fits(len(out) == len(units) == width and len(gates) == len(up) == units.shape[1], number)

    def units(self, number: int) -> tuple[int, int]:
        """The columns of ``attention_out`` and ``mlp_out`` of block ``number``."""
        return self.attention_out(number).shape[1], self.mlp_out(number).shape[1]

    def embeddings(self) -> list[Array]:
        """The embeddings, [rows, width] each: first that of the tokens, then that of the positions, if there is one."""
        matrices = [self._matrix(f"{name}.weight") for name in self.scheme.vocabulary]
        if any(matrix.shape[1] != self.width for matrix in matrices):
            raise SpecError(f"{self.where}: the embeddings differ in width")
        return matrices

    def value(self, number: int) -> Array:
        """What the heads of block ``number`` read from the stream as values, [value rows, width]."""
        rows = self._matrix(self._name(number, self.scheme.value))
        self._fits(len(rows) % self.scheme.fused == 0, number)
        values = rows[len(rows) // self.scheme.fused * (self.scheme.fused - 1) :]
        return self._gained(values, number, self.scheme.attention_norm)

    def attention_out(self, number: int) -> Array:
        """What the heads of block ``number`` write, [width, k]; k is a multiple of the value rows."""
        return self._matrix(self._name(number, self.scheme.attention_out))

    def head_sizes(self, number: int) -> list[int]:
        """The sizes that the heads of block ``number`` may have. Where no queries share values, any will do."""
        rows, columns = len(self.value(number)), self.attention_out(number).shape[1]
        self._fits(columns % rows == 0, number)
        sizes = [size for size in range(HEAD_UNIT, rows, HEAD_UNIT) if rows % size == 0 and rows < columns]
        return [*sizes, rows]

    def up(self, number: int) -> Array:
        """What the hidden units of block ``number`` read from the stream and pass on, [hidden, width]."""
        return self._gained(self._matrix(self._name(number, self.scheme.up)), number, self.scheme.mlp_norm)

    def gates(self, number: int) -> Array:
        """What decides when the hidden units of block ``number`` fire: [hidden, width + 1], the last column a bias."""
        rows = self._matrix(self._name(number, self.scheme.gate))
        shift = self._vector(f"{self.scheme.block.format(number)}{self.scheme.mlp_norm}.bias", rows.shape[1])
        bias = self._vector(f"{self.scheme.block.format(number)}{self.scheme.gate}.bias", len(rows))
        firing = self._gained(rows, number, self.scheme.mlp_norm)
        return np.concatenate([firing, (bias + rows @ shift)[:, None]], axis=1)

    def mlp_out(self, number: int) -> Array:
        """What the hidden units of block ``number`` write, [width, hidden]."""
        return self._matrix(self._name(number, self.scheme.mlp_out))

    def _gained(self, rows: Array, number: int, norm: str) -> Array:
        gain = self._array(self._name(number, norm))
        self._fits(gain.shape == rows.shape[1:], number)
        return rows * gain

    def _matrix(self, name: str) -> Array:
        matrix = self._array(name)
        if matrix.ndim != 2 or not matrix.size:
            raise SpecError(f"{self.where}: {name} has shape {list(matrix.shape)}, which is no matrix")
        return matrix

    def _vector(self, name: str, size: int) -> Array:
        """Zeros where the model has no such tensor."""
        if name not in self.state:
            return np.zeros(size)
        vector = self._array(name)
        if vector.shape != (size,):
            raise SpecError(f"{self.where}: {name} has shape {list(vector.shape)}, not [{size}]")
        return vector

    def _array(self, name: str) -> Array:
        array = finite_array(self.state, name, where=self.where)
        if np.abs(array).max(initial=0.0) > _LARGEST:
            raise SpecError(f"{self.where}: {name} holds values beyond float32, of which products would overflow")
        return array

    def _name(self, number: int, name: str) -> str:
        return f"{self.scheme.block.format(number)}{name}.weight"

    def _fits(self, holds: bool, number: int) -> None:
        if not holds:
            block = self.scheme.block.format(number)[:-1]
            raise SpecError(f"{self.where}: the matrices of {block} do not fit together")


def expanded(value: Array, columns: int, head: int) -> Array:
    """The value rows [rows, width], each head of ``head`` rows repeated for the queries that share it.

    Row c of the result [columns, width] belongs to column c of ``attention_out`` (``repeat_kv`` of the transformers
    library).
    """
    shared = value.reshape(-1, 1, head, value.shape[1])
    return np.repeat(shared, columns // len(value), axis=1).reshape(columns, value.shape[1])
