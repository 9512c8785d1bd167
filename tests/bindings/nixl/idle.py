# SPDX-License-Identifier: Apache-2.0
"""NIXL, but its transfers move nothing and say that they are done: what looks at bytes must notice."""

import nixl_cu12
from nixl_cu12 import nixl_agent_config  # noqa: F401


class nixl_agent(nixl_cu12.nixl_agent):
    def transfer(self, request, *message):
        return "DONE"
