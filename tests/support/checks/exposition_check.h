/* Whether a text is one that Prometheus takes without a complaint. SPDX-License-Identifier: Apache-2.0 */
#ifndef EXPOSITION_CHECK_H
#define EXPOSITION_CHECK_H

/* NULL, or what is wrong: valid until the next call. Stricter than promtool: families have HELP and TYPE, in this
 * order, and stand together; no sample comes twice; counters end with _total; a histogram's buckets ascend, then
 * come its sum and its count, which is the last bucket; our prefix, and only integers and decimals as values. */
const char *check_exposition(const char *text);

#endif
