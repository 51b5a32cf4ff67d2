"""The whole story on the embedded chain, told through the same functions and contracts that real users call."""
