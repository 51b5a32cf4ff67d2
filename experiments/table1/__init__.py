"""What the reward equations give at the sizes of the paper's Table 1."""
