/* Who draws ranges, if anybody. SPDX-License-Identifier: Apache-2.0 */
#include "base/trace.h"

#include <stddef.h>

_Atomic(const struct nvlxi_tracer *) nvlxi_tracer = NULL;
