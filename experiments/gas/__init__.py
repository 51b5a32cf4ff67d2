"""What every action costs on chain, at the sizes of the mechanism's largest tasks."""
