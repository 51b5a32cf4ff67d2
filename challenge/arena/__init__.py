"""The commands of ``arena`` on a chain, a file a group. :mod:`challenge.arena.session` is what they share.

Every command says what it wants to be so, looks at the chain whether it is, and sends only what is missing; so each
can be repeated after a crash.
"""
