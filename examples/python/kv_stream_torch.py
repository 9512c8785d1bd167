# SPDX-License-Identifier: Apache-2.0
"""Layer by layer with PyTorch: prefill's KV cache goes out while prefill still computes, ordered by CUDA streams alone.

    python3 kv_stream_torch.py [--layers N] [--mib N] [--compute US] [--rounds N] [--no-wait]

Prefill (GPU 0) multiplies matrices and then fills a layer's tensor, in one stream. Another stream waits for the layer,
writes it to decode (GPU 1, or 0 if it is the only one), and signals behind it. Decode's stream waits for the signal of
each layer, and checks it. All of that is enqueued before prefill begins: no CPU stands between the two GPUs.

It measures how much of the transfer is hidden behind the multiplications. On the host backend (NVLX_BACKEND=host) there
are no streams: CPUs compute, and wait for the signals. Exit code 0: all values are right; 1: some are not, or something
failed; 77: PyTorch is missing, or has no CUDA though the library has.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import nvlxfer
from nvlxfer import Access, Engine, Mechanism, Peer, Prepared, Region, Request, signal, write

MAY_GO, CHECKED, ARRIVED = 0, 8, 16  # where in a process's counts
SIDE = 4096  # of the matrices
WAIT = 60  # seconds that anything may take
SKIPPED = 77  # the exit code


class Missing(Exception):
    """What is needed to run at all is not there."""


class Side:
    """What both processes have: a cache of a tensor for each layer, counts, and the other process."""

    def __init__(self, rank: int, options: argparse.Namespace) -> None:
        try:
            self.torch: Any = importlib.import_module("torch")
        except ImportError as missing:
            raise Missing(str(missing)) from None
        self.gpus = nvlxfer.gpu_count()
        self.gpu = rank % self.gpus
        self.engine = Engine(gpus=[self.gpu], mechanism=Mechanism.COPY_ENGINE)  # which leaves all SMs to the kernels
        self.on_gpu = self.engine.backend == "cuda"
        if self.on_gpu and not self.torch.cuda.is_available():
            raise Missing("this PyTorch has no CUDA: try NVLX_BACKEND=host")
        self.device = f"cuda:{self.gpu}" if self.on_gpu else "cpu"
        self.streams: list[Any] = [None, None]
        if self.on_gpu:
            self.torch.cuda.set_device(self.gpu)
            self.streams = [self.torch.cuda.Stream(), self.torch.cuda.Stream()]
            self.torch.cuda.set_stream(self.streams[0])
        self.layers: int = options.layers
        self.regions: list[Region] = []
        words = options.mib << 18
        self.base = self.torch.arange(words, dtype=self.torch.int32, device=self.device) * 40503
        self.cache = self.share("cache", (self.layers, words), "int32")
        self.counts = self.share("counts", (8,), "int64")
        self.engine.serve(f"{options.place}-{rank}")
        self.peer: Peer = self.engine.connect(f"{options.place}-{1 - rank}", WAIT)
        self.their_cache, length = self.peer.find("cache")
        self.their_counts, counts_length = self.peer.find("counts")
        if self.on_gpu:  # ahead of the first transfer, which then takes no longer than the others
            self.peer.map(self.gpu, self.their_cache, length)
            self.peer.map(self.gpu, self.their_counts, counts_length)

    def share(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor of zeros that the peer may write."""
        array = self.engine.empty(shape, dtype, self.gpu)
        tensor = self.torch.from_dlpack(array).zero_()
        self.synchronize()
        self.regions.append(self.engine.register(array, name, Access.WRITE))
        return tensor

    def end(self) -> None:
        self.peer.close()
        for region in self.regions:
            region.close(WAIT)  # waits for the other process, which may still have it open

    def synchronize(self) -> None:
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def seed(self, layer: int, number: int) -> int:
        return number * self.layers + layer  # another one for each layer of each pass

    def set_count(self, where: int, value: int) -> None:
        """Sets a count of the peer's, from this CPU."""
        with self.engine.transfer(signal(self.peer, self.their_counts + where, value)) as request:
            request.wait(WAIT)

    def await_count(self, where: int, value: int) -> None:
        self.engine.signal_wait(self.counts.data_ptr() + where, value, self.peer, WAIT)


# ---- Prefill ---------------------------------------------------------------------------------------------------------


class Prefill(Side):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(0, options)
        kind = self.torch.bfloat16 if self.on_gpu else self.torch.float32
        side = SIDE if self.on_gpu else 16
        self.matrices = [self.torch.ones((side, side), dtype=kind, device=self.device) for _ in range(3)]
        self.lists = [self.prepare(layer) for layer in range(self.layers)]
        self.work = 1
        if self.on_gpu:
            self.work = max(1, round(options.compute / self.multiplication_us()))

    def multiply(self) -> None:
        one, other, result = self.matrices
        self.torch.mm(one, other, out=result)

    def multiplication_us(self) -> float:
        """What one takes of many in a row; the first ones wake the GPU."""
        for count in (50, 50):
            self.synchronize()
            since = time.perf_counter()
            for _ in range(count):
                self.multiply()
            self.synchronize()
        return (time.perf_counter() - since) / count * 1e6

    def compute(self, layer: int, number: int) -> None:
        for _ in range(self.work):
            self.multiply()
        self.torch.add(self.base, self.seed(layer, number), out=self.cache[layer])

    def prepare(self, layer: int) -> Prepared:
        """A layer's write, and a signal that comes when it is in place: checked and mapped once, posted in each pass.
        Each signal adds 1, so that the same list always fits."""
        tensor = self.cache[layer]
        length = tensor.numel() * tensor.element_size()
        return self.engine.prepare(
            [
                write(self.peer, tensor.data_ptr(), self.their_cache + layer * length, length),
                signal(self.peer, self.their_counts + ARRIVED, 1, add=True),
            ]
        )

    def send(self, layer: int) -> Request:
        """Behind what is in the sending stream."""
        request = self.lists[layer].post(self.streams[1])
        if not self.on_gpu:  # without a stream, two lists have no order
            request.wait(WAIT)
        return request

    def run_pass(self, number: int, computes: bool, sends: bool) -> float:
        """Enqueues all layers, waits for the end, and returns how many seconds that took."""
        requests = []
        since = time.perf_counter()
        for layer in range(self.layers):
            if computes:
                self.compute(layer, number)
            if computes and sends and self.on_gpu:
                self.streams[1].wait_stream(self.streams[0])
            if sends:
                requests.append(self.send(layer))
        self.synchronize()
        for request in requests:
            request.wait(WAIT)
        return time.perf_counter() - since

    def run(self, rounds: int) -> int:
        compute, transfer, both = list[float](), list[float](), list[float]()
        for number in range(1, 2 * rounds + 3, 2):
            self.await_count(MAY_GO, number)
            compute.append(self.run_pass(number, True, False))
            transfer.append(self.run_pass(number, False, True))
            self.await_count(CHECKED, number)
            self.await_count(MAY_GO, number + 1)
            both.append(self.run_pass(number + 1, True, True))
            self.await_count(CHECKED, number + 1)
        self.report(*(statistics.median(times[1:]) for times in (compute, transfer, both)))
        for prepared in self.lists:
            prepared.close()
        self.end()
        return 0

    def report(self, compute: float, transfer: float, both: float) -> None:
        rate = self.cache.numel() * self.cache.element_size() / transfer / 1e9
        print(f"prefill alone   {compute * 1e6:10.1f} us")
        print(f"transfer alone  {transfer * 1e6:10.1f} us, {rate:.1f} GB/s")
        print(f"layer by layer  {both * 1e6:10.1f} us", flush=True)
        if self.on_gpu and self.gpus > 1:
            print(f"{100 * (1 - (both - compute) / transfer):.1f} % of the transfer is hidden", flush=True)


# ---- Decode ----------------------------------------------------------------------------------------------------------


class Decode(Side):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(1, options)
        self.waits = not options.no_wait
        self.wrong = self.torch.zeros((), dtype=self.torch.int64, device=self.device)
        self.check(0, 0)  # loads the kernels, and takes their memory: neither is to be done behind a wait
        self.wrong.zero_()

    def await_layer(self, layer: int, number: int) -> None:
        """What is put into the stream from now on begins when the layer has arrived."""
        arrived = (number - 1) * self.layers + layer + 1
        if self.on_gpu:
            self.engine.stream_wait(self.streams[0], self.peer, self.counts.data_ptr() + ARRIVED, arrived)
        else:
            self.await_count(ARRIVED, arrived)

    def check(self, layer: int, number: int) -> None:
        self.wrong += (self.cache[layer] != self.base + self.seed(layer, number)).sum()

    def run_pass(self, number: int) -> None:
        if self.waits and not self.on_gpu:  # this CPU itself will wait
            self.set_count(MAY_GO, number)
        for layer in range(self.layers):
            if self.waits:
                self.await_layer(layer, number)
            self.check(layer, number)
        if not self.waits:
            self.synchronize()
            self.set_count(MAY_GO, number)
            self.await_count(ARRIVED, number * self.layers)  # after the checks, so that it is still there
        if self.on_gpu:
            self.engine.stream_signal(self.streams[0], self.peer, self.their_counts + CHECKED, number)
        else:
            self.set_count(CHECKED, number)
        if self.waits and self.on_gpu:
            self.set_count(MAY_GO, number)
        self.synchronize()

    def run(self, rounds: int) -> int:
        passes = 2 * (rounds + 1)
        for number in range(1, passes + 1):
            self.run_pass(number)
        wrong = int(self.wrong)
        print(f"decode on {self.device}: {passes * self.layers} layers, {wrong} words are wrong", flush=True)
        self.end()
        return 1 if wrong else 0


# ---- Starting them ---------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    if options.role:
        return (Prefill if options.role == "prefill" else Decode)(options).run(options.rounds)
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--place", f"@kv_stream_torch-{os.getpid()}"]
    children = [subprocess.Popen([*command, "--role", role]) for role in ("prefill", "decode")]
    codes = [child.wait() for child in children]
    return SKIPPED if SKIPPED in codes else int(any(codes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=64, help="tensors (64)")
    parser.add_argument("--mib", type=int, default=32, help="MiB of each (32)")
    parser.add_argument("--compute", type=float, default=600, help="us that prefill computes a layer, on a GPU (600)")
    parser.add_argument("--rounds", type=int, default=10, help="measured ones (10)")
    parser.add_argument("--no-wait", action="store_true", help="decode does not wait: the words are wrong")
    parser.add_argument("--role", choices=("prefill", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, most in (("layers", 200), ("mib", 1024), ("compute", 10**6), ("rounds", 10**6)):
        if not 1 <= getattr(options, name) <= most:
            parser.error(f"--{name} {getattr(options, name)}: it is 1 to {most}")
    try:
        return run(options)
    except Missing as missing:
        print(f"SKIP: {missing}")
        return SKIPPED
    except (nvlxfer.NvlxError, OSError, ValueError) as failure:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
