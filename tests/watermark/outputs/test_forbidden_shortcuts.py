"""Shortcuts that look harmless and convict innocents: each is shown, and each is closed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from pol.errors import CannotRun, ProofError, SpecError
from pol.programs.image_to_image import Translator
from pol.tensors import tensors_digest
from tests.watermark.outputs.conftest import BETA, MARK, Owner
from watermark import Evidence, WatermarkKey
from watermark.bits import mark_bit
from watermark.outputs import OutputMark, output_matches
from watermark.outputs.extractor import Extractor, Regression, load_extractor, public_extractor
from watermark.outputs.fit import outputs_of
from watermark.outputs.training import degraded, scenes

ACCUSER = WatermarkKey(b"an accuser's secret, 32 bytes ..", 128)


def accusers_bits() -> torch.Tensor:
    return torch.tensor([mark_bit(BETA, ACCUSER.root, leaf.index, leaf.seed) for leaf in ACCUSER.leaves])


def accusers_seeds() -> list[bytes]:
    return [leaf.seed for leaf in ACCUSER.leaves]


@pytest.mark.slow
def test_an_accuser_who_makes_the_inputs_convicts_innocents(owner: Owner, innocent: Translator) -> None:
    """Why the beacon draws the inputs: for bits that he knows, an accuser finds images that make an innocent agree."""
    torch.manual_seed(4)
    honest = degraded(scenes(MARK.images, 24))
    bits, inputs = accusers_bits(), honest.clone().requires_grad_()
    regression = Regression(outputs_of(owner.theta_ref, honest, where=""), accusers_seeds())
    optimizer = torch.optim.Adam([inputs], lr=0.01)
    for _ in range(15):
        optimizer.zero_grad()
        values = regression.soft_values(innocent(inputs), owner.theta_ref(inputs), public_extractor())
        functional.softplus(-bits * values / values.detach().abs().mean()).mean().backward()
        optimizer.step()

    def log2_p(inputs: torch.Tensor) -> float:
        matches = output_matches(innocent, owner.theta_ref, inputs, ACCUSER.leaves, BETA, ACCUSER.root, MARK)
        return Evidence(matches, 128).log2_p

    assert log2_p(inputs.detach()) < -30
    assert log2_p(honest) > -20


@pytest.mark.slow
def test_an_accuser_who_trains_an_extractor_convicts_innocents(owner: Owner, innocent: Translator) -> None:
    """Why the extractor is public and pinned: one that was trained on the bits reads them out of anybody's images."""
    images, reference = (outputs_of(net, owner.probes, where="") for net in (innocent, owner.theta_ref))
    bits, seeds = accusers_bits(), accusers_seeds()
    regression = Regression(reference, seeds)
    torch.manual_seed(5)
    trained = Extractor()
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        functional.softplus(-1e3 * bits * regression.soft_values(images, reference, trained)).mean().backward()
        optimizer.step()
    found = {}
    for name, extractor in {"trained": trained, "public": public_extractor()}.items():
        values = regression.soft_values(images, reference, extractor)
        found[name] = Evidence(int((bits * values > 0).sum()), 128).log2_p
    assert found["trained"] < -30
    assert found["public"] > -20

    own = tensors_digest(trained.state_dict())
    with pytest.raises(SpecError, match="not the public one"):
        OutputMark(groups=16, leaves=8, strength=0.03, extractor=own)
    with pytest.raises(ProofError, match="not the public one"):
        OutputMark.from_json({**MARK.to_json(), "extractor": "0x" + own.hex()}, where="spec")


def test_another_extractor_in_the_public_ones_place_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "extractor.safetensors"
    for content in (b"", b"not a safetensors file"):
        path.write_bytes(content)
        with pytest.raises(CannotRun, match="install aiarena again"):
            load_extractor(path)
    save_file(Extractor().state_dict(), path)
    with pytest.raises(CannotRun, match="not the public extractor"):
        load_extractor(path)
    with pytest.raises(CannotRun, match="cannot be read"):
        load_extractor(tmp_path / "missing")
    assert public_extractor() is not None
