# SPDX-License-Identifier: Apache-2.0
"""What engines.py's programs share: modules of a wheel that cannot be imported whole, memory, and processes."""

import ast
import ctypes
import faulthandler
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from pathlib import Path

from nvlxfer import Alloc, Backend, Engine

SEGMENT = 4 << 20
GUARD = 4096
PATIENCE = 40  # seconds


class Logger(logging.Logger):
    """As the engines' loggers are: what is said once may be said often here."""

    debug_once, info_once = logging.Logger.debug, logging.Logger.info
    warning_once, error_once = logging.Logger.warning, logging.Logger.error


class Nothing(types.ModuleType):
    """A module whose every name is an empty class. Code that is driven here has no use for it but in annotations."""

    __path__ = None

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if any(Path(folder, name).exists() or Path(folder, f"{name}.py").exists() for folder in self.__path__ or ()):
            return importlib.import_module(f"{self.__name__}.{name}")
        made = type(name, (), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class Wheel(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports NAME from FOLDER: modules in `real` as they are, all others as Nothing, packages too."""

    def __init__(self, folder, name, real, **stand_ins):
        self.folder, self.name, self.real = Path(folder), name, {f"{name}.{each}" for each in real}
        self.stand_ins = {f"{name}.{key}" if key else name: names for key, names in stand_ins.items()}
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name and not fullname.startswith(self.name + "."):
            return None
        place = self.folder / fullname.replace(".", "/")
        if fullname in self.real:
            file = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
            package = [str(place)] if file.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=package)
        spec = importlib.machinery.ModuleSpec(fullname, self)
        if not place.with_suffix(".py").exists():
            spec.submodule_search_locations = [str(place)]
        return spec

    def create_module(self, spec):
        return Nothing(spec.name)

    def exec_module(self, module):
        module.__dict__.update(self.stand_ins.get(module.__name__, {}))

    def part(self, place, name, **names):
        """Of a file that cannot be imported: a function or a class, with what it uses."""
        path = self.folder / self.name / place
        found = next(each for each in ast.parse(path.read_text()).body if getattr(each, "name", None) == name)
        future = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
        code = compile(ast.fix_missing_locations(ast.Module([future, found], [])), str(path), "exec")
        exec(code, names)
        return names[name]


# ---- Memory


class OnHost:
    """PyTorch's tensors in memory of software GPUs, several in a segment, as its caching allocator has them."""

    def __init__(self, kind, gpu):
        self.kind, self.gpu, self.engine, self.used, self.segment = kind, gpu, Engine(backend=Backend.HOST), SEGMENT, 0
        import torch

        class Tensor(torch.Tensor):
            @property
            def device(self):
                return torch.device("cuda", gpu)

            def get_device(self):
                return gpu

        self.torch, self.Tensor = torch, Tensor

    def pinned(self, size):
        """Host memory that GPUs reach."""
        address = self.engine.alloc(self.gpu, size, Alloc.HOST)
        return self.torch.frombuffer((ctypes.c_int8 * size).from_address(address), dtype=self.torch.int8)

    def bytes(self, size):
        room = -(-size // 512) * 512
        if self.used + room > SEGMENT:
            self.segment, self.used = self.engine.alloc(self.gpu, max(SEGMENT, room), self.kind), 0
        address, self.used = self.segment + self.used, self.used + room
        buffer = (ctypes.c_int8 * size).from_address(address)
        return self.torch.frombuffer(buffer, dtype=self.torch.int8).as_subclass(self.Tensor)


class OnGpu:
    """PyTorch's own."""

    def __init__(self, kind, gpu):
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:{kind is Alloc.VMM}"
        import torch

        self.torch, self.gpu = torch, gpu % torch.cuda.device_count()
        torch.cuda.set_device(self.gpu)

    def pinned(self, size):
        return self.torch.empty(size, dtype=self.torch.int8, pin_memory=True)

    def bytes(self, size):
        return self.torch.empty(size, dtype=self.torch.int8, device="cuda")


class Memory:
    """Tensors of one process, with others beside them that nobody may touch."""

    def __init__(self, kind, gpu):
        self.of = (OnGpu if os.environ.get("NVLX_BACKEND") == "cuda" else OnHost)(Alloc(kind), gpu)
        self.torch, self.gpu, self.guards = self.of.torch, self.of.gpu, []

    def pinned(self, size):
        return self.of.pinned(size)

    def bytes(self, size):
        self.guards.append(self.of.bytes(GUARD))
        tensor = self.of.bytes(size)
        self.guards.append(self.of.bytes(GUARD))
        for guard in self.guards[-2:]:
            fill(guard, "guard")
        return tensor

    def check_guards(self):
        for guard in self.guards:
            assert content(guard) == random.Random("guard").randbytes(GUARD), "memory beside the caches has changed"


def fill(tensor, seed):
    torch = sys.modules["torch"]
    data = bytearray(random.Random(seed).randbytes(tensor.nbytes))
    tensor.view(-1).view(torch.int8).copy_(torch.frombuffer(data, dtype=torch.int8))
    settle()


def plain(tensor):
    """Where it really is."""
    return tensor.as_subclass(sys.modules["torch"].Tensor)


def content(tensor):
    return plain(tensor).cpu().view(-1).view(sys.modules["torch"].int8).numpy().tobytes()


def settle():
    if os.environ.get("NVLX_BACKEND") == "cuda":
        sys.modules["torch"].cuda.synchronize()


# ---- Processes


class Process:
    """One of an engine's processes. Called with a method's name and arguments, it answers what that has returned."""

    def __init__(self, *words, **environment):
        command = [sys.executable, str(Path(__file__).parent / "engines.py"), "--serve", *map(str, words)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )

    def __call__(self, name, *arguments):
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"a process has ended in {name}: exit code {self.process.wait()}"
        return json.loads(line)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self("end")
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def serve(make, *arguments):
    """Answers a Process. Whatever the engine prints goes to stderr. Its threads do not keep the process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
        made = make(*arguments)
        for line in sys.stdin:
            faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(made, name)(*arguments)), file=answers, flush=True)
            faulthandler.cancel_dump_traceback_later()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        os._exit(0)


def until(function, *arguments):
    """What FUNCTION answers as soon as it is something."""
    end = time.monotonic() + PATIENCE
    while not (got := function(*arguments)):
        assert time.monotonic() < end, f"{function} has not come to an end"
        time.sleep(0.002)
    return got
