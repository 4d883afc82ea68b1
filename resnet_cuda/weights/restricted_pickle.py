"""Reads pickles as data: containers, numbers, strings and arrays, and nothing that could run code.

The machine below executes a pickle's instructions without importing the names in it. A name is looked up in a table of
harmless ones (:mod:`resnet_cuda.weights._pickle_names`), each with a function that builds a plain object from checked
arguments; any other name is an error. Overriding Python's ``Unpickler.find_class`` would not suffice: extension codes
bypass it, an attribute path such as ``multiarray.sys.modules`` passes through it, and it does not check the state that
NumPy's ``__setstate__`` gets. ``torch.load`` with ``weights_only=True`` does not support NumPy, and has returned
tensors that read beyond their storage (quantized ones, 2.12).
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any

from resnet_cuda.weights import _pickle_names, _plain
from resnet_cuda.weights._malformed import Budget, MalformedError

# A million instructions are 10 times those of a large checkpoint with its optimizer. One is a byte long and can make an
# empty list of 72 bytes: without a limit, a long file of them would take 72 times its size. A set takes SET_SIZE.
MAX_INSTRUCTIONS = 1_000_000
SET_SIZE = 232
MAX_NAME = 512
MAX_DIGITS = 1024  # the longest numbers in checkpoints are the states of random generators
HIGHEST_PROTOCOL = 5

_DAMAGE = (TypeError, ValueError, LookupError, OverflowError, AttributeError, struct.error, Warning)


def load(file: IO[bytes]) -> Any:
    """The content of the pickle in ``file``, see :func:`loads`."""
    return loads(file.read())


def loads(data: bytes) -> Any:
    """The content of one pickle of protocol 0 to 5, written by Python 2 or 3; its strings are read as latin1.

    Returns:
        Dictionaries, lists, tuples, sets, strings, bytes, numbers and None. An array of NumPy is a tensor, a number of
        NumPy one of Python.

    Raises:
        MalformedError: for a pickle that refers to anything else, is damaged, contains itself or expands without end.
    """
    budget = Budget(len(data))
    machine = Machine(data, _pickle_names.NAMES, budget)
    content = machine.load()
    if machine.position != len(data):
        raise MalformedError(f"{len(data) - machine.position} bytes follow the end of its pickle")
    return _plain.plain(content, _pickle_names.leaf)


class Machine:
    """Executes the pickle at ``position`` in ``data``.

    Args:
        data: the bytes; bytes after the pickle are not read.
        names: the names that the pickle may refer to.
        budget: counts the memory of its arrays.
        persistent: resolves a persistent identifier; without it there must be none.
        position: the beginning of the pickle; after :meth:`load` its end.
    """

    def __init__(
        self,
        data: bytes,
        names: Mapping[tuple[str, str], _pickle_names.Name],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
        position: int = 0,
    ) -> None:
        self.data = data
        self.names = names
        self.budget = budget
        self.persistent = persistent
        self.position = position
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object that the pickle describes; it contains :class:`_pickle_names.Name` and unconverted arrays."""
        start = self.position
        try:
            for _ in range(MAX_INSTRUCTIONS):
                code = self.data[self.position]
                self.position += 1
                if code == 0x2E:  # STOP
                    return self._pop()
                instruction = _INSTRUCTIONS.get(code)
                if instruction is None:
                    raise MalformedError(f"byte {self.position - 1} is {bytes((code,))!r}, which no pickle has there")
                instruction(self)
        except MalformedError:
            raise
        except IndexError:
            if self.position >= len(self.data):
                raise MalformedError(f"truncated: its pickle has no end after {len(self.data) - start} bytes") from None
            raise MalformedError(f"damaged at byte {self.position}: an instruction lacks what it works on") from None
        except _DAMAGE as error:
            raise MalformedError(f"damaged at byte {self.position}: {str(error)[:200]}") from None
        raise MalformedError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise MalformedError(
                f"truncated: byte {self.position} promises {size} bytes, and {len(self.data)} is the end"
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _unsigned(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _line(self, limit: int | None = None) -> bytes:
        end = self.data.find(b"\n", self.position, None if limit is None else self.position + limit + 1)
        if end < 0:
            raise MalformedError(f"truncated or damaged: the line at byte {self.position} has no end")
        taken = self.data[self.position : end]
        self.position = end + 1
        return taken

    # --- the stack ---------------------------------------------------------------------------------------------------

    def _pop(self) -> Any:
        self._needs(1)
        return self.stack.pop()

    def _top(self) -> Any:
        self._needs(1)
        return self.stack[-1]

    def _needs(self, entries: int) -> None:
        """What lies below the last mark belongs to an outer object."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < entries:
            raise MalformedError(f"damaged at byte {self.position}: an instruction lacks what it works on")

    def _pop_mark(self) -> list[Any]:
        if not self.marks:
            raise MalformedError(f"damaged at byte {self.position}: an instruction lacks its mark")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    # --- instructions ------------------------------------------------------------------------------------------------

    def _protocol(self) -> None:
        protocol = self._unsigned(1)
        if protocol > HIGHEST_PROTOCOL:
            raise MalformedError(f"its pickle has protocol {protocol}; {HIGHEST_PROTOCOL} is the highest")

    def _frame(self) -> None:
        size = self._unsigned(8)
        if size > len(self.data) - self.position:
            raise MalformedError(
                f"truncated: a frame promises {size} bytes, and {len(self.data) - self.position} are left"
            )

    def _int_line(self) -> None:
        line = self._line(MAX_DIGITS)
        self.stack.append({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line, 0))

    def _long_line(self) -> None:
        self.stack.append(int(self._line(MAX_DIGITS).removesuffix(b"L"), 0))

    def _long(self, width: int) -> None:
        size = self._unsigned(width)
        if size > MAX_DIGITS:
            raise MalformedError(f"byte {self.position} begins a number of {size} bytes")
        self.stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def _float_line(self) -> None:
        self.stack.append(float(self._line(MAX_DIGITS)))

    def _struct(self, layout: str) -> None:
        (value,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        self.stack.append(value)

    def _string_line(self) -> None:
        line = self._line().rstrip(b"\r")
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise MalformedError(f"damaged at byte {self.position}: a string without quotation marks")
        self.stack.append(codecs.escape_decode(line[1:-1])[0].decode("latin1"))

    def _unicode_line(self) -> None:
        self.stack.append(self._line().decode("raw-unicode-escape"))

    def _text(self, width: int) -> None:
        self.stack.append(self._take(self._unsigned(width)).decode("utf-8", "surrogatepass"))

    def _latin1(self, width: int) -> None:
        self.stack.append(self._take(self._unsigned(width)).decode("latin1"))

    def _bytes(self, width: int) -> None:
        self.stack.append(self._take(self._unsigned(width)))

    def _drop(self) -> None:
        """A mark without anything above it counts as an entry here."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop()

    def _tuple(self, size: int) -> None:
        self._needs(size)
        start = len(self.stack) - size
        self.stack[start:] = [tuple(self.stack[start:])]

    def _append(self) -> None:
        value = self._pop()
        self._container(list).append(value)

    def _appends(self) -> None:
        items = self._pop_mark()
        self._container(list).extend(items)

    def _add_items(self) -> None:
        items = self._pop_mark()
        self._container(set).update(_pickle_names.keys(items))

    def _empty_set(self) -> None:
        self.budget.take(SET_SIZE)
        self.stack.append(set())

    def _frozen_set(self) -> None:
        self.budget.take(SET_SIZE)
        self.stack.append(set(_pickle_names.keys(self._pop_mark())))

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        _pickle_names.fill(self._container(dict), [key, value])

    def _set_items(self) -> None:
        items = self._pop_mark()
        _pickle_names.fill(self._container(dict), items)

    def _container(self, kind: type) -> Any:
        top = self._top()
        if not isinstance(top, kind):
            filled = f"a {type(top).__name__} as a {kind.__name__}"
            raise MalformedError(f"damaged at byte {self.position}: it fills {filled}")
        return top

    def _put(self, index: int) -> None:
        self.memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise MalformedError(f"damaged at byte {self.position}: object {index} is used before it is there")
        self.stack.append(self.memo[index])

    def _name(self, module: str, name: str) -> _pickle_names.Name:
        found = self.names.get((module, name))
        if found is None or found.reason is not None:
            raise MalformedError((found and found.reason) or _pickle_names.refusal(module, name))
        return found

    def _name_lines(self) -> _pickle_names.Name:
        module, name = (self._line(MAX_NAME).decode("utf-8", "backslashreplace") for _ in range(2))
        return self._name(module, name)

    def _global(self) -> None:
        self.stack.append(self._name_lines())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str or len(module) + len(name) > MAX_NAME:
            raise MalformedError(f"damaged at byte {self.position}: a name that is not a string")
        self.stack.append(self._name(module, name))

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _pickle_names.Name):
            raise MalformedError(f"damaged at byte {self.position}: it calls an object that is not a function")
        if type(arguments) is not tuple:
            raise MalformedError(f"damaged at byte {self.position}: the arguments of {function} are not a tuple")
        return function.call(arguments, self.budget)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self.stack.append(self._called(function, arguments))

    def _instance(self) -> None:
        """INST: the class in two lines, its arguments above the mark."""
        function = self._name_lines()
        self.stack.append(self._called(function, tuple(self._pop_mark())))

    def _object(self) -> None:
        """OBJ: the class and its arguments above the mark."""
        function, *arguments = self._pop_mark() or [None]
        self.stack.append(self._called(function, tuple(arguments)))

    def _new_object_with_keywords(self) -> None:
        if self._pop() != {}:
            raise MalformedError(f"damaged at byte {self.position}: it makes an object with keywords")
        self._reduce()

    def _build(self) -> None:
        state, top = self._pop(), self._top()
        build = getattr(type(top), "pickled_state", None)
        if build is None:
            raise MalformedError(f"refused: it sets attributes of a {type(top).__name__}")
        build(top, state, self.budget)

    def _persistent(self) -> None:
        identifier = self._pop()
        if self.persistent is None:
            raise MalformedError("refused: it asks for an object outside of the file by a persistent identifier")
        self.stack.append(self.persistent(identifier))

    def _refuse_persistent_line(self) -> None:
        if self.persistent is not None:
            raise MalformedError(
                "it was saved with pickle_protocol=0, which torch cannot read either; save it with protocol 2 or later"
            )
        raise MalformedError("refused: it asks for an object outside of the file by a persistent identifier")

    def _refuse_extension(self) -> None:
        raise MalformedError("refused: it asks for an extension code of copyreg, which could run code")

    def _refuse_buffer(self) -> None:
        raise MalformedError("it asks for a buffer outside of the file")


def _push(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(make())


# By the byte that stands for it; the names are those of CPython's Lib/pickle.py.
_INSTRUCTIONS: dict[int, Callable[[Machine], Any]] = {
    0x80: Machine._protocol,  # PROTO
    0x95: Machine._frame,  # FRAME
    ord("("): lambda m: m.marks.append(len(m.stack)),  # MARK
    ord("0"): Machine._drop,  # POP
    ord("1"): Machine._pop_mark,  # POP_MARK
    ord("2"): lambda m: m.stack.append(m._top()),  # DUP
    ord("N"): _push(lambda: None),  # NONE
    0x88: _push(lambda: True),  # NEWTRUE
    0x89: _push(lambda: False),  # NEWFALSE
    ord("I"): Machine._int_line,  # INT
    ord("J"): lambda m: m._struct("<i"),  # BININT
    ord("K"): lambda m: m.stack.append(m._unsigned(1)),  # BININT1
    ord("M"): lambda m: m.stack.append(m._unsigned(2)),  # BININT2
    ord("L"): Machine._long_line,  # LONG
    0x8A: lambda m: m._long(1),  # LONG1
    0x8B: lambda m: m._long(4),  # LONG4
    ord("F"): Machine._float_line,  # FLOAT
    ord("G"): lambda m: m._struct(">d"),  # BINFLOAT
    ord("S"): Machine._string_line,  # STRING
    ord("T"): lambda m: m._latin1(4),  # BINSTRING
    ord("U"): lambda m: m._latin1(1),  # SHORT_BINSTRING
    ord("V"): Machine._unicode_line,  # UNICODE
    ord("X"): lambda m: m._text(4),  # BINUNICODE
    0x8C: lambda m: m._text(1),  # SHORT_BINUNICODE
    0x8D: lambda m: m._text(8),  # BINUNICODE8
    ord("B"): lambda m: m._bytes(4),  # BINBYTES
    ord("C"): lambda m: m._bytes(1),  # SHORT_BINBYTES
    0x8E: lambda m: m._bytes(8),  # BINBYTES8
    0x96: lambda m: m._bytes(8),  # BYTEARRAY8
    ord(")"): _push(tuple),  # EMPTY_TUPLE
    ord("t"): lambda m: m.stack.append(tuple(m._pop_mark())),  # TUPLE
    0x85: lambda m: m._tuple(1),  # TUPLE1
    0x86: lambda m: m._tuple(2),  # TUPLE2
    0x87: lambda m: m._tuple(3),  # TUPLE3
    ord("]"): _push(list),  # EMPTY_LIST
    ord("l"): lambda m: m.stack.append(m._pop_mark()),  # LIST
    ord("a"): Machine._append,  # APPEND
    ord("e"): Machine._appends,  # APPENDS
    ord("}"): _push(dict),  # EMPTY_DICT
    ord("d"): lambda m: m.stack.append(_pickle_names.fill({}, m._pop_mark())),  # DICT
    ord("s"): Machine._set_item,  # SETITEM
    ord("u"): Machine._set_items,  # SETITEMS
    0x8F: Machine._empty_set,  # EMPTY_SET
    0x90: Machine._add_items,  # ADDITEMS
    0x91: Machine._frozen_set,  # FROZENSET
    ord("p"): lambda m: m._put(int(m._line(MAX_DIGITS))),  # PUT
    ord("q"): lambda m: m._put(m._unsigned(1)),  # BINPUT
    ord("r"): lambda m: m._put(m._unsigned(4)),  # LONG_BINPUT
    0x94: lambda m: m._put(len(m.memo)),  # MEMOIZE
    ord("g"): lambda m: m._get(int(m._line(MAX_DIGITS))),  # GET
    ord("h"): lambda m: m._get(m._unsigned(1)),  # BINGET
    ord("j"): lambda m: m._get(m._unsigned(4)),  # LONG_BINGET
    ord("c"): Machine._global,  # GLOBAL
    0x93: Machine._stack_global,  # STACK_GLOBAL
    ord("R"): Machine._reduce,  # REDUCE
    ord("b"): Machine._build,  # BUILD
    ord("i"): Machine._instance,  # INST
    ord("o"): Machine._object,  # OBJ
    0x81: Machine._reduce,  # NEWOBJ
    0x92: Machine._new_object_with_keywords,  # NEWOBJ_EX
    ord("P"): Machine._refuse_persistent_line,  # PERSID
    ord("Q"): Machine._persistent,  # BINPERSID
    0x82: Machine._refuse_extension,  # EXT1
    0x83: Machine._refuse_extension,  # EXT2
    0x84: Machine._refuse_extension,  # EXT4
    0x97: Machine._refuse_buffer,  # NEXT_BUFFER
    0x98: lambda m: None,  # READONLY_BUFFER
}
