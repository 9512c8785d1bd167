/* What fork means for the library: engines stay the parent's, all else works in the child.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_FORK_H
#define NVLXI_API_FORK_H

/* A page of its own whose first byte is 1, and 0 in a forked child: the kernel wipes it, however the child was made.
 * NVLX_ENOMEM, NVLX_ENOTSUP. */
int nvlxi_fork_page_make(const volatile char **page);
void nvlxi_fork_page_free(const volatile char *page);

#endif
