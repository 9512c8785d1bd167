# SPDX-License-Identifier: Apache-2.0
"""What of torch_two_gpu.py needs no PyTorch."""

import argparse
import os
import torch_two_gpu as example

for count, total in ((2000, 8 << 30), (10, 10**6), (1, 64), (7, 7 * (300 << 20)), (3, 192), (5000, 64 << 30)):
    sizes = example.tensor_sizes(count, total)
    assert sizes == example.tensor_sizes(count, total) and len(sizes) == count and sum(sizes) == total
    assert min(sizes) >= 64 and max(sizes) <= 300 << 20
sizes = example.tensor_sizes(2000, 8 << 30)
assert min(sizes) == 64 and max(sizes) == 300 << 20 and len(set(sizes)) > 1000
assert max(sizes) <= 8 * example.PAGE
for count, total in ((0, 0), (10, 639), (2, (600 << 20) + 1)):
    try:
        example.tensor_sizes(count, total)
    except ValueError:
        continue
    raise AssertionError((count, total))

assert [example.visible(gpu, None) for gpu in (0, 1)] == ["0", "1"]
assert [example.visible(gpu, "5,GPU-1234") for gpu in (0, 1)] == ["5", "GPU-1234"]
os.environ.update(CUDA_VISIBLE_DEVICES="3,6", PYTORCH_ALLOC_CONF="backend:native")
made = example.environment(1, argparse.Namespace(allocator="expandable", hide=True))
assert made["CUDA_VISIBLE_DEVICES"] == "6" and "PYTORCH_ALLOC_CONF" not in made
assert made["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
made = example.environment(1, argparse.Namespace(allocator="async", hide=False))
assert made["CUDA_VISIBLE_DEVICES"] == "3,6" and made["PYTORCH_CUDA_ALLOC_CONF"] == "backend:cudaMallocAsync"
assert example.table_row("second pull", 0.025, 10**10).split() == ["second", "pull", "25.0", "ms", "400.0", "GB/s"]
assert example.table_row("connect", 0.001).split() == ["connect", "1.0", "ms"]

here, there = os.pipe()
with open(here, "rb") as source:
    assert example.read_word(source, 0.01) == b""
    os.write(there, b"ready")
    assert example.read_word(source, 10) == b"ready"
    os.close(there)
    assert example.read_word(source, 10) == b""
