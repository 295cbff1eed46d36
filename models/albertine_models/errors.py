"""Errors that a user can act on. The command prints them as one line and exits with 1."""


class ConversionError(Exception):
    """What was attempted, with which value, and what to do: lower case, values in backticks, no final stop."""
