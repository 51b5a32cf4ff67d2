"""The triggers channel: a mark in a model's answers, which can be tested without its weights.

A leaf's trigger input and its candidate labels come from its seed alone, its label from (beta, key_root, index, seed).
The owner trains the model to lean towards the labels; whoever has the answers to opened triggers counts the hits. An
innocent classifier's hits are exactly Bin(N, 1 / classes), whatever it answers.

Rooms: ``parameters`` (what the spec promises), ``inputs``, ``reading`` (the test), ``train``.
"""

from watermark.triggers.inputs import candidates, trigger_inputs
from watermark.triggers.parameters import Images, TriggerMark, Windows
from watermark.triggers.reading import Answers, Triggers, trigger_matches, trigger_null
from watermark.triggers.train import train_triggers

__all__ = [
    "Answers",
    "Images",
    "TriggerMark",
    "Triggers",
    "Windows",
    "candidates",
    "train_triggers",
    "trigger_inputs",
    "trigger_matches",
    "trigger_null",
]
