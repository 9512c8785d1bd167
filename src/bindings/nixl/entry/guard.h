/* Which NIXL has loaded the plugin. SPDX-License-Identifier: Apache-2.0
 *
 * NIXL's own number of its plugin interface protects nothing: 0.8 to 0.10 have other functions behind the same 1, and
 * would call wrong ones. So the plugin looks for itself: for libnixl.so among what is loaded, for its version in the
 * folder of its wheel (nixl_cu1x-VERSION.dist-info), and for the size of the table of functions in the UCX plugin
 * beside it, which any wheel carries. 1.0 to 1.5 are known. Anything else is refused, unless NVLX_NIXL_ANY_VERSION=1 is
 * set. */
#ifndef NVLX_BINDINGS_NIXL_ENTRY_GUARD_H
#define NVLX_BINDINGS_NIXL_ENTRY_GUARD_H

namespace nvlx::nixl {

/* False, and says why and how to override it, if this NIXL is not known to have our interface. */
bool guard_admits();

} // namespace nvlx::nixl

#endif
