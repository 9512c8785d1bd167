# SPDX-License-Identifier: Apache-2.0
"""Tensors of others."""

import ctypes
import gc
import weakref

import nvlxfer
from nvlxfer import Engine
from support import raises, run_tests

INVALID = nvlxfer.InvalidArgument, "NVLX_EINVAL"


class ArrayInterface:
    def __init__(self, address, shape, strides=None, typestr="<f4"):
        self.__cuda_array_interface__ = dict(data=(address, False), shape=shape, strides=strides, typestr=typestr)


class Tensor:
    """A producer of DLPack capsules."""

    def __init__(self, address, shape, strides=None, offset=0, bits=32, device=2):
        self.given, self.device, self.released = (address, shape, strides, offset, bits), device, 0

    def __dlpack_device__(self):
        return self.device, 0

    def __dlpack__(self, *, stream=None):
        assert stream is None
        address, shape, strides, offset, bits = self.given
        dims = ctypes.c_int64 * len(shape)
        self.kept = dims(*shape), dims(*strides) if strides else None
        self.deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.free)
        self.managed = nvlxfer.tensors.arrays._DLManagedTensor(address, self.device, 0, len(shape), 2, bits, 1, *self.kept, offset)
        self.managed.deleter = ctypes.cast(self.deleter, ctypes.c_void_p)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.capsule = make(ctypes.addressof(self.managed), b"dltensor", None)
        return self.capsule

    def free(self, managed):
        assert managed == ctypes.addressof(self.managed)
        self.released += 1


def test_tensors():
    engine = Engine()
    base = engine.alloc(0, 4096)
    for kind in (ArrayInterface, Tensor):
        unit = 4 if kind is ArrayInterface else 1  # of strides
        for shape, strides, length in (
            ((6, 4), None, 96),
            ((6, 4), (4, 1), 96),
            ((6, 1, 4), (4, 999, 1), 96),
            ((), None, 4),
            ((3, 0), (7, 9), 0),
        ):
            given = strides and tuple(unit * stride for stride in strides)
            tensor = kind(base + 8, shape, given)  # whose deleter must live as long as the region
            with engine.register(tensor) as region:
                assert (region.address, region.length) == (base + 8, length), (shape, strides, region.length)
        for shape, strides in (((4, 6), (1, 4)), ((6, 4), (8, 1)), ((8,), (2,))):
            tensor = kind(base, shape, tuple(unit * stride for stride in strides))
            raises(*INVALID, "is not contiguous", engine.register, tensor)
            assert kind is ArrayInterface or tensor.released == 1

    tensor = Tensor(base, (5,), offset=12, bits=4)
    region = engine.register(tensor, "half bytes")
    assert (region.address, region.length, tensor.released) == (base + 12, 3, 0)
    assert "used_dltensor" in repr(tensor.capsule)
    region.close()
    assert tensor.released == 1
    refused = Tensor(base, (4096,))
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.register, refused)
    assert refused.released == 1
    raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "(1, 0)", engine.register, Tensor(base, (1,), device=1))

    tensor, last = ArrayInterface(base, (4,)), Tensor(base, (4,))
    alive = weakref.ref(tensor)
    engine.register(tensor, "kept")  # by the engine, though the region was dropped
    region = engine.register(last)
    del tensor
    gc.collect()
    assert alive() and engine.peer_open(engine.export()).find("kept") == (base, 16)
    engine.close()
    gc.collect()
    assert not alive() and last.released == 1 and region.closed


def test_malformed():
    """No field is taken for what it is not, nor comes a failure of Python's own out of it."""
    engine = Engine()
    base = engine.alloc(0, 4096)
    whole = dict(typestr="<f4", shape=(4,), data=(base, False))
    wrong = [{}, [], 5]
    wrong += [dict(whole, typestr=typestr) for typestr in ("x", "<f-4", "<f+4", "<f 4", "<f4_0", b"<f4", None, 5)]
    wrong += [dict(whole, shape=shape) for shape in (None, 5, "4", (None,), (4.0,), (-4,), (-1, -4), (-2, 2))]
    wrong += [dict(whole, strides=strides) for strides in (5, "4", (), (4, 4), (None,), (4.0,))]
    wrong += [dict(whole, data=data) for data in (None, 5, ())]
    for interface in wrong:
        raises(*INVALID, "malformed", engine.register, type("Tensor", (), {"__cuda_array_interface__": interface})())
    for address in (-base, 1 << 64):
        raises(*INVALID, "the address", engine.register, ArrayInterface(address, (4,)))
    raises(*INVALID, "its length", engine.register, ArrayInterface(base, (1 << 62,)))

    for shape, strides in (((-1, -4), None), ((-4,), None), ((-4,), (1,))):
        tensor = Tensor(base, shape, strides)
        raises(*INVALID, "malformed", engine.register, tensor)
        assert tensor.released == 1
    raises(*INVALID, "its length", engine.register, Tensor(base, (1 << 62,)))
    raises(*INVALID, "the address", engine.register, Tensor(base, (4,), offset=(1 << 64) - base))
    for device in (None, (2,), (2, 0, 0), ("2", 0), (None, 0), 2):
        tensor = type("Given", (Tensor,), {"__dlpack_device__": lambda self: device})(base, (4,))
        raises(*INVALID, "DLPack", engine.register, tensor)
    for capsule in (None, 5, Tensor(base, (4,))):
        tensor = type("Given", (Tensor,), {"__dlpack__": lambda self, stream: capsule})(base, (4,))
        raises(*INVALID, "DLPack", engine.register, tensor)
    assert engine.info().regions == 0
    engine.close()


def fails(kind, text):
    def function(*arguments, **keywords):
        raise kind(text)

    return function


def test_failing():
    """What a tensor itself raises is told."""
    engine = Engine()
    base = engine.alloc(0, 4096)
    for kind in (AttributeError, TypeError, BufferError, RuntimeError):
        for name in ("__dlpack__", "__dlpack_device__"):
            tensor = type("Given", (Tensor,), {name: fails(kind, "detach it")})(base, (4,))
            raises(*INVALID, "detach it", engine.register, tensor)
    for kind in (TypeError, RuntimeError):
        interface = {"__cuda_array_interface__": property(fails(kind, "detach it"))}
        raises(*INVALID, "detach it", engine.register, type("Given", (), interface)())
        tensor = type("Given", (Tensor,), interface)(base, (4,))
        engine.register(tensor).close()  # DLPack has it all the same
    engine.close()


def test_requires_grad():
    """A parameter of a model, which torch gives to nobody: what it is without its gradient has the same memory."""
    engine = Engine()
    base = engine.alloc(0, 4096)
    for kind in (ArrayInterface, Tensor):
        detached = kind(base + 8, (6, 4))

        class Parameter:
            requires_grad = True
            __cuda_array_interface__ = property(fails(RuntimeError, "use var.detach()"))
            __dlpack__ = __dlpack_device__ = fails(BufferError, "use tensor.detach()")

            def detach(self, detached=detached):
                return detached

        with engine.register(Parameter()) as region:
            assert (region.address, region.length) == (base + 8, 96)
    engine.close()


run_tests([test_tensors, test_malformed, test_failing, test_requires_grad])
