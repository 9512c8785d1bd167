# SPDX-License-Identifier: Apache-2.0
"""Arrays and tensors: where they lie, and models of them by name."""
