"""Resolves names: a built-in one, or user code given as `package.module:attribute`.

Losses, optimizers, networks, teachers, distillers, readers and evaluators are all found
here: by their name among the built-in ones, or in any module that Python can import
from where the command runs.
"""

import difflib
import hashlib
import importlib
import inspect
import pathlib
import re
import sys
import types
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from gift_jax.runtime.errors import InputError, UnknownNameError

T = TypeVar("T")

# "-option=": the minus of 1e-3 is part of a value.
_OPTION = re.compile(r"-(?=[A-Za-z_]\w*=)")


def unknown_name(
    what: str, name: str, known: Iterable[str], *, or_else: str = ""
) -> UnknownNameError:
    """An error that names the nearest known name, and all of them.

    Args:
      what: The kind of thing that is named.
      name: The unknown name.
      known: The known names.
      or_else: Further possibilities, for the end of the message.

    >>> str(unknown_name("loss", "gfit", ["gift", "kl"]))
    "unknown loss 'gfit' (did you mean 'gift'?); expected one of gift, kl"
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return UnknownNameError(
        f"unknown {what} {name!r}{hint}; expected one of {', '.join(known)}{or_else}"
    )


def find(what: str, name: str, known: Mapping[str, T]) -> T:
    """The object of that name.

    Args:
      what: The kind of thing, for errors.
      name: A key of `known`, or "package.module:attribute".
      known: The built-in objects by name.

    Raises:
      UnknownNameError: there is none of that name.
      InputError: the module or its attribute cannot be found; the message says why.
    """
    if name in known:
        return known[name]
    if is_own(name):
        return _imported(what, name)
    raise unknown_name(what, name, known, or_else=", or package.module:attribute")


def check_call(what: str, function: Any, call: str, *args: Any, **options: Any) -> None:
    """Raises InputError unless a function can be called with these arguments.

    Args:
      what: Name of the function, for the error.
      function: Function to check. Functions in C have no signature, and pass.
      call: How it is called, for the error.
      *args: Arguments that it will be called with, or placeholders of them.
      **options: Keyword arguments, likewise.
    """
    try:
        inspect.signature(function).bind(*args, **options)
    except ValueError:
        return
    except TypeError as error:
        raise InputError(f"{what} cannot be called ({error}): {call}") from error


def is_own(name: str) -> bool:
    """Whether a name is that of user code.

    >>> is_own("my_losses:margin"), is_own("gift")
    (True, False)
    """
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(
        part.isidentifier() for part in [*module.split("."), *attribute.split(".")]
    )


def _imported(what: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    # The folder that the command is run in, as with `python -m`.
    if "" not in sys.path and str(pathlib.Path.cwd()) not in sys.path:
        sys.path.insert(0, str(pathlib.Path.cwd()))
    try:
        found: Any = _module(module_name)
    except ImportError as error:
        raise InputError(
            f"the {what} {name!r} cannot be imported: {error}. Run the command where "
            f"{module_name.partition('.')[0]} lies, or set PYTHONPATH"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise unknown_name(
                f"attribute of the module {module_name} for the {what} {name!r},",
                part,
                [n for n in dir(found) if not n.startswith("_")] or ["nothing"],
            )
        found = getattr(found, part)
    if not callable(found):
        raise InputError(
            f"the {what} {name!r} is a {type(found).__name__}, expected something to "
            "call"
        )
    return found


# Digest of the source file of every module that was named, as it was loaded.
_digests: weakref.WeakKeyDictionary[types.ModuleType, str] = weakref.WeakKeyDictionary()


def _module(name: str) -> types.ModuleType:
    module = importlib.import_module(name)
    if module not in _digests and getattr(module, "__file__", None):
        _digests[module] = _file_digest(module)
    return module


def _file_digest(module: types.ModuleType) -> str:
    return _digest(pathlib.Path(str(module.__file__)).read_bytes())


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:16]


def reload_edited() -> None:
    """Reloads user modules whose files were edited since they were loaded.

    In a notebook a job would otherwise run the code of the first job. Called before a
    job, so that no job changes its code while it runs.
    """
    for module in list(_digests):
        name = module.__name__
        # A script that is run, `__main__`, is never reloaded.
        is_loaded = name != "__main__" and sys.modules.get(name) is module
        if is_loaded and _file_digest(module) != _digests[module]:
            importlib.reload(module)
            _digests[module] = _file_digest(module)


def code_fingerprint(name: str) -> str | None:
    """16 hexadecimal digits that stand for the user code behind a name.

    Results depend on it, so it is part of recipes. It is that of the whole source file
    as it was loaded, or in a notebook of the named object alone. None means that the
    name is built in.
    """
    if not is_own(name):
        return None
    module = _module(name.partition(":")[0])
    return _digests.get(module) or _digest(_source(name).encode())


def _source(name: str) -> str:
    """The source of what is named in a module without a file."""
    found = _imported("code", name)
    # Python before 3.13 has no source of a notebook's classes, but of their methods.
    parts = vars(found).values() if inspect.isclass(found) else [found]
    return "".join(filter(None, map(_source_of, parts))) or repr(found)


def _source_of(part: Any) -> str | None:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):  # C code, or no code at all
        return None


def names(text: str) -> list[str]:
    """The names in a field that takes several, joined by "+".

    >>> names("kl+gift")
    ['kl', 'gift']
    """
    return [name.strip() for name in text.split("+")]


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Splits "NAME-OPTION=VALUE-OPTION=VALUE".

    >>> split_options("sgd-weight_decay=1e-3-nesterov=True")
    ('sgd', {'weight_decay': '1e-3', 'nesterov': 'True'})
    """
    name, *given = _OPTION.split(text)
    return name, dict(option.split("=", 1) for option in given)


def label(
    name: str, fields: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> str:
    """A name with its options, or with those that are not the default.

    >>> label("kl", {"t_squared": True}, {"t_squared": False, "temperature": 20.0})
    'kl-t_squared=True'
    >>> label("kl", {"t_squared": False})
    'kl-t_squared=False'
    """
    told = [k for k, v in fields.items() if defaults is None or v != defaults[k]]
    return name + "".join(f"-{k}={fields[k]}" for k in told)


def keyword_defaults(function: Any, *, without: Iterable[str] = ()) -> dict[str, Any]:
    """The keyword arguments of a function or class, with their defaults.

    Args:
      function: What is called.
      without: Arguments that are not options.

    >>> keyword_defaults(lambda images, *, width=128, norm="batch": None)
    {'width': 128, 'norm': 'batch'}
    """
    hidden = {*without, "parent", "name"}
    return {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.default is not p.empty and p.name not in hidden
    }
