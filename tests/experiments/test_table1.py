"""The simulation of the paper's Table 1: the rewards it sums up are those of the reference model."""

import numpy as np
import pytest

from experiments.table1 import run
from experiments.table1.page import PAGE
from experiments.table1.simulate import Day, disagreement, node_shares, qualities, settle, stakes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("q", "alpha", "sensitivity"), [(0.9, 1.0, 2.0), (0.5, 0.5, 0.0), (1.0, 2.0, 7.0)])
def test_a_day_is_the_reference_models(seed, q, alpha, sensitivity):
    assert disagreement(np.random.default_rng(seed), q, alpha, sensitivity) < 1e-12


def test_a_days_parts_make_a_whole_and_better_models_have_more():
    pick = np.random.default_rng(1)
    scores = np.tile([9_000, 8_000, 7_000], (5, 1))
    nodes, validators = settle(Day(np.ones(3), stakes(pick, 5, 1.0), scores), 0.5, 1.0, 2.0)
    assert nodes == pytest.approx([4 / 7, 2 / 7, 1 / 7]) and validators.sum() == pytest.approx(1)


def test_the_best_of_many_like_nodes_has_what_q_leaves():
    """The reading by which the paper's maxima give q; where ranks change it is less."""
    same, changing = (qualities(np.random.default_rng(2), 153, 28, lasting) for lasting in (1.0, 0.5))
    most = [node_shares(quality, np.ones(153), 0.908, 1.0, 0.0).max() for quality in (same, changing)]
    assert most[0] == pytest.approx(1 - 0.908, rel=1e-4) and most[1] < 0.8 * most[0]


def test_a_quick_run_writes_nothing():
    kept = [run.HERE / "results.json", run.HERE / "fit.png", PAGE]
    before = [path.stat().st_mtime_ns for path in kept]
    run.main(["--quick"])
    assert [path.stat().st_mtime_ns for path in kept] == before
