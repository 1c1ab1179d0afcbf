"""The public names are a promise: a new one is added here on purpose, a missing one breaks somebody."""

import types

import tidings

PUBLIC = set(
    """
    App Router Transaction run
    event state command Key Tag Gone Envelope
    Retry Needs Again Dead
    Replica Decider Projection
    errors
    """.split()
)


def test_the_public_surface_is_the_written_list() -> None:
    assert set(tidings.__all__) == PUBLIC


def test_every_public_name_says_what_it_is_for() -> None:
    described = (
        type | types.FunctionType | types.ModuleType
    )  # a dataclass without a docstring gets its signature as one
    values = {name: value for name in tidings.__all__ if isinstance(value := getattr(tidings, name), described)}
    assert [name for name, value in values.items() if (value.__doc__ or f"{name}(").startswith(f"{name}(")] == []
