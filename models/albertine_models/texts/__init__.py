"""Texts that every folder is verified with: seeded, the same on every machine, written for this package.

`ordinary` resembles what a stream brings; `hostile` is what breaks tokenisers.
"""
