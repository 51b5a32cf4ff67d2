"""Arithmetic that gives the same bits on every device, entered by :func:`pol.exact`.

- :mod:`pol.portable.mode` - the context in which every operator of torch is taken apart, replaced or refused
- :mod:`pol.portable.table` - the operators, and why each is portable
- :mod:`pol.portable.grid` - sums and products that no order of summation can change
- :mod:`pol.portable.functions`, :mod:`pol.portable.random` - functions and random numbers out of IEEE operations
- :mod:`pol.portable.compiled` - the same in C, with the same bits; :mod:`pol.portable.trial` - tries it out first
- :mod:`pol.portable.selftest` - what is checked of a machine first
"""
