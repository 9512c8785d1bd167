# SPDX-License-Identifier: Apache-2.0
"""Arrays of an engine, and what others take of them."""

import array
import ctypes
import gc
import importlib.util
import os
import pickle
import threading
import time

import nvlxfer
from nvlxfer import Access, Alloc, Engine, read
from support import content, raises, run_tests

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))
USED = b"used_dltensor"


def test_array():
    with Engine() as engine:
        with engine.empty((3, 5), "float32", gpu=1) as made:
            assert (made.shape, made.dtype, made.nbytes, made.gpu) == ((3, 5), "float32", 60, 1)
            assert "float32" in repr(made) and "(3, 5)" in repr(made)
            words = array.array("f", range(15))
            made.fill(words)
            assert made.tobytes() == words.tobytes() == content(engine, made.address, 60)
            raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "59 bytes, the Array 60", made.fill, bytes(59))
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "a buffer", made.fill, 5)
            with engine.register(made, "made") as region:
                assert (region.address, region.length) == (made.address, 60)
                assert made.data_ptr() == made.address  # as torch's: programs are the same for both
                assert not nvlxfer.memory._lent  # it was taken as it is
            assert made.__array_interface__["data"] == (made.address, False)
            assert not hasattr(made, "__cuda_array_interface__")  # its memory is the CPU's
            try:
                pickle.dumps(made)
                raise AssertionError("was pickled")
            except TypeError as refused:
                assert "object of this process" in str(refused)
        assert made.closed and "closed" in repr(made)
        for call in (made.data_ptr, made.tobytes, lambda: made.fill(bytes(60))):  # the last two would end the process
            raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "the Array is closed", call)
        raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.transfer, [read(engine.peer_open(engine.export()), 8, 8, 8)])
        assert engine.empty((), "bfloat16").nbytes == 2 and engine.empty(7).shape == (7,)
        assert engine.empty((0, 4), "int8", kind=Alloc.VMM).nbytes == 0
        plain = (ctypes.c_char * 64)()
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "Engine.empty", engine.register, (ctypes.addressof(plain), 64))
        invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "float31", engine.empty, 4, "float31")
        raises(*invalid, "negative", engine.empty, (-1,))
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "shape", engine.empty, 1.5)
        raises(*invalid, "", engine.empty, (1 << 62, 8), "float64")


def test_no_dimension():
    """A buffer of no dimension is data, also where an address could stand; a number of NumPy's there is an address."""
    with Engine() as engine:
        number, room = ctypes.c_double(7.5), ctypes.c_double()
        assert memoryview(number).ndim == 0
        made = engine.empty((), "float64")
        made.fill(number)
        assert made.tobytes() == bytes(number)
        made.fill(bytes(8))
        engine.memcpy(made.address, number)
        engine.memcpy(room, made.address)
        assert room.value == 7.5
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "4 bytes, the Array 8", made.fill, ctypes.c_float(1))
        address = f"@nvlx-arrays-message-{os.getpid()}"
        engine.serve(address)
        with Engine() as other, other.connect(address, 30) as peer:
            peer.send(number)
            while (event := engine.next_event()) is None:
                pass
            assert event.message == bytes(number)
        if HAS_NUMPY:
            import numpy

            for content in (numpy.array(2.5), numpy.float64(3.5), numpy.array(1.5)[()], numpy.array([4.5])):
                made.fill(content)
                assert made.tobytes() == content.tobytes()
            whole = engine.empty((), "int64")
            for content in (numpy.array(5), numpy.int64(6)):
                whole.fill(content)
                assert whole.tobytes() == content.tobytes()
            for address in (numpy.int64(made.address), numpy.uint64(made.address)):
                engine.memcpy(address, numpy.array(9.5))
                engine.memcpy(seen := numpy.array(0.0), address)
                assert seen == 9.5
                peer = engine.peer_open(engine.export())
                assert len(read(peer, address, numpy.array(made.address), numpy.int32(8))) == 1
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "local", read, peer, numpy.array(7.5), 8, 8)


def test_byte_order():
    """Elements of the other byte order are refused where their type counts: they would be read as other numbers."""
    refused = nvlxfer.NotSupported, "NVLX_ENOTSUP"
    swapped = (ctypes.c_int32.__ctype_be__ * 2)(1, 2)
    kind = type("Kind", (), {"name": "int32", "byteorder": ">"})()
    with Engine() as engine:
        raises(*refused, "byte order is big-endian", engine.empty, 2, kind)
        raises(*refused, "'>i4'", engine.empty, 2, ">i4")
        made, plain = engine.empty(2, "int32"), engine.empty(8)
        raises(*refused, "byte order is big-endian", made.fill, swapped)
        raises(*refused, "Python's objects", plain.fill, (ctypes.py_object * 1)(None))
        plain.fill(swapped)
        assert plain.tobytes() == bytes(swapped)
        for interface in ("__array_interface__", "__cuda_array_interface__"):
            told = {**made.__array_interface__, "typestr": ">i4"}
            for more in ({}, {"__dlpack__": None}):
                tensor = type("Tensor", (), {interface: told, **more})()
                raises(*refused, "tensor 't': the byte order is big-endian ('>i4')", nvlxfer.publish, {"t": tensor},
                       engine)  # fmt: skip
            with engine.register(tensor) as region:  # its peers read bytes
                assert region.length == 8
        if HAS_NUMPY:
            import numpy

            raises(*refused, "big-endian", engine.empty, 2, numpy.dtype(">i4"))
            raises(*refused, "big-endian", made.fill, numpy.array([1, 2], ">i4"))
            raises(*refused, "big-endian", made.fill, numpy.zeros(1, [("O", "<i4"), ("b", ">i4")]))
            raises(*refused, "Python's objects", made.fill, numpy.zeros(1, [("a", object)]))
            made.fill(numpy.zeros(1, [("O", "<i4"), ("b", "<i4")]))
            raises(*refused, "big-endian", nvlxfer.publish, {"t": numpy.asarray(made).view(">i4")}, engine)
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "a buffer", plain.fill, numpy.ones(1, "datetime64[s]"))
            for kind in (numpy.dtype("<i4"), numpy.dtype("=i4"), numpy.int32, numpy.dtype("int8")):
                assert engine.empty(2, kind).dtype in ("int32", "int8")


class OnCuda:
    """What an Array asks of an engine, as on the backend cuda."""

    backend = "cuda"
    closed = False


def test_host_memory():
    """Host memory that peers read, and programs take as the CPU's."""
    with Engine() as owner, Engine() as engine, owner.empty(64, "int32", kind=Alloc.HOST) as made:
        words = array.array("i", range(64))
        made.fill(words)
        assert made.__array_interface__["data"] == (made.address, False)
        with owner.register(made, "words", Access.READ):
            target = engine.empty(64, "int32")
            engine.register(target, access=Access.NONE)
            owner.serve(f"@nvlx-arrays-{os.getpid()}")
            with engine.connect(f"@nvlx-arrays-{os.getpid()}") as peer:
                assert peer.region("words").kind == nvlxfer.Kind.HOST
                engine.transfer(read(peer, target.address, *peer.find("words"))).wait(30)
                assert target.tobytes() == words.tobytes()
    pinned = nvlxfer.Array(OnCuda, made.address, (64,), "int32", 1, owned=False, on_host=True)
    assert pinned.__dlpack_device__() == (3, 0) and pinned.__array_interface__["shape"] == (64,)
    assert not hasattr(pinned, "__cuda_array_interface__")
    on_gpu = nvlxfer.Array(OnCuda, made.address, (64,), "int32", 1, owned=False)
    assert on_gpu.__dlpack_device__() == (2, 1) and on_gpu.__cuda_array_interface__["shape"] == (64,)
    assert not hasattr(on_gpu, "__array_interface__")


def test_dlpack():
    """A capsule that nobody takes gives back the array, and one that was taken does so by its deleter."""
    with Engine() as engine:
        made = engine.empty((2, 3), "bfloat16")
        assert made.__dlpack_device__() == (1, 0)  # of the CPU, as the backend is host
        capsule = made.__dlpack__()
        raises(nvlxfer.Busy, "NVLX_EBUSY", "1 consumers", made.close)
        del capsule
        gc.collect()
        capsule = made.__dlpack__(stream=None, max_version=(1, 0), dl_device=(1, 0), copy=False)
        address = pointer(capsule, b"dltensor")
        rename(capsule, USED)
        tensor = nvlxfer.tensors.arrays._DLManagedTensor.from_address(address)
        assert (tensor.data, tensor.ndim, tensor.code, tensor.bits, tensor.lanes) == (made.address, 2, 4, 16, 1)
        assert tensor.shape[:2] == [2, 3] and not tensor.strides
        del capsule
        gc.collect()
        raises(nvlxfer.Busy, "NVLX_EBUSY", "1 consumers", made.close)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(tensor.deleter)(address)
        made.close()
        for refused in (dict(copy=True), dict(dl_device=(2, 0)), {}):
            try:
                made.__dlpack__(**refused)
                raise AssertionError(f"{refused} was given")
            except BufferError:
                pass


def test_parts():
    """An array is not freed as long as a consumer has one that lies in it; those beside it do not matter."""
    with Engine() as engine:
        whole, beside = engine.empty((4, 8)), engine.empty((4, 8))
        parts = [nvlxfer.Array(engine, whole.address + 8 * i, (8,), "int8", 0, owned=False) for i in range(4)]
        kept = beside.__dlpack__()
        for index in (0, 3):
            capsule = parts[index].__dlpack__()
            raises(nvlxfer.Busy, "NVLX_EBUSY", "1 consumers", whole.close)
            parts[index].close()  # which has no memory of its own
            raises(nvlxfer.Busy, "NVLX_EBUSY", "1 consumers", whole.close)
            assert not whole.closed and whole.data_ptr() == whole.address
            del capsule
        whole.close()
        del kept
    assert beside.closed
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "closed", beside.data_ptr)
    assert not hasattr(beside, "__array_interface__")


def test_given_back_by_the_collector():
    """The garbage collector drops what a consumer had, while another consumer takes an array or one is closed."""

    class Collecting(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            gc.collect()

        def values(self):
            gc.collect()
            return super().values()

    def work():
        with Engine() as engine:
            made = engine.empty(8)
            for _ in range(3):
                cycle = [made.__dlpack__()]
                cycle.append(cycle)
                del cycle
                made.__dlpack__()
            cycle = [engine.empty(8).__dlpack__()]
            cycle.append(cycle)
            del cycle
            made.close()
        done.append(True)

    done, before = [], nvlxfer.memory._lent
    nvlxfer.memory._lent = Collecting()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert done and not nvlxfer.memory._lent
    nvlxfer.memory._lent = before


def test_closed_by_threads():
    """The memory is freed once, and what lies there next stays."""
    with Engine() as engine:
        for _ in range(50):
            made, nexts, failures = engine.empty(1 << 12), [], []

            def close(made=made, nexts=nexts, failures=failures):
                try:
                    made.close()
                    nexts.append(engine.empty(1 << 12))
                except nvlxfer.NvlxError as failure:
                    failures.append(failure)

            threads = [threading.Thread(target=close) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures, failures
            for each in nexts:
                each.close()


def test_closed_while_it_is_copied():
    """Who copies has the whole of it, or is refused."""
    with Engine() as engine:
        for _ in range(30):
            made, copies = engine.empty(1 << 20), []
            made.fill(bytes(1 << 20))

            def copy(made=made, copies=copies):
                try:
                    while True:
                        copies.append(not any(made.tobytes()))
                except nvlxfer.InvalidArgument as refused:
                    copies.append("the Array is closed" in str(refused))

            thread = threading.Thread(target=copy)
            thread.start()
            while not copies:
                time.sleep(0)
            made.close()
            thread.join()
            assert all(copies)


def test_fork():
    """A child leaves its parent's memory alone."""
    with Engine() as engine, engine.empty(8) as made:
        made.fill(b"01234567")
        child = os.fork()
        if child == 0:
            for call in (made.tobytes, lambda: made.fill(bytes(8))):
                raises(nvlxfer.Forked, "NVLX_EFORK", "", call)
            made.close()
            os._exit(7 if made.closed else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert made.tobytes() == b"01234567"


def test_numpy():
    """Memory of the host backend as NumPy's, and lists from its arrays."""
    if not HAS_NUMPY:
        print("SKIP: there is no NumPy here")
        return
    import numpy

    with Engine() as engine:
        made = engine.empty((100, 8), "int64")
        seen = numpy.asarray(made)
        seen[:] = numpy.arange(800).reshape(100, 8)
        assert seen.ctypes.data == made.address and made.tobytes() == seen.tobytes()
        taken = numpy.from_dlpack(made)
        assert (taken == seen).all()
        raises(nvlxfer.Busy, "NVLX_EBUSY", "consumers", made.close)
        del taken
        with engine.register(seen[10:20], "part") as part:
            assert (part.address, part.length) == (made.address + 640, 640)
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "not contiguous", engine.register, seen[:, :4])
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "", engine.register, numpy.zeros(4))
        target = engine.empty((100, 8), numpy.int64)
        engine.register(made, "all")
        engine.register(target, access=Access.NONE)
        peer = engine.peer_open(engine.export())
        order = numpy.random.default_rng(1).permutation(100)
        local = target.address + 64 * numpy.arange(100)
        remote = (peer.find("all")[0] + 64 * order).astype(numpy.uint64)
        engine.transfer(read(peer, local, remote, numpy.full(100, 64))).wait(30)
        assert (numpy.asarray(target) == seen[order]).all()
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "64-bit", read, peer, local, remote, numpy.full(100, 64.0))


run_tests([test_array, test_no_dimension, test_byte_order, test_host_memory, test_dlpack, test_parts,
           test_given_back_by_the_collector, test_closed_by_threads, test_closed_while_it_is_copied, test_fork,
           test_numpy])  # fmt: skip
