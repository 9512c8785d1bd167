# SPDX-License-Identifier: Apache-2.0
"""What a failure means to a program that has Mooncake's calls alone: the library's words speak of its own."""

from __future__ import annotations

USE_FOLDER = "set NVLX_MOONCAKE_FOLDER in both programs, to a folder that both see"

_ADVICE = (  # what the library says, and what can be done about it here
    ("in this network namespace", f"if the peer runs, {USE_FOLDER}"),
    (
        "has no such file",
        f"if the peer runs, {USE_FOLDER}. The session must have the host that the peer gave to initialize()",
    ),
    ('.sock": another process serves there', "give initialize() another host name in each container"),
    ("serve_options.users", "run both programs as one user, as no other one is let in"),
    (
        "call nvlx_serve",
        "the engine serves already. In the program that has the memory, set"
        " PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    ),
    (
        "find the name again",
        "ask the peer for its address again. get_first_buffer_address() tells the first one that is registered there",
    ),
)


def told(failure: Exception) -> str:
    """The failure's text, with what can be done about it by Mooncake's calls."""
    text = str(failure)
    advice = [f"In nvlxfer.mooncake: {cure}" for words, cure in _ADVICE if words in text]
    return ". ".join([text, *advice])
