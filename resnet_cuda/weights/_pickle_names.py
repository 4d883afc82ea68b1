"""The names that a pickle may refer to, and their replacements. Nothing is imported by the names in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_cuda.weights import _pickle_arrays
from resnet_cuda.weights._malformed import Budget, MalformedError

MAX_KEY_PARTS = 64

_Call = Callable[[tuple[Any, ...], Budget], Any]


@dataclass(frozen=True)
class Name:
    """A global name in a pickle.

    Args:
        module: the module that Python would import.
        name: the attribute that Python would import.
        function: builds the result of a call of it; None if it must not be called.
        inert: whether it is a class whose objects are read as dictionaries of their attributes.
        reason: the error message where it is refused for another reason than that it could run code.
    """

    module: str
    name: str
    function: _Call | None = None
    inert: bool = False
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    def call(self, arguments: tuple[Any, ...], budget: Budget) -> Any:
        """The result of a call of the name.

        Raises:
            MalformedError: if the name must not be called, or for arguments that no library writes.
        """
        if self.function is None:
            raise MalformedError(refusal(self.module, self.name))
        try:
            return self.function(arguments, budget)
        except MalformedError:
            raise
        except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as error:
            raise MalformedError(f"the arguments of {self} are damaged: {str(error)[:200]}") from None


class Attributes(dict[Any, Any]):
    """A dictionary in place of an OrderedDict or of an object of an inert class."""

    def pickled_state(self, state: Any, budget: Budget) -> None:
        """An object's attributes become entries. Those of an OrderedDict (torch's ``_metadata``) are left out."""
        if not isinstance(state, dict):
            raise MalformedError(f"the attributes of an object are {type(state).__name__}; they must be a dictionary")


class Inert(Attributes):
    def pickled_state(self, state: Any, budget: Budget) -> None:
        super().pickled_state(state, budget)
        budget.take(64 * len(state))
        self.update(state)


def refusal(module: str, name: str) -> str:
    """The error message for a name that is not allowed."""
    return f"refused: it asks for {module[:200]}.{name[:200]}, which could run code"


def leaf(value: Any) -> Any:
    """The replacement of an array or a name by :func:`resnet_cuda.weights._plain.plain`."""
    if isinstance(value, _pickle_arrays.Array):
        return value.content()
    if isinstance(value, (Name, _pickle_arrays.Dtype)):
        return str(value)
    raise MalformedError(f"it holds a {type(value).__name__}")


def keys(values: Sequence[Any]) -> Sequence[Any]:
    """Checks that ``values`` may be keys: scalars, and tuples of scalars.

    Hashing a tuple recurses, which overflows the stack if the tuple is nested deeply; integers of more than 60 bits can
    be chosen to collide.
    """
    for value in values:
        for part in value if type(value) is tuple and len(value) <= MAX_KEY_PARTS else (value,):
            if type(part) not in (str, bytes, float, bool, type(None)) and not (
                type(part) is int and abs(part) < 1 << 60
            ):
                raise MalformedError(f"a key or an element of a set is a {type(part).__name__}")
    return values


def fill(target: dict[Any, Any], items: Sequence[Any]) -> dict[Any, Any]:
    """Fills ``target`` from ``items``, in which keys and values alternate."""
    if len(items) % 2:
        raise MalformedError("a dictionary has a key without a value")
    target.update(zip(keys(items[::2]), items[1::2], strict=True))
    return target


# --- calls that build something --------------------------------------------------------------------------------


def _dictionary(arguments: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    """OrderedDict and its kin: of nothing, a dictionary, or a list of pairs."""
    (given,) = arguments or ((),)
    budget.take(64 * len(given))
    if isinstance(given, dict):
        return Attributes(given)
    pairs = [tuple(pair) for pair in given if type(pair) in (tuple, list)]
    if len(pairs) != len(given) or any(len(pair) != 2 for pair in pairs):
        raise MalformedError("a dictionary is built of other entries than pairs; each must be a key and a value")
    return fill(Attributes(), [part for pair in pairs for part in pair])


def _default_dictionary(arguments: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    return _dictionary(arguments[1:], budget)  # without its factory


def _set(arguments: tuple[Any, ...], budget: Budget) -> set[Any]:
    (given,) = arguments or ((),)
    if type(given) not in (list, tuple, set):
        raise MalformedError(f"a set is built of a {type(given).__name__}; it must be a list, a tuple or a set")
    budget.take(232 + 64 * len(given))
    return set(keys(list(given)))


def sequence(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """Builds list and tuple, and torch.Size as a tuple."""
    (given,) = arguments or ((),)
    if type(given) not in (list, tuple):
        raise MalformedError(f"a list is built of a {type(given).__name__}; it must be a list or a tuple")
    budget.take(8 * len(given))
    return tuple(given)


def _list(arguments: tuple[Any, ...], budget: Budget) -> list[Any]:
    return list(sequence(arguments, budget))


def _encoded(arguments: tuple[Any, ...], budget: Budget) -> bytes:
    """Bytes that were written as a string: by _codecs.encode, bytes or bytearray."""
    if not arguments:
        return b""
    text, *encoding = arguments
    budget.take(len(text))
    if type(text) is bytes and not encoding:
        return text
    if type(text) is not str or encoding not in (["latin1"], ["latin-1"]):
        raise MalformedError("bytes are written in an encoding that is not latin1")
    return text.encode("latin1")


def _complex(arguments: tuple[Any, ...], budget: Budget) -> complex:
    if not all(type(part) is float for part in arguments) or len(arguments) != 2:
        raise MalformedError("a complex number is not of two numbers")
    return complex(*arguments)


def _attribute(arguments: tuple[Any, ...], budget: Budget) -> Name:
    """getattr, by which Python 3 writes the name of a method in protocol 2; of an inert class only."""
    owner, name = arguments
    if not (isinstance(owner, Name) and owner.inert and type(name) is str and name.isidentifier()):
        raise MalformedError(refusal("builtins", "getattr"))
    return Name(owner.module, f"{owner.name}.{name}")


def _reconstructed(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """copyreg._reconstructor, by which protocols 0 and 1 write an object; of an inert class only."""
    owner, _, state = arguments
    if not (isinstance(owner, Name) and owner.inert) or not (state is None or isinstance(state, dict)):
        raise MalformedError(refusal("copyreg", "_reconstructor"))
    budget.take(64 * len(state or ()))
    return Inert(state or {})


def _inert(arguments: tuple[Any, ...], budget: Budget) -> Inert:
    if arguments:
        raise MalformedError("an object that is read as a dictionary has arguments")
    return Inert()


# Classes of plain attributes in checkpoints' records beside the weights.
_INERT = [
    ("argparse", "Namespace"),
    ("mmengine.logging.history_buffer", "HistoryBuffer"),  # mmdetection 3's record of losses, in `message_hub`
    ("yacs.config", "CfgNode"),
    ("fvcore.common.config", "CfgNode"),
    ("detectron2.config.config", "CfgNode"),
]


def _names() -> dict[tuple[str, str], Name]:
    calls: dict[tuple[str, str], _Call | None] = {
        ("collections", "OrderedDict"): _dictionary,
        ("collections", "Counter"): _dictionary,
        ("collections", "defaultdict"): _default_dictionary,
        ("_codecs", "encode"): _encoded,
        ("copyreg", "_reconstructor"): _reconstructed,
        ("copy_reg", "_reconstructor"): _reconstructed,
        **{("numpy", name): call for name, call in _pickle_arrays.CLASSES.items()},
    }
    for root in ("numpy.core", "numpy._core"):  # before NumPy 2 and since
        for (module, name), call in _pickle_arrays.FUNCTIONS.items():
            calls[f"{root}.{module}", name] = call
    for builtins in ("builtins", "__builtin__"):  # Python 3 and 2
        calls |= {
            (builtins, "dict"): _dictionary,
            (builtins, "set"): _set,
            (builtins, "frozenset"): _set,
            (builtins, "list"): _list,
            (builtins, "tuple"): sequence,
            (builtins, "bytes"): _encoded,
            (builtins, "bytearray"): _encoded,
            (builtins, "complex"): _complex,
            (builtins, "getattr"): _attribute,
        }
        # The factories of a defaultdict, and the base of an old object: names only.
        calls |= {(builtins, name): None for name in ("object", "int", "float", "bool", "str")}
    names = {key: Name(*key, call) for key, call in calls.items()}
    return names | {key: Name(*key, _inert, inert=True) for key in _INERT}


NAMES: Mapping[tuple[str, str], Name] = _names()
