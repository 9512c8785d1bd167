# SPDX-License-Identifier: Apache-2.0
"""A model of Transformers: one process computes the prompts (prefill), another one the tokens after them (decode).

    python3 kv_handover_transformers.py [--tokens N] [--no-wait]

The model is a small Llama with random weights, which are the same in both processes. As soon as prefill has computed
the keys and values of a layer, they go out, while it computes the next one; a signal comes behind them. Decode's stream
waits for the signals of all layers and of the first token, then goes on: on GPUs no CPU waits for another. The tokens
must be those that one process finds, by generate(). Prefill is on GPU 0, decode on GPU 1 if there is one.

On the host backend (NVLX_BACKEND=host) torch computes on the CPU, which waits for the signals. --no-wait does not wait:
the tokens are wrong. Exit code 0: all tokens are equal; 1: they are not, or something failed; 77: PyTorch or
Transformers is missing, or PyTorch has no CUDA though the library has.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from typing import Any

import nvlxfer
from nvlxfer import Access, Engine, Peer, Request, signal, write

LENGTHS = (37, 101)  # tokens of the prompts
LAYERS, HEADS, KV_HEADS, DIM, VOCABULARY = 6, 8, 2, 32, 512
WAIT = 120  # seconds that anything may take
SKIPPED = 77  # the exit code


class Missing(Exception):
    """What is needed to run at all is not there."""


class Worker:
    """What both processes have: the model, an engine, and registered memory that torch uses too."""

    def __init__(self, rank: int) -> None:
        try:
            self.torch: Any = importlib.import_module("torch")
            self.transformers: Any = importlib.import_module("transformers")
        except ImportError as missing:
            raise Missing(str(missing)) from None
        self.torch.set_grad_enabled(False)
        self.gpu = rank % nvlxfer.gpu_count()
        self.engine = Engine(gpus=[self.gpu])
        self.on_gpu = self.engine.backend == "cuda"
        if self.on_gpu and not self.torch.cuda.is_available():
            raise Missing("this PyTorch has no CUDA: try NVLX_BACKEND=host")
        self.device = f"cuda:{self.gpu}" if self.on_gpu else "cpu"
        self.model = self._make_model()
        self.streams: list[Any] = [None, None]  # to compute, to send
        if self.on_gpu:
            self.torch.cuda.set_device(self.gpu)
            self.streams = [self.torch.cuda.Stream(), self.torch.cuda.Stream()]
            self.torch.cuda.set_stream(self.streams[0])
        self.synchronize()  # the model is there

    def _make_model(self) -> Any:
        self.torch.manual_seed(14)
        config = self.transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HEADS * DIM, intermediate_size=3 * HEADS * DIM,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
            initializer_range=0.15, bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        return self.transformers.LlamaForCausalLM(config).eval().to(self.device)

    def prompts(self) -> list[Any]:
        made = self.torch.Generator().manual_seed(41)
        return [self.torch.randint(VOCABULARY, (1, n), generator=made).to(self.device) for n in LENGTHS]

    def share(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor of zeros that peers may write."""
        array = self.engine.empty(shape, dtype, self.gpu)
        tensor = self.torch.from_dlpack(array).zero_()
        self.synchronize()
        self.engine.register(array, name, Access.WRITE)
        return tensor

    def synchronize(self) -> None:
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def make_slots(self) -> list[list[Any]]:
        """For each prompt: keys and values of each layer, in one tensor, and its first token."""
        slots = []
        for number, length in enumerate(LENGTHS):
            shape = (2, 1, KV_HEADS, length, DIM)
            slot = [self.share(f"{number}.{layer}", shape, "float32") for layer in range(LAYERS)]
            slots.append([*slot, self.share(f"{number}.{LAYERS}", (1, 1), "int64")])
        return slots


# ---- Prefill ---------------------------------------------------------------------------------------------------------


class Prefill(Worker):
    def __init__(self, place: str) -> None:
        super().__init__(0)
        self.slots = self.make_slots()  # from where it is sent, while torch may use its own memory again
        self.requests: list[Request] = []
        self.engine.serve(place + "-prefill")
        self.peer: Peer = self.engine.connect(place + "-decode", WAIT)
        self.counts, _ = self.peer.find("counts")

    def send(self, number: int, part: int, content: Any) -> None:
        """A layer, or behind the last one the first token: when it is there, the prompt's count becomes part + 1."""
        computing, sending = self.streams
        slot = self.slots[number][part]
        slot.copy_(content)
        if sending is not None:
            sending.wait_stream(computing)
        remote, length = self.peer.find(f"{number}.{part}")
        ops = [write(self.peer, slot.data_ptr(), remote, length), signal(self.peer, self.counts + 8 * number, part + 1)]
        self.requests.append(self.engine.transfer(ops, sending))
        if sending is None:  # without a stream, signals of two lists have no order
            self.requests[-1].wait(WAIT)

    def compute(self, number: int, prompt: Any) -> None:
        cache = self.transformers.DynamicCache(config=self.model.config)
        update = cache.update

        def update_and_send(keys: Any, values: Any, layer: int, *more: Any, **named: Any) -> Any:
            made = update(keys, values, layer, *more, **named)
            self.send(number, layer, self.torch.stack(made))
            return made

        cache.update = update_and_send
        logits = self.model(input_ids=prompt, past_key_values=cache).logits
        self.send(number, LAYERS, logits[:, -1:].argmax(-1))

    def run(self) -> int:
        for number, prompt in enumerate(self.prompts()):
            self.compute(number, prompt)
        for request in self.requests:
            request.wait(WAIT)
        sys.stdin.read()  # until decode has ended
        return 0


# ---- Decode ----------------------------------------------------------------------------------------------------------


class Decode(Worker):
    def __init__(self, tokens: int) -> None:
        super().__init__(1)
        self.tokens = tokens
        self.waits: list[int] = []
        self.counts = self.share("counts", (len(LENGTHS),), "int64")
        self.slots = self.make_slots()

    def wait_for(self, peer: Peer | None, number: int, part: int) -> None:
        """What is put into the stream from now on begins when this part of the prompt is there."""
        if peer is None:
            return
        count = self.counts.data_ptr() + 8 * number
        if self.on_gpu:
            self.waits.append(self.engine.stream_wait(self.streams[0], peer, count, part + 1))
        else:
            self.engine.signal_wait(count, part + 1, peer, WAIT)

    def decode(self, number: int, peer: Peer | None) -> list[int]:
        """All tokens after a prompt that this process has not seen. Without a peer it waits for nothing."""
        cache = self.transformers.DynamicCache(config=self.model.config)
        for layer in range(LAYERS):
            self.wait_for(peer, number, layer)
            cache.update(*self.slots[number][layer], layer)
        self.wait_for(peer, number, LAYERS)
        found = [self.slots[number][LAYERS].clone()]
        while len(found) < self.tokens:
            logits = self.model(input_ids=found[-1], past_key_values=cache).logits
            found.append(logits[:, -1:].argmax(-1))
        return list(map(int, self.torch.cat(found, 1)[0]))

    def check_waits(self) -> None:
        """Raises why if a stream has gone on though prefill has not signalled: it is gone."""
        self.synchronize()
        for wait in self.waits:
            self.engine.wait_test(wait)

    def in_one_process(self) -> list[list[int]]:
        """The same by this process alone. It also loads all kernels, which is not to be done behind a wait."""
        found = []
        for prompt in self.prompts():
            made = self.model.generate(prompt, max_new_tokens=self.tokens, do_sample=False)
            found.append(list(map(int, made[0, prompt.shape[1] :])))
        return found


def compare(found: list[list[int]], expected: list[list[int]]) -> int:
    for number, (mine, right) in enumerate(zip(found, expected)):
        equal = sum(a == b for a, b in zip(mine, right))
        print(f"prompt {number} of {LENGTHS[number]} tokens: {equal} of {len(right)} tokens are those of one process")
        print(f"  {len(set(right))} different ones, such as {right[:8]}")
    return int(found != expected)


def run_without_waiting(tokens: int) -> int:
    decode = Decode(tokens)
    expected = decode.in_one_process()
    return compare([decode.decode(number, None) for number in range(len(LENGTHS))], expected)


def run(tokens: int) -> int:
    place = f"@nvlxfer-handover-{os.getpid()}"
    command = [sys.executable, os.path.abspath(__file__), "--prefill", place]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)  # it loads the model meanwhile
    try:
        decode = Decode(tokens)
        expected = decode.in_one_process()
        decode.engine.serve(place + "-decode")
        peer = decode.engine.connect(place + "-prefill", WAIT)
        print(f"prefill and decode: two processes, {decode.engine.backend}, decode on {decode.device}", flush=True)
        since = time.perf_counter()
        found = [decode.decode(number, peer) for number in range(len(LENGTHS))]
        decode.check_waits()
        print(f"both prompts computed there, and decoded here: {time.perf_counter() - since:.2f} s")
        peer.close()
        child.communicate(timeout=WAIT)
    finally:
        child.kill()
        child.wait()
    return compare(found, expected) or child.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64, help="after each prompt (64)")
    parser.add_argument("--no-wait", action="store_true", help="decode does not wait: its tokens are wrong")
    parser.add_argument("--prefill", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 1 <= options.tokens <= 1024:
        parser.error(f"--tokens {options.tokens}: it is 1 to 1024")
    try:
        if not options.prefill:
            return run_without_waiting(options.tokens) if options.no_wait else run(options.tokens)
        return Prefill(options.prefill).run()
    except Missing as missing:
        print(f"SKIP: {missing}")
        return SKIPPED
    except (nvlxfer.NvlxError, OSError, ValueError, subprocess.TimeoutExpired) as failure:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
