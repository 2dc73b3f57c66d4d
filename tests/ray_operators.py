"""Stand-ins for the operators of a Ray Data execution, which are keys of its topology."""

from types import SimpleNamespace


class Operator(SimpleNamespace):
    """As much of Ray's as is looked at."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
