"""Programs that ship with the package and that validators run without being told to trust them."""
