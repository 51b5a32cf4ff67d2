"""Fixtures of the chain tests; the actors and moves are in play.py."""

import pytest

from tests.chain.play import World


@pytest.fixture(scope="session")
def world():
    """One chain for all; tests keep apart by playing tasks of their own."""
    return World()
