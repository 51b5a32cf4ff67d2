"""The channel in the weights: each bit is the sign of a secret, keyed projection of a model's matrices."""
