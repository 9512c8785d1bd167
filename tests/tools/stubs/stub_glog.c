/* Another glog in the process, as far as one sees: it defines a function of glog's.
 * SPDX-License-Identifier: Apache-2.0 */
void _ZN6google17InitGoogleLoggingEPKc(const char *name);

void _ZN6google17InitGoogleLoggingEPKc(const char *name) {
    (void)name;
}
