"""The compiled contracts: ABI and bytecode of each, as `make artifacts` writes them."""
