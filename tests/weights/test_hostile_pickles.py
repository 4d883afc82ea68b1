"""Pickles that no library writes: nothing in them runs, none takes much memory, and each gives one error.

The files are read in a process that may take 256 MB, and whose crash fails a test instead of ending them all.
"""

from __future__ import annotations

import pickle
import re
import struct

import numpy as np
import pytest
from helpers.weight_files import legacy_torch, number, text, torch_zip

from resnet_cuda.weights import restricted_pickle

# What has been used to get round lists of what is forbidden, or could be.
FORBIDDEN = """
os.system posix.system nt.system os.popen subprocess.Popen subprocess.check_output pty.spawn
builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.open builtins.map builtins.type
__builtin__.eval __builtin__.execfile __builtin__.apply builtins.vars builtins.globals builtins.setattr
importlib.import_module importlib._bootstrap._load runpy.run_path runpy._run_code timeit.timeit pydoc.locate
operator.attrgetter operator.methodcaller operator.itemgetter functools.partial functools.reduce
pickle.loads _pickle.loads cPickle.loads marshal.loads types.FunctionType types.CodeType
codecs.open _codecs.lookup io.open _io.open pathlib.Path shutil.rmtree tempfile.mktemp
copyreg.add_extension copyreg.__newobj__ collections.namedtuple collections.UserDict
ctypes.CDLL _ctypes.dlopen socket.socket http.client.HTTPConnection urllib.request.urlopen webbrowser.open
numpy.load numpy.fromfile numpy.memmap numpy.loadtxt numpy.genfromtxt numpy.save numpy.ctypeslib.load_library
numpy.lib.npyio.load numpy.lib._npyio_impl.load numpy.lib.format.read_array numpy.f2py.crackfortran.myeval
numpy.testing._private.utils.runstring numpy.testing.runstring numpy.distutils.exec_command.exec_command
numpy.__builtins__ numpy.matrix numpy.ma.core._mareconstruct numpy.core.multiarray.fromfile
numpy.random._pickle.__randomstate_ctor numpy.dtype.fromkeys numpy.ndarray.tofile
torch.load torch.serialization.load torch.jit.load torch.hub.load torch.ops.load_library torch.classes.load_library
torch.utils.cpp_extension.load torch.storage._load_from_bytes
torch._inductor.codecache.compile_file torch.utils.collect_env.run torch.package.package_importer.PackageImporter
torch.fx.graph_module.reduce_graph_module torch.distributed.rpc.internal._internal_rpc_pickler
torch.Tensor.map_ torch.FloatStorage.from_file torch.nn.modules.linear.Linear
mmcv.utils.config.Config mmengine.config.config.Config mmengine.logging.history_buffer.HistoryBuffer.mean
"""


def entry(value: bytes) -> bytes:
    """The pickle of {"w": value}."""
    return b"\x80\x04}" + text("w") + value + b"s."


def opcodes(command: str) -> dict[str, tuple[bytes, str]]:
    """Every instruction by which a pickle gets at a function, with os.system where it names one."""
    call, name = text(command), "os.system"
    return {
        "GLOBAL": (b"cos\nsystem\n" + call + b"\x85R", name),
        "STACK_GLOBAL": (text("os") + text("system") + b"\x93" + call + b"\x85R", name),
        "STACK_GLOBAL from the memo": (
            text("os") + b"\x94" + text("system") + b"\x9400h\0h\1\x93" + call + b"\x85R",
            name,
        ),
        "a dotted name": (text("numpy") + text("core.multiarray.sys.modules") + b"\x93", r"numpy.core.multiarray.sys"),
        "a dotted module": (
            b"cnumpy.core.multiarray.os\nsystem\n" + call + b"\x85R",
            "numpy.core.multiarray.os.system",
        ),
        "INST": (b"(" + call + b"ios\nsystem\n", name),
        "OBJ": (b"(cos\nsystem\n" + call + b"o", name),
        "NEWOBJ": (b"csubprocess\nPopen\n" + call + b"\x85\x81", "subprocess.Popen"),
        "NEWOBJ_EX": (b"csubprocess\nPopen\n" + call + b"\x85}\x92", "subprocess.Popen"),
        "never called": (b"cos\nsystem\n0N", name),
        "BUILD": (b"cos\nsystem\n}" + text("a") + text("b") + b"sb", name),
        "a name with a line feed": (text("os\n") + text("system") + b"\x93", r"os\\nsystem|os\\n.system"),
    }


REFUSED = {
    "EXT1": (b"\x82\1", "an extension code"),
    "EXT2": (b"\x83\1\0", "an extension code"),
    "EXT4": (b"\x84\1\0\0\0", "an extension code"),
    "PERSID": (b"Pkey\n", "a persistent identifier|pickle_protocol=0"),
    "BINPERSID": (text("key") + b"Q", "a persistent identifier"),
    "NEXT_BUFFER": (b"\x97", "a buffer outside of the file"),
    "BUILD of a dictionary": (b"}}" + text("__class__") + b"NsbN0", "refused: it sets attributes of a dict"),
    "BUILD of a list": (b"]}b", "refused: it sets attributes of a list"),
    "BUILD of a class": (b"ccollections\nOrderedDict\n}" + text("a") + b"Nsb", "refused: it sets attributes of"),
    "BUILD of an array's class": (b"cnumpy\nndarray\nN}" + text("a") + b"Ns\x86b", "refused: it sets attributes of"),
    "getattr of a class": (
        b"c__builtin__\ngetattr\nccollections\nOrderedDict\n" + text("fromkeys") + b"\x86R",
        "refused: it asks for builtins.getattr, which could run code",
    ),
    "getattr of an object": (
        b"cbuiltins\ngetattr\n}" + text("__class__") + b"\x86R",
        "refused: it asks for builtins.getattr, which could run code",
    ),
    "_reconstructor of a dictionary": (
        b"ccopyreg\n_reconstructor\nccollections\nOrderedDict\ncbuiltins\nobject\nN\x87R",
        "refused: it asks for copyreg._reconstructor",
    ),
    "a call of a name that builds nothing": (b"cbuiltins\nobject\n)R", "refused: it asks for builtins.object"),
    "a call of a string": (text("os.system") + b")R", "it calls an object that is not a function"),
    "arguments that are no tuple": (b"ccollections\nOrderedDict\n]R", "are not a tuple"),
    "a codec": (b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R", "an encoding that is not latin1"),
    "a codec of bytes": (b"c_codecs\nencode\nC\1x" + text("zip") + b"\x86R", "an encoding that is not latin1"),
    "keywords": (b"ccollections\nOrderedDict\n)}" + text("a") + b"Ns\x92", "with keywords"),
}

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"


def dtype(code: str = "f4", state: bytes = b"(K\3" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t") -> bytes:
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R" + state + b"b"


def array(
    shape: bytes = b"K\1\x85", kind: bytes | None = None, raw: bytes = b"C\4abcd", fortran: bytes = b"\x89"
) -> bytes:
    return ARRAY + b"(K\1" + shape + (dtype() if kind is None else kind) + fortran + raw + b"tb"


WRONG_ARRAYS = {
    "right": (array(), "content"),
    "more in the shape": (array(b"K\2\x85"), "4 bytes for 8"),
    "less in the shape": (array(b")", raw=b"C\5abcde"), "5 bytes for 4"),
    "a huge shape": (array(number(1 << 40) + b"\x85"), "4 bytes for 4398046511104"),
    "a shape that overflows": (array(number(1 << 62) + number(4) + b"\x86"), "which no memory holds"),
    "a shape that overflows to the size": (array(number((1 << 62) + 1) + b"\x85"), "which no memory holds"),
    "nothing, hugely": (array(b"K\0" + number(1 << 61) + b"\x86", raw=b"C\0"), "which no memory holds"),
    "a negative shape": (array(number(-1) + b"\x85"), "has the shape"),
    "a true shape": (array(b"\x88\x85"), "has the shape"),
    "a shape of text": (array(text("1") + b"\x85"), "has the shape"),
    "a list for a shape": (array(b"]K\1a"), "state of an array"),
    "65 dimensions": (array(b"(" + b"K\1" * 65 + b"t"), "has the shape"),
    "text beyond latin1": (array(raw=text("\u4e2dabc")), "damaged"),
    "no bytes": (array(raw=b"N"), "content is not bytes"),
    "a list of objects": (array(raw=b"]Na"), "content is not bytes"),
    "a dtype that is none": (array(kind=text("f4")), "state of an array"),
    "objects": (array(kind=dtype("O8")), "refused: it holds an array of objects"),
    "structures": (array(kind=dtype("V4")), "only numbers of up to 8 bytes"),
    "dates": (array(kind=dtype("M8")), "only numbers of up to 8 bytes"),
    "text of no length": (array(number(1 << 40) + b"\x85", dtype("S0"), b"C\0"), "only numbers of up to 8 bytes"),
    "text that is none": (array(kind=dtype("U1"), raw=b"C\4\xff\xff\xff\xff"), "invalid code points"),
    "a scalar of text that is none": (
        b"cnumpy.core.multiarray\nscalar\n" + dtype("U1") + b"C\4\0\0\x11\0\x86R",
        "invalid code points",
    ),
    "long doubles": (array(kind=dtype("f16")), "only numbers of up to 8 bytes"),
    "a code of a structure": (array(kind=dtype("f4,O8")), "the code of a dtype"),
    "fields": (
        array(kind=dtype(state=b"(K\3" + text("|") + b"N" + text("a") + b"\x85}J\4\0\0\0J\1\0\0\0K\0t")),
        "an array with fields",
    ),
    "a subarray": (array(kind=dtype(state=b"(K\3" + text("|") + b"NNNNK\0t").replace(b"NNNN", b")NNN")), "with fields"),
    "a dtype without state": (array(kind=dtype(state=b")")), "the state of a dtype"),
    "a state of nothing": (ARRAY + b")b", "state of an array"),
    "no state": (ARRAY, "an array without content"),
    "a subclass": (ARRAY.replace(b"cnumpy\nndarray\n", b"cbuiltins\nlist\n"), "not numpy.ndarray"),
    "a scalar of objects": (
        b"cnumpy.core.multiarray\nscalar\n" + dtype("O8") + b"C\0\x86R",
        "refused: it holds an array of objects",
    ),
    "a scalar that is short": (b"cnumpy.core.multiarray\nscalar\n" + dtype() + b"C\3abc\x86R", "3 bytes for 4"),
    "a short buffer": (
        b"cnumpy._core.numeric\n_frombuffer\n(C\4abcd" + dtype() + b"K\2\x85" + text("C") + b"tR",
        "4 bytes for 8",
    ),
    "an order of axes": (
        b"cnumpy._core.numeric\n_frombuffer\n(C\4abcd" + dtype() + b"K\1\x85" + text("K") + b"K\5\x85tR",
        "order of axes",
    ),
    # A dtype is a mutable object in a pickle: changed after the array was made of it.
    "a dtype that changes": (
        b"(" + dtype() + b"\x94K\1\x85K\0Nt0" + array(kind=dtype("u1") + b"q\1", raw=b"C\1a") + b"h\1(K\3"
        + text(">") + b"NNNNNK\0tb0",
        "content",
    ),
}  # fmt: skip

BOMBS = {
    "doubled lists": (
        b"(]\x94" + b"".join(b"]\x94h" + bytes((i,)) + b"ah" + bytes((i,)) + b"a" for i in range(40)) + b"t",
        "unfolds to more than 1000000 entries",
    ),
    "doubled tuples": (b")" + b"2\x86" * 100, "nested deeper|unfolds"),
    "doubled tuples of text": (text("a" * 50) + b"2\x86" * 50, "unfolds"),
    "nested lists": (b"]" * 100000 + b"a" * 99999, "nested deeper than 64"),
    "nested lists, mentioned again within others": (
        b"(" + b"]" * 40 + b"a" * 39 + b"\x94" + b"]" * 40 + b"h\0" + b"a" * 40 + b"t",
        "nested deeper than 64",
    ),
    "nested tuples": (b"N" + b"\x85" * 100000, "nested deeper than 64"),
    "nested tuples as a key": (b"}N" + b"\x85" * 100000 + b"Ns", "a key or an element of a set is a tuple"),
    "nested tuples in a set": (b"\x8f(N" + b"\x85" * 100000 + b"\x90", "a key or an element of a set is a tuple"),
    "marks": (b"(" * 100000, "lacks|truncated|damaged"),
    "empty sets": (b"(" + b"\x8f" * 3_000_000 + b"t", "more than 4 times its size"),
    "empty lists": (b"(" + b"]" * 3_000_000 + b"t", "more than 1000000 instructions"),
    "itself": (b"]\x94h\0a", "contains itself"),
    "itself, in a dictionary": (b"}\x94" + text("a") + b"h\0s", "contains itself"),
    "itself, through a tuple": (b"]\x94h\0\x85a", "contains itself"),
    "BINBYTES8": (b"\x8e" + struct.pack("<Q", 1 << 62) + b"abc", "promises 4611686018427387904 bytes"),
    "BINUNICODE8": (b"\x8d" + struct.pack("<Q", 1 << 63) + b"abc", "promises"),
    "BYTEARRAY8": (b"\x96" + struct.pack("<Q", 1 << 40) + b"abc", "promises"),
    "BINBYTES": (b"B\xff\xff\xff\xffabc", "promises"),
    "BINSTRING": (b"T\xff\xff\xff\x7fabc", "promises"),
    "FRAME": (b"\x95" + struct.pack("<Q", 1 << 62), "a frame promises"),
    "LONG4": (b"\x8b\xff\xff\xff\x7f\1", "begins a number of 2147483647 bytes"),
    "a negative LONG4": (b"\x8b\xff\xff\xff\xff\1", "begins a number of"),
    "LONG of many digits": (b"L" + b"9" * 100000 + b"L\n", "has no end"),
    "INT of many digits": (b"I" + b"9" * 100000 + b"\n", "has no end"),
    "a long name": (b"c" + b"a" * 100000 + b"\nb\n", "has no end"),
    "bytes encoded many times": (
        text("x" * 1_000_000) + b"\x940(" + (b"c_codecs\nencode\nh\0" + text("latin1") + b"\x86R") * 1000 + b"t",
        "more than 4 times its size",
    ),
    "an array made many times": (
        b"B\x40\x42\x0f\0" + bytes(1_000_000) + b"\x940" + dtype() + b"\x940("
        + (ARRAY + b"(K\1J\x90\xd0\3\0\x85h\1\x89h\0tb") * 1000 + b"t",
        "more than 4 times its size",
    ),
    "a set made many times": (
        b"](" + b"".join(b"M" + struct.pack("<H", i) for i in range(50000)) + b"e\x940("
        + b"cbuiltins\nset\nh\0\x85R" * 1000 + b"t",
        "more than 4 times its size",
    ),
    "text of four bytes a letter": (text("\U0001f600" + "a" * 10_000_000), "content"),
    "attributes that are set many times": (
        b"}(" + b"".join(text(f"{i:05}") + b"N" for i in range(20000)) + b"u\x940("
        + b"cargparse\nNamespace\n)Rh\0b" * 2000 + b"t",
        "more than 4 times its size",
    ),
}  # fmt: skip

DAMAGE = {
    "an instruction that is none": (b"\xff", r"byte \d+ is b'\\xff'"),
    "nothing on the stack": (b"000", "lacks what it works on"),
    "a tuple of what is not there": (b"00000\x87", "lacks what it works on"),
    "across a mark": (b"(a", "lacks what it works on"),
    "no mark": (b"t", "lacks its mark"),
    "no object in the memo": (b"h\x05", "object 5 is used before it is there"),
    "APPEND to a tuple": (b")Na", "it fills a tuple as a list"),
    "SETITEM of a list": (b"]NNs", "it fills a list as a dict"),
    "SETITEMS of an array": (ARRAY + b"(NNu", "it fills a .+ as a dict"),
    "ADDITEMS to a list": (b"](N\x90", "it fills a list as a set"),
    "a key without a value": (b"}(Nu", "a key without a value"),
    "a list as a key": (b"}]Ns", "a key or an element of a set is a list"),
    "a number whose hash is another's": (b"}" + number((1 << 61) - 1) + b"Ns", "a key or an element of a set is a int"),
    "a string without quotation marks": (b"Sabc\n", "without quotation marks"),
    "text that is not UTF-8": (b"X\1\0\0\0\xff", "damaged"),
    "a number that is none": (b"Fabc\n", "damaged"),
    "protocol 6": (b"\x80\x06", "protocol 6"),
}


def in_every_pickle(pickles: dict[str, tuple[bytes, str]]) -> dict[str, tuple[bytes, str]]:
    """Alone, in a zip file of torch, and in an older file of torch."""
    containers = {"alone": lambda data: data, "torch": torch_zip, "legacy torch": legacy_torch}
    return {
        f"{name} {kind}": (contain(data), message)
        for name, (data, message) in pickles.items()
        for kind, contain in containers.items()
    }


def test_nothing_runs(tmp_path, check):
    sentinel = tmp_path / "sentinel"
    ways = opcodes(f"touch {sentinel}")
    pickle.loads(entry(ways["GLOBAL"][0]))
    assert sentinel.exists()  # it would run
    sentinel.unlink()
    check(
        in_every_pickle({name: (entry(way), f"refused: it asks for {what}") for name, (way, what) in ways.items()}),
    )
    assert not sentinel.exists()


def test_forbidden_names(check):
    hostile = {}
    for name in FORBIDDEN.split():
        module, _, function = name.rpartition(".")
        call = b"c" + module.encode() + b"\n" + function.encode() + b"\n)R"
        hostile[name] = (entry(call), f"^refused: it asks for {re.escape(name)}, which could run code$")
    check(in_every_pickle(hostile))


def test_no_name_of_an_admitted_module_is_more_than_a_row_of_the_table():
    """Attribute paths are names of their own: `dtype.fromkeys` is not reached through `dtype`."""
    for module, name in [*restricted_pickle._pickle_names.NAMES]:
        for path in (f"{name}.__init__", f"{name}.__reduce__.__globals__", "__builtins__", "__loader__.get_data"):
            with pytest.raises(ValueError, match="refused: it asks for"):
                restricted_pickle.loads(b"\x80\x04" + text(module) + text(path) + b"\x93.")


def test_refused_instructions(check):
    check(in_every_pickle({name: (entry(data), message) for name, (data, message) in REFUSED.items()}))


@pytest.mark.parametrize("cases", [WRONG_ARRAYS, BOMBS, DAMAGE], ids=["arrays", "bombs", "damage"])
def test_pickles(check, cases):
    hostile = {name: (entry(data), message) for name, (data, message) in cases.items()}
    check(hostile if cases is BOMBS else in_every_pickle(hostile))


def test_arrays_of_objects_as_numpy_writes_them(outcomes):
    values = {
        "objects": np.array([{}, None], object),
        "structure": np.zeros(2, [("a", "f4")]),
        "structure_of_objects": np.zeros(2, [("a", "O")]),
        "masked": np.ma.array([1, 2]),
        "date": np.datetime64("2020-01-01"),
    }
    hostile = {
        f"{name} {protocol}": pickle.dumps({"w": value}, protocol)
        for name, value in values.items()
        for protocol in range(6)
    }
    for name, message in outcomes(hostile).items():
        assert re.search("refused|with fields|only numbers of up to", message), (name, message)
