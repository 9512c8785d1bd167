# SPDX-License-Identifier: Apache-2.0
"""`python -m nvlxfer.mooncake` prints the folder that goes first into PYTHONPATH, for programs that are not changed."""

from . import folder

print(folder())
