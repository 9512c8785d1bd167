# SPDX-License-Identifier: Apache-2.0
"""The backend NVLX for NIXL, in the folders where the packages nixl-cu12 and nixl-cu13 look for backends.

Nothing is to be imported. `python -m nvlxfer_nixl` tells whether NIXL finds the backend here, and why not."""
