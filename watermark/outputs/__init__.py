"""The outputs channel: a mark that every image of an image-to-image network carries.

After Zhang et al., "Model Watermarking for Image Processing Networks" (AAAI 2020) and "Deep Model Intellectual Property
Protection via Deep Watermarking" (TPAMI 2021), with three changes:

- *The payload is keyed bits, not a logo.* One bit a leaf, fair coins given everything that reads them, so the matches
  of an innocent are exactly Bin(M, 1/2); a learned likeness of logos has no such bound.
- *The mark follows the image's structure*, not a place in the image, so that turning, cropping, scaling and flipping
  the outputs does not by itself take it away from whoever learns from them.
- *The extractor is public, the same for everybody, and sees theta_ref's output beside the suspect's.* It depends
  on no party's key; :mod:`watermark.outputs.training` trains one with surrogates in the loop.

What it can do on the small networks measured so far (24 x 24 images, 16 filters, a few hundred steps): images marked by
H itself are read without error at 35 dB, after edits too. A network that has absorbed H carries about three quarters of
128 bits, far beyond chance and short of 2^-64. A surrogate trained on its outputs was not told from an innocent.

Rooms: ``parameters``, ``carriers`` (what a seed means), ``embed`` (H, and its absorption into a network), ``extractor``
(R and the regression), ``reading`` (the test), ``network`` (from tensors to outputs), ``distort`` and ``fit`` (shared
by embedding and training), ``training`` (of R).
"""

from watermark.outputs.embed import embed_outputs, mark_images
from watermark.outputs.network import translator
from watermark.outputs.parameters import OutputMark
from watermark.outputs.reading import output_matches, probe_indices, read_outputs

__all__ = [
    "OutputMark",
    "embed_outputs",
    "mark_images",
    "output_matches",
    "probe_indices",
    "read_outputs",
    "translator",
]
