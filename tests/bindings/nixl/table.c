/* Stands for NIXL's libraries: has a table of functions of NVLX_TEST_TABLE bytes. SPDX-License-Identifier: Apache-2.0
 */
extern const char _ZTV17nixlBackendEngine[NVLX_TEST_TABLE]; /* NOLINT: NIXL's name */
const char _ZTV17nixlBackendEngine[NVLX_TEST_TABLE] = {0};  /* NOLINT */
