"""Import MODULE:APP. When that fails, show the user's own frames and none of ours."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tidings.errors import TidingsError
from tidings.ops.cli.failures import TERMINATED, AppBroken, AppNotFound

if TYPE_CHECKING:
    from tidings.runtime.app import App

_NOT_THEIRS = (str(Path(__file__).parents[2]), "<frozen importlib", importlib.__file__)


def load_app(spec: str) -> App:
    """The app that MODULE:APP names, imported from the current folder or the environment.

    What the module prints while it is imported goes to stderr: stdout is for data.

    Raises:
        AppNotFound: No such module, or no App of that name in it; with the nearest name there is.
        AppBroken: The module raised an error; its traceback is in `details`.
    """
    module_name, colon, attribute = spec.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        module_name = module_name.removeprefix("./").removesuffix(".py").replace("/", ".")
        msg = f"{spec} names a file"
        raise AppNotFound(msg, f"name the module: {module_name}:{attribute or 'app'}")
    if not module_name or not colon or not attribute:
        msg = f"{spec or 'nothing'} is not of the form MODULE:APP"
        raise AppNotFound(msg, f"write the module, a colon and the name of the app in it: {module_name or 'app'}:app")
    module = _import(module_name)
    return _pick(module, attribute)


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _broken(name, error) from None
        near = difflib.get_close_matches(name, _modules(Path(here)), 1)
        cure = f"did you mean {near[0]}?" if near else f"go to the folder of {name.partition('.')[0]}.py, or install it"
        msg = f"no module {name} in {here} or in this Python environment"
        raise AppNotFound(msg, cure) from None
    except TidingsError as error:
        error.details = _user_traceback(error)  # type: ignore[attr-defined]
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == TERMINATED:
            raise
        raise _broken(name, error) from None


def _modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())


def _broken(name: str, error: BaseException) -> AppBroken:
    said = traceback.format_exception_only(error)[-1].strip()
    broken = AppBroken(f"{name} cannot be imported: {said}", "correct it where the traceback above ends")
    broken.details = _user_traceback(error)
    return broken


def _user_traceback(error: BaseException) -> str:
    """The traceback without the frames of this package and of the import machinery."""
    shown = traceback.TracebackException.from_exception(error)
    seen: traceback.TracebackException | None = shown
    while seen is not None:
        kept = [frame for frame in seen.stack if not frame.filename.startswith(_NOT_THEIRS)]
        seen.stack = traceback.StackSummary.from_list(kept)
        seen = seen.__cause__ or seen.__context__
    return "".join(shown.format())


def _pick(module: ModuleType, attribute: str) -> App:
    from tidings.runtime.app import App

    apps = sorted(name for name, value in vars(module).items() if isinstance(value, App))
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if isinstance(value, App):
        return value
    near = difflib.get_close_matches(attribute, apps, 1) or apps
    cure = f"did you mean {module.__name__}:{near[0]}?" if near else "make one there: app = App('sqlite:shop.db')"
    is_what = "nothing" if value is None else f"a {type(value).__name__}, not an App"
    msg = f"{attribute} in {module.__name__} is {is_what}"
    raise AppNotFound(msg, cure)
