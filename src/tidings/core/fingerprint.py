"""Fingerprints: a change in what code does changes its fingerprint; comments, layout and docstrings do not."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any


def fingerprint(texts: Iterable[str], functions: Iterable[Callable[..., Any]]) -> str | None:
    """A digest of texts and of the source of functions, or None where a source cannot be found.

    Only the functions themselves are read, not what they call.

    Args:
        texts: Whatever else matters, in order: statements, names of types.
        functions: In order. Decorators and docstrings do not count.
    """
    digest = hashlib.sha256()
    try:
        for text in (*texts, *map(_shape_of, functions)):
            digest.update(text.encode())
            digest.update(b"\0")
    except (OSError, TypeError, SyntaxError):
        return None
    return digest.hexdigest()[:32]


def _shape_of(function: Callable[..., Any]) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    node = next(each for each in ast.walk(tree) if isinstance(each, kinds))
    if not isinstance(node, ast.Lambda):
        node.decorator_list = []
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return _shape(node)


def _shape(node: object) -> str:
    """The tree as text that is the same for every Python: ast.dump and ast.unparse differ between versions."""
    if isinstance(node, ast.AST):
        parts = (f"{name}={_shape(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(_shape, node))}]"
    return repr(node)
