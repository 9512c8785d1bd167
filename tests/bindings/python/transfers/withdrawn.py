# SPDX-License-Identifier: Apache-2.0
"""What a Pull tells when the owner has withdrawn or replaced tensors, and which memory the list of names lies in."""

import asyncio
import os
import subprocess
import sys
import tempfile

import nvlxfer
from nvlxfer import Alloc, Engine, Kind, publish, pull
from support import raises, run_tests

OWNER = """
import sys
from nvlxfer import Alloc, Engine, publish
engine = Engine()
tensor = engine.empty((64,), "int8", kind=Alloc.VMM)
tensor.fill(b"7" * 64)
engine.serve(sys.argv[1])
with publish({"a": tensor}, engine):
    print("ready", flush=True)
    sys.stdin.readline()
"""
READER = """
import os, sys
from nvlxfer import Engine, pull
engine = Engine()
with engine.connect(sys.argv[1], 30) as peer, pull(peer) as got:
    assert peer.info().pid == os.getpid() == 1 and not peer.info().same_process
    print(got.tensors["a"].tobytes() == b"7" * 64, flush=True)
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def weights(engine, seed, kind=Alloc.CUDA_MALLOC):
    made = {}
    for name in "abc":
        made[name] = engine.empty((4096,), "int8", kind=kind)
        made[name].fill(bytes([seed]) * 4096)
    return made


def list_kind(owner, reader):
    with reader.peer_open(owner.export()) as peer:
        return peer.region("model").kind


def test_list_of_chunks():
    """It reaches as far as the tensors: chunks go to other PID namespaces, the default needs no server."""
    with Engine() as owner, Engine() as reader:
        with publish(weights(owner, 1), owner):
            assert list_kind(owner, reader) == Kind.CUDA_MALLOC
        for kind in (Alloc.VMM, Alloc.POOL, Alloc.HOST):
            with publish(weights(owner, 1, kind), owner):
                assert list_kind(owner, reader) == Kind.VMM, kind
        other = {"other": owner.empty(16, kind=Alloc.VMM)}
        with owner.register(other["other"], "x"), publish(weights(owner, 1), owner):
            assert list_kind(owner, reader) == Kind.CUDA_MALLOC
        for nothing in ({}, {"none": owner.empty((0,), "int8")}):
            with publish(nothing, owner):
                assert list_kind(owner, reader) == Kind.CUDA_MALLOC
        many = {str(index): owner.empty(16) for index in range(20)}
        many["last"] = owner.empty(16, kind=Alloc.VMM)
        with publish(many, owner):
            assert list_kind(owner, reader) == Kind.VMM
        owner.serve(f"@nvlxfer-withdrawn-{os.getpid()}")
        with publish(weights(owner, 1), owner):
            assert list_kind(owner, reader) == Kind.VMM


def test_no_chunks():
    """Where the backend has none, the list lies in the default."""
    with Engine() as owner, Engine() as reader:
        owner.serve(f"@nvlxfer-withdrawn-none-{os.getpid()}")
        empty = owner.empty

        def refusing(shape, dtype="uint8", gpu=None, kind=Alloc.CUDA_MALLOC):
            if kind == Alloc.VMM:
                raise nvlxfer.NotSupported(-8, "no chunks")
            return empty(shape, dtype, gpu, kind)

        owner.empty = refusing
        with publish(weights(owner, 1), owner):
            assert list_kind(owner, reader) == Kind.CUDA_MALLOC


def test_equal_pids():
    """Both processes are the first of their PID namespace."""
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True) if os.geteuid() == 0 else None
    if tried is None or tried.returncode:
        print("SKIP: test_equal_pids: PID namespaces need root and the right to unshare")
        return
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        command = [*NAMESPACE, sys.executable, "-c"]
        owner = subprocess.Popen([*command, OWNER, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert owner.stdout.readline() == "ready\n"
        read = subprocess.run([*command, READER, address], capture_output=True, text=True, timeout=60)
        owner.communicate("\n", timeout=60)
        assert read.stdout == "True\n" and owner.returncode == 0, read.stderr


def connected(owner, reader, number=[0]):  # noqa: B006
    number[0] += 1
    address = f"@nvlxfer-withdrawn-{os.getpid()}-{number[0]}"
    owner.serve(address)
    return reader.connect(address, 30)


def withdraw(published, owner, peer):
    """Closes what was published, and waits until the reader knows."""
    raised = None
    try:
        published.close(30)
    except nvlxfer.Timeout as failure:
        raised = failure
    assert raised is None, raised
    peer.sync(owner.publish(), 30)


def again_after(change, **options):
    """What a Pull tells after the change: each way to start it. Then pulling again gives what is there."""
    with Engine() as owner, Engine() as reader:
        old = weights(owner, 1)
        published = publish(old, owner, **options)
        with connected(owner, reader) as peer:
            with pull(peer) as got:
                after, named = change(owner, published, old, peer)

                async def await_all(verify):
                    for request in got.start(verify=verify):
                        await request

                for verify in (True, False):
                    raises(nvlxfer.Stale, "NVLX_ESTALE", named, got.again, verify=verify)
                    raises(nvlxfer.Stale, "NVLX_ESTALE", named, got.start, verify=verify)
                    raises(nvlxfer.Stale, "NVLX_ESTALE", named, asyncio.run, await_all(verify))
                if after is not None:
                    raises(nvlxfer.Stale, "NVLX_ESTALE", named, got.again, after.generation, 30)
            if after is None:
                raises(nvlxfer.NotFound, "NVLX_ENOENT", "model", pull, peer)
                return
            with pull(peer) as got:
                assert got.tensors["a"].tobytes() == bytes([2]) * 4096
            after.close()


def closed(owner, published, old, peer):
    withdraw(published, owner, peer)
    return None, "of model 'model', tensors 'a', 'b', 'c'"


def republished(owner, published, old, peer):
    withdraw(published, owner, peer)
    for tensor in old.values():
        tensor.fill(bytes([2]) * 4096)
    after = publish(old, owner)
    peer.sync(after.generation, 30)
    return after, "of model 'model', tensors 'a', 'b', 'c'"


def moved(owner, published, old, peer):
    withdraw(published, owner, peer)
    after = publish(weights(owner, 2), owner)
    peer.sync(after.generation, 30)
    return after, "of model 'model', tensors 'a', 'b', 'c'"


def shrunk(owner, published, old, peer):
    """Of three tensors one is another: the others stay."""
    published._regions[1].close(30)
    peer.sync(owner.publish(), 30)
    return None, "of model 'model', tensor 'b'"


def test_withdrawn():
    for change in (closed, republished, moved):
        for options in ({}, {"digest": False}):
            again_after(change, **options)


def test_one_withdrawn():
    with Engine() as owner, Engine() as reader:
        published = publish(weights(owner, 1), owner)
        with connected(owner, reader) as peer, pull(peer) as got:
            shrunk(owner, published, None, peer)
            raises(nvlxfer.Stale, "NVLX_ESTALE", "of model 'model', tensor 'b'", got.again)
            raises(nvlxfer.Stale, "NVLX_ESTALE", "of model 'model', tensor 'b'", got.again, verify=False)
            raises(nvlxfer.Stale, "NVLX_ESTALE", "of model 'model', tensor 'b'", pull, peer)


def test_withdrawn_meanwhile():
    """While a first pull is at each of its steps: when it reads the list, looks tensors up, prepares, and starts."""
    steps = (
        (Engine, "transfer", "the list of model 'model'"),
        (nvlxfer.tensors.pulled, "_sources", "tensor 'a'"),
        (nvlxfer.tensors.pulled._Feed, "prepare", "tensors 'a', 'b', 'c'"),
        (nvlxfer.tensors.pulled.Pull, "again", "tensors 'a', 'b', 'c'"),
    )
    for place, function, named in steps:
        with Engine() as owner, Engine() as reader:
            published = publish(weights(owner, 1), owner)
            with connected(owner, reader) as peer:
                whole, done = getattr(place, function), []

                def step(*arguments, whole=whole, done=done, published=published, owner=owner, peer=peer, **options):
                    if not done:
                        done.append(True)
                        withdraw(published, owner, peer)
                    return whole(*arguments, **options)

                setattr(place, function, step)
                try:
                    raises(nvlxfer.Stale, "NVLX_ESTALE", named, pull, peer)
                finally:
                    setattr(place, function, whole)
                assert reader.info().regions == 0


def test_replaced_meanwhile():
    """Another model of that name has come between the list and the look at its tensors."""
    with Engine() as owner, Engine() as reader:
        published = publish(weights(owner, 1), owner)
        with connected(owner, reader) as peer:
            whole = nvlxfer.tensors.pulled._sources

            def sources(*arguments):
                withdraw(published, owner, peer)
                peer.sync(publish({"a": owner.empty((5,), "int8")}, owner).generation, 30)
                return whole(*arguments)

            nvlxfer.tensors.pulled._sources = sources
            try:
                raises(nvlxfer.Stale, "NVLX_ESTALE", "tensor 'a'", pull, peer)
            finally:
                nvlxfer.tensors.pulled._sources = whole


def test_own_fault():
    """What this process has withdrawn is its own: OutOfRange, also of a model that is there."""
    with Engine() as owner, Engine() as reader:
        with publish(weights(owner, 1), owner), connected(owner, reader) as peer:
            got = pull(peer)
            for feed in got._feeds:
                feed.close()
            got._regions[0].close(30)
            raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "local range", got.again)
            got.close()


def test_dead_peer():
    """The owner has withdrawn a tensor, and is gone since: that is what is told, as there is nothing to pull again."""
    owner = Engine()
    with Engine() as reader:
        published = publish(weights(owner, 1), owner)
        with connected(owner, reader) as peer, pull(peer) as got:
            shrunk(owner, published, None, peer)
            owner.close()
            try:
                got.again(timeout=30)
                raise AssertionError("all came")
            except nvlxfer.Stale as failure:
                assert "gone" in str(failure) and "pull again" not in str(failure), failure


run_tests([test_list_of_chunks, test_no_chunks, test_equal_pids, test_withdrawn, test_one_withdrawn,
           test_withdrawn_meanwhile, test_replaced_meanwhile, test_own_fault, test_dead_peer])  # fmt: skip
