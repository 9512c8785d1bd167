# SPDX-License-Identifier: Apache-2.0
"""Tensors of a model, published by one engine or several, and pulled by others."""

import gc
import math
import os
import random
import sys
import threading
import time

import nvlxfer
from nvlxfer import Access, Engine, Slice, publish, pull
from support import raises, run_tests

INVALID = nvlxfer.InvalidArgument, "NVLX_EINVAL"
sizes = {"float32": 4, "bfloat16": 2, "int8": 1, "int64": 8}


def filled(engine, shape, dtype, seed=0):
    made = engine.empty(shape, dtype)
    made.fill(random.Random(f"{shape}{dtype}{seed}").randbytes(made.nbytes))
    return made


def sliced(content, item, whole, start, shape):
    """The bytes of a slice of a tensor, in the plain way."""
    out = bytearray()

    def walk(depth, offset):
        step = item
        for extent in whole[depth + 1 :]:
            step *= extent
        if depth == len(whole):
            out.extend(content[offset : offset + item])
            return
        for i in range(start[depth], start[depth] + shape[depth]):
            walk(depth + 1, offset + i * step)

    walk(0, 0)
    return bytes(out)


def test_whole():
    address = f"@nvlxfer-models-{os.getpid()}"
    with Engine() as owner, Engine() as reader:
        weights = {
            "embed": filled(owner, (100, 33), "bfloat16"),
            "layers": {"0": {"w": filled(owner, (64, 64), "float32")}, "1": {"w": filled(owner, (7,), "int8")}},
            "scale": filled(owner, (), "int64"),
            "nothing": filled(owner, (0, 5), "float32"),
        }
        owner.serve(address)
        with publish(weights, owner, "m") as published, reader.connect(address, 30) as peer:
            assert "'m': 5 tensors" in repr(published)
            with pull(peer, name="m") as got:
                assert sorted(got.tensors) == ["embed", "layers.0.w", "layers.1.w", "nothing", "scale"]
                assert got.unverified == [] and "5 tensors of 1 peers" in repr(got)
                for name, tensor in (("embed", weights["embed"]), ("layers.0.w", weights["layers"]["0"]["w"])):
                    mine = got.tensors[name]
                    assert (mine.shape, mine.dtype) == (tensor.shape, tensor.dtype)
                    assert mine.tobytes() == tensor.tobytes() and mine.address % 512 == 0
                with published.changing():
                    weights["embed"].fill(b"\7" * 6600)
                got.again(published.generation, 30)
                assert got.tensors["embed"].tobytes() == b"\7" * 6600
                weights["embed"].fill(b"\x08" * 6600)  # untold
                raises(nvlxfer.WrongDigest, "NVLX_EDIGEST", "tensor 'embed': op ", got.again)
                got.again(verify=False)
                assert got.tensors["embed"].tobytes() == b"\x08" * 6600
            assert reader.info().regions == 0

            mine = {"scale": reader.empty((), "int64"), "layers": {"1": {"w": reader.empty(7, "int8")}}}
            with pull(peer, into=mine, name="m") as got:
                assert mine["scale"].tobytes() == weights["scale"].tobytes()
                assert mine["layers"]["1"]["w"].tobytes() == weights["layers"]["1"]["w"].tobytes()
            raises(nvlxfer.NotFound, "NVLX_ENOENT", "", pull, peer, name="other", timeout=0)
            raises(nvlxfer.NotFound, "NVLX_ENOENT", "'none'", pull, peer, {"none": mine["scale"]}, "m")
            raises(*INVALID, "at the peer", pull, peer, {"scale": reader.empty(2, "int64")}, "m")
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "a dict", pull, peer, [1], "m")
            assert reader.info().regions == 0
        assert owner.info().regions == 0


def test_late():
    """A model that is published later is waited for, at a peer that is followed, as long as the caller says."""
    address = f"@nvlxfer-models-late-{os.getpid()}"
    not_found = nvlxfer.NotFound, "NVLX_ENOENT"
    with Engine() as owner, Engine() as reader:
        weight, made = filled(owner, (64,), "int8"), []
        owner.serve(address)
        with reader.connect(address, 30) as peer:
            raises(*not_found, f"at {address!r} publishes no model 'm'", pull, peer, name="m", timeout=0)
            since = time.monotonic()
            raises(*not_found, "no model 'm'", pull, peer, name="m", timeout=0.3)
            assert 0.3 <= time.monotonic() - since < 9

            def change_then_publish():  # what is another's is no model
                time.sleep(0.2)
                made.append(owner.register(weight, "other"))
                time.sleep(0.2)
                made.append(publish({"w": weight}, owner, "m"))

            for timeout in (30, None):
                thread = threading.Thread(target=change_then_publish)
                thread.start()
                calls, sync = [], peer.sync
                peer.sync = lambda *arguments: calls.append(sync(*arguments))
                with pull(peer, name="m", timeout=timeout) as got:
                    assert got.tensors["w"].tobytes() == weight.tobytes()
                assert 0 < len(calls) < 5, calls  # nothing is polled
                del peer.sync
                thread.join()
                while made:
                    made.pop().close()
                peer.sync(owner.publish(), 30)
            with reader.peer_open(owner.export()) as of_text:
                since = time.monotonic()
                raises(*not_found, "from a text publishes no model 'm'", pull, of_text, name="m", timeout=30)
                assert time.monotonic() - since < 9
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "timeout", pull, peer, timeout="1")
            threading.Timer(0.3, owner.close).start()
            raises(nvlxfer.Stale, "NVLX_ESTALE", "", pull, peer, name="m", timeout=30)


def test_timeout():
    """Who does not wait long enough is told, and what is in flight goes on."""
    with Engine() as engine:
        tensors = {str(i): filled(engine, (1 << 19,), "int64", i) for i in range(2)}
        with publish(tensors, engine), engine.peer_open(engine.export()) as peer, pull(peer) as got:
            for _ in range(100):  # a busy machine may let it end before the wait begins
                try:
                    got.again(timeout=0)
                except nvlxfer.Timeout:
                    break
            else:
                raise AssertionError("8 MiB never took any time")
            got.again(timeout=30)
            assert all(got.tensors[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())


def test_slices():
    """Four shards of one kind become two of another, and whole tensors; along any dimension."""
    dice = random.Random(5)
    with Engine() as owner, Engine() as reader:
        for index in range(25):
            whole = tuple(dice.choice((1, 2, 4, 6, 12)) for _ in range(dice.randint(1, 4)))
            dtype = dice.choice(list(sizes))
            full = random.Random(index).randbytes(sizes[dtype] * max(1, math.prod(whole)))
            axis = dice.randrange(len(whole))
            count = dice.choice([n for n in (1, 2, 3, 4) if whole[axis] % n == 0])
            owners, peers, published = [], [], []
            for rank in range(count):
                owners.append(Engine())
                shape, start = cut(whole, axis, rank, count)
                tensor = owners[-1].empty(shape, dtype)
                tensor.fill(sliced(full, sizes[dtype], whole, start, shape))
                published.append(publish({"t": Slice(tensor, whole, start)}, owners[-1]))
                peers.append(reader.peer_open(owners[-1].export()))
            with pull(peers) as got:
                assert got.tensors["t"].tobytes() == full and got.tensors["t"].shape == whole
            axis = dice.randrange(len(whole))
            parts = dice.choice([n for n in (1, 2, 3) if whole[axis] % n == 0])
            for rank in range(parts):
                shape, start = cut(whole, axis, rank, parts)
                mine = reader.empty(shape, dtype)
                with pull(peers, {"t": Slice(mine, whole, start)}):
                    assert mine.tobytes() == sliced(full, sizes[dtype], whole, start, shape), (whole, axis, rank)
                mine.close()
            for peer in peers:
                peer.close()
            for each in owners:
                each.close()


def cut(whole, axis, rank, count):
    shape, start = list(whole), [0] * len(whole)
    shape[axis] //= count
    start[axis] = rank * shape[axis]
    return tuple(shape), tuple(start)


def test_refused():
    with Engine() as engine:
        tensor = filled(engine, (4, 4), "float32")
        for given, text in (
            ({"t": Slice(tensor, (8, 4), (5, 0))}, "no slice"),
            ({"t": Slice(tensor, (8, 4, 1), (0, 0))}, "no slice"),
        ):
            raises(*INVALID, text, publish, given, engine)
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "name", publish, {3: tensor}, engine)
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "__dlpack__", publish, {"t": object()}, engine)
        first = publish({"t": tensor}, engine)
        raises(nvlxfer.AlreadyExists, "NVLX_EEXIST", "", publish, {"t": tensor}, engine)
        assert engine.info().regions == 2
        peer = engine.peer_open(engine.export())
        half = engine.empty((2, 4), "float32")
        with pull(peer, {"t": Slice(half, (4, 4), (2, 0))}) as got:
            assert half.tobytes() == tensor.tobytes()[32:] and got.unverified == ["t"]
        first.close()
        first.close()
        for text in (b"[]", b"{}", b"x", b'{"nvlxfer":1,"tensors":5}', b'{"nvlxfer":2,"tensors":[]}',
                     b'{"nvlxfer":1,"tensors":[["t","float32",[4],[4],[1]]]}', b'{"nvlxfer":1,"tensors":[[1,2]]}',
                     b'{"nvlxfer":1,"tensors":[["t","float32",[-4],[4],[0]]]}',
                     b'{"nvlxfer":1,"tensors":[["t",["float32"],[4],[4],[0]]]}',
                     b'{"nvlxfer":1,"tensors":[["t","float32",[1.5],[4],[0]]]}'):  # fmt: skip
            with engine.empty(len(text)) as told:
                told.fill(text)
                with engine.register(told, "model", Access.READ):
                    with engine.peer_open(engine.export()) as other:
                        try:
                            pull(other)
                            raise AssertionError(text)
                        except nvlxfer.NvlxError as failure:
                            assert failure.name in ("NVLX_EFORMAT", "NVLX_EVERSION"), (text, failure)
        peer.close()


def test_words():
    """Messages name the tensor and the model, and what to do."""
    with Engine() as engine:
        weights = {f"layer.{i}.weight": filled(engine, (4,), "int8", i) for i in range(7)}
        plain = type("Tensor", (), {"__array_interface__": dict(typestr="<i4", shape=(2,), data=(id(engine), False))})()
        exists = nvlxfer.AlreadyExists, "NVLX_EEXIST"
        with publish(weights, engine), engine.peer_open(engine.export()) as peer:
            told = f"{exists[1]}: a model 'model' is published already: close it, or give another name"
            raises(*exists, told, publish, weights, engine)
            with publish({}, engine, "empty"):
                raises(*exists, "a model or a region 'empty' is there already: close it,", publish, {}, engine, "empty")
            mine = engine.empty((4,), "int8")
            for wanted, near in (("layer.3.weigth", "layer.3.weight"), ("zz", "layer.0.weight")):
                told = f"no peer publishes a tensor {wanted!r}; there are 7, such as {near!r}"
                raises(nvlxfer.NotFound, "NVLX_ENOENT", told, pull, peer, {wanted: mine})
            for twice in ({"a.b": mine, "a": {"b": mine}}, {"a": {"b": mine}, "a.b": mine}):
                raises(*INVALID, "tensor 'a.b' is given twice", publish, twice, engine, "twice")
                raises(*INVALID, "tensor 'a.b' is given twice", pull, peer, twice)
            told = "NVLX_ENOTSUP: tensor 'plain': "
            raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", told, publish, {"plain": plain}, engine, "other")
            with publish({"plain": engine.empty((2,), "int32")}, engine, "third"):
                with engine.peer_open(engine.export()) as other:
                    raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", told, pull, other, {"plain": plain}, "third")
            told = "NVLX_EINVAL: tensor 'odd': "
            for odd in (object(), type("Tensor", (), {"__array_interface__": {}})()):
                for call in (publish, lambda tensors, engine: engine.offer("@nvlx-models-odd", tensors)):
                    try:
                        call({"odd": odd}, engine, *["other"][: call is publish])
                        raise AssertionError(odd)
                    except nvlxfer.InvalidArgument as failure:
                        assert str(failure).startswith(told), failure
            with pull(peer):
                raises(nvlxfer.Busy, "NVLX_EBUSY", "a Pull, Prepared or Blocks: close it before", peer.close)


def test_module():
    """What has state_dict(), as torch's modules."""

    class Module:
        def __init__(self, engine):
            self.weight = filled(engine, (8, 8), "float32", id(engine))

        def state_dict(self):
            return {"weight": self.weight}

    with Engine() as engine:
        source, target = Module(engine), Module(engine)
        target.weight.fill(bytes(256))
        with publish(source, engine), engine.peer_open(engine.export()) as peer, pull(peer, into=target):
            assert target.weight.tobytes() == source.weight.tobytes()


def test_wrong_digest():
    """It names the tensor, whichever of several peers and ops it is of, behind parts and tensors of nothing."""
    with Engine() as one, Engine() as other, Engine() as reader:
        mine = {name: filled(one, (100,), "int8", name) for name in "abc"}
        theirs = {"half": Slice(filled(other, (2, 4), "int8"), (4, 4), (0, 0)), "none": filled(other, (0,), "int8")}
        theirs.update({name: filled(other, (100,), "int8", name) for name in "def"})
        with publish(mine, one), publish(theirs, other):
            with reader.peer_open(one.export()) as first, reader.peer_open(other.export()) as second:
                half = Slice(reader.empty((2, 4), "int8"), (4, 4), (0, 0))
                into = {"half": half, "none": reader.empty((0,), "int8")}
                into.update({name: reader.empty((100,), "int8") for name in "abcdef"})
                with pull([first, second], into) as got:
                    assert got.unverified == []
                    for name, tensor in (*mine.items(), *list(theirs.items())[2:]):
                        before = tensor.tobytes()
                        tensor.fill(bytes(100))
                        raises(nvlxfer.WrongDigest, "NVLX_EDIGEST", f"tensor '{name}': op ", got.again)
                        tensor.fill(before)
                    got.again()
                    mine["b"].fill(b"\1" * 100)
                    kept = got.start()
                for request in kept:  # close has waited for them, and who has them is told by them
                    if request.info().ops == len(mine):
                        raises(nvlxfer.WrongDigest, "NVLX_EDIGEST", "", request.wait)
                        break
                else:
                    raise AssertionError([request.info() for request in kept])
                del kept, request
                mine["b"].fill(bytes(100))
                raises(nvlxfer.WrongDigest, "NVLX_EDIGEST", "tensor 'b': op ", pull, first)
                assert reader.info().regions == 0


def test_unverified():
    """Without digests all comes, also under verify, and `unverified` has the names."""
    with Engine() as engine:
        with publish({"t": filled(engine, (4,), "int8")}, engine, digest=False):
            with engine.peer_open(engine.export()) as peer, pull(peer, verify=True) as got:
                assert got.unverified == ["t"]


def test_into_the_same():
    """Several Pulls into one tensor, or into tensors that overlap: a failure is told as what it is and leaves nothing,
    and each may be closed first."""
    with Engine() as owner, Engine() as engine:
        weights = {"a": filled(owner, (1 << 12,), "int8"), "half": filled(owner, (1 << 11,), "int8")}
        with publish(weights, owner), engine.peer_open(owner.export()) as peer:
            mine = engine.empty((1 << 12,), "int8")
            first = pull(peer, {"a": mine})
            assert engine.info().regions == 1
            raises(nvlxfer.NotFound, "NVLX_ENOENT", "'zz'", pull, peer, {"zz": mine})
            raises(*INVALID, "at the peer", pull, peer, {"half": mine})
            raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "-1", failing_pull, peer, mine)
            assert engine.info().regions == 1
            second, third = pull(peer, {"a": mine}), pull(peer, {"half": part(mine)})
            first.close()
            assert engine.info().regions == 2
            mine.fill(bytes(1 << 12))
            second.again()
            assert mine.tobytes() == weights["a"].tobytes()
            second.close()
            third.close()
            third.close()
            assert engine.info().regions == 0 and not engine._shared._used and not engine._shared._left
            mine.close()


def test_into_the_same_by_threads():
    """Registrations that threads share, and leave to each other, are all gone in the end."""
    with Engine() as owner, Engine() as engine:
        weights = {"a": filled(owner, (64,), "int8"), "half": filled(owner, (32,), "int8")}
        with publish(weights, owner), engine.peer_open(owner.export()) as peer:
            mine, failures = engine.empty((64,), "int8"), []

            def work(into):
                try:
                    for _ in range(100):
                        pull(peer, into, verify=False).close()
                except BaseException as failure:
                    failures.append(failure)

            intos = [{"a": mine}, {"a": mine}, {"half": part(mine)}]
            threads = [threading.Thread(target=work, args=(into,)) for into in intos]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            assert not failures, failures
            assert engine.info().regions == 0 and not engine._shared._used and not engine._shared._left


def test_relay():
    """What was pulled is published: each is closed after the other's Busy."""
    with Engine() as owner, Engine() as engine:
        weights, mine = {"a": filled(owner, (64,), "int8")}, {"a": engine.empty((64,), "int8")}
        with publish(weights, owner), engine.peer_open(owner.export()) as peer:
            pulled, relay = pull(peer, mine), publish(mine, engine)
            raises(nvlxfer.Busy, "NVLX_EBUSY", "a prepared list", relay.close)
            with engine.peer_open(engine.export()) as late:
                raises(nvlxfer.NotFound, "NVLX_ENOENT", "", pull, late)
            pulled.close()
            relay.close()
            assert engine.info().regions == 0


def part(array):
    """The first half, as an Array that owns nothing."""
    return nvlxfer.Array(array._engine, array.address, (array.shape[0] // 2,), array.dtype, array.gpu, owned=False)


def failing_pull(peer, mine):
    """One that fails when all is registered and prepared."""

    def again(self, generation=None, timeout=None, *, verify=True):
        raise nvlxfer.Timeout(-6, "-1")

    whole, nvlxfer.tensors.pulled.Pull.again = nvlxfer.tensors.pulled.Pull.again, again
    try:
        pull(peer, {"a": mine})
    finally:
        nvlxfer.tensors.pulled.Pull.again = whole


def test_into_what_others_use():
    """A list of the caller's own uses the tensor: closing the Pull leaves it to the end of the list."""
    with Engine() as owner, Engine() as engine:
        weights = {"a": filled(owner, (1 << 12,), "int8")}
        with publish(weights, owner), engine.peer_open(owner.export()) as peer:
            mine, info = engine.empty((1 << 12,), "int8"), peer.region("model/0")
            with engine.register(mine, access=Access.NONE):
                prepared = engine.prepare(nvlxfer.read(peer, mine.address, info.address, info.length))
                with pull(peer, {"a": mine}):
                    assert mine.tobytes() == weights["a"].tobytes()
                prepared.post().wait()
                prepared.close()
                assert engine.info().regions == 1
            assert engine.info().regions == 0


def test_gpus():
    """Without a GPU that is named, all is on the engine's first: no other one is touched."""
    with Engine(gpus=[1]) as owner, Engine(gpus=[1]) as engine, Engine() as both:
        weights = {"a": owner.empty((64,), "int8")}
        assert weights["a"].gpu == 1
        with publish(weights, owner), engine.peer_open(owner.export()) as peer, both.peer_open(owner.export()) as other:
            with pull(peer) as got, pull(peer, {"a": engine.empty((64,), "int8")}), pull(peer, gpu=1):
                assert got.tensors["a"].gpu == 1 and gpu_of(engine, got.tensors["a"]) == peer.region("model/0").gpu
            for gpu in (0, 1):
                with pull(other, gpu=gpu) as got:
                    assert got.tensors["a"].gpu == gpu
                    assert (gpu_of(both, got.tensors["a"]) == peer.region("model/0").gpu) == (gpu == 1)
            raises(*INVALID, "GPU 0", pull, peer, gpu=0)
            raises(*INVALID, "GPU 0", publish, weights, owner, "other", gpu=0)
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "gpu", pull, peer, gpu="1")
            publish(weights, owner, "other", gpu=1).close()
    assert Engine().empty(1).gpu == 0


def gpu_of(engine, array):
    engine.register(array, access=Access.READ)  # to the engine's end, as the Pull uses its memory
    with engine.peer_open(engine.export()) as peer:
        return next(info.gpu for info in peer.regions() if info.address == array.address)


def test_one_does_not_start():
    """Those that did are waited for; by `close`, where the caller has not."""
    with Engine() as one, Engine() as other, Engine() as reader:
        weights = {name: filled(engine, (1 << 20,), "int64", name) for name, engine in (("a", one), ("b", other))}
        with publish({"a": weights["a"]}, one), publish({"b": weights["b"]}, other):
            with reader.peer_open(one.export()) as first, reader.peer_open(other.export()) as second:
                got = pull([first, second])

                def full(stream, verify):
                    raise nvlxfer.Busy(-7, "full")

                got._feeds[1].start = full
                for _ in range(3):
                    weights["a"].fill(b"8" * (8 << 20))
                    raises(nvlxfer.Busy, "NVLX_EBUSY", "full", got.again, verify=False)
                    assert not reader._core.dropped and got.tensors["a"].tobytes() == weights["a"].tobytes()
                raises(nvlxfer.Busy, "NVLX_EBUSY", "full", got.start, verify=False)
                assert not reader._core.dropped
                got.close()
                assert reader.info().requests == 0 and reader.info().regions == 0


def test_closed_by_threads():
    """Each that returns from close() finds all closed; none fails."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with Engine() as owner, Engine() as engine:
        weights = {str(index): filled(owner, (16,), "int8") for index in range(30)}
        for _ in range(5):
            published = publish(weights, owner, digest=False)
            with engine.peer_open(owner.export()) as peer:
                got, failures = pull(peer), []

                def close(each, engine, failures=failures):
                    try:
                        each.close()
                        assert not engine.info().regions
                    except BaseException as failure:
                        failures.append(failure)

                for each, of in ((got, engine), (published, owner)):
                    threads = [threading.Thread(target=close, args=(each, of)) for _ in range(4)]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    assert not failures, failures
    sys.setswitchinterval(interval)


def test_closed():
    """Arrays that pull made are closed with it, not before a consumer of one lets go; a child leaves all as it is."""
    with Engine() as owner, Engine() as engine:
        published = publish({"a": filled(owner, (64,), "int8"), "b": filled(owner, (64,), "int8")}, owner)
        with published, engine.peer_open(owner.export()) as peer:
            got = pull(peer)
            made = got.tensors["b"]
            child = os.fork()
            if child == 0:
                got.close()
                published.close()
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            capsule = made.__dlpack__()
            raises(nvlxfer.Busy, "NVLX_EBUSY", "1 consumers", got.close)
            assert made.data_ptr() == made.address
            del capsule
            got.close()
            assert made.closed and got.tensors["a"].closed
            raises(*INVALID, "closed", made.data_ptr)
            raises(*INVALID, "closed", engine.register, made)


def test_given_back_by_the_collector():
    """The garbage collector closes a list while another's registration is counted."""

    class Collecting(dict):
        def get(self, key):
            gc.collect()
            return super().get(key)

    class Cycle:
        def __init__(self, closed):
            self.closed, self.itself = closed, self

        def __del__(self):
            self.closed.close()

    def work():
        with Engine() as owner, Engine() as engine:
            mine, other = {"a": engine.empty((64,), "int8")}, {"b": engine.empty((64,), "int8")}
            weights = {name: filled(owner, (64,), "int8") for name in "ab"}
            with publish(weights, owner), engine.peer_open(owner.export()) as peer:
                engine._shared._used = Collecting()
                Cycle(pull(peer, mine))
                pull(peer, mine).close()
                Cycle(pull(peer, mine))
                pull(peer, other).close()
                assert engine.info().regions == 0 and not engine._shared._used
        done.append(True)

    done = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert done


run_tests([test_whole, test_late, test_timeout, test_slices, test_refused, test_words, test_module, test_wrong_digest, test_unverified,
           test_into_the_same, test_into_what_others_use,
           test_into_the_same_by_threads, test_relay, test_gpus, test_one_does_not_start, test_closed_by_threads,
           test_closed, test_given_back_by_the_collector])  # fmt: skip
