/* What the plugin would take of a libstdc++ or glibc younger than those of glibc 2.28, as older ones have it. Linked in
 * with NVLX_STATIC_DEPS only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

/* Tells libstdc++'s shared_ptr that there may be threads, so that its counts are always atomic. */
char __libc_single_threaded __attribute__((visibility("hidden")));

/* The version of gcc 12 differs by a word for the compiler. */
__asm__(".symver old_wait,_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
void old_wait(void *condition, void *lock);
void __wrap__ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE(void *condition, void *lock);

void __wrap__ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE(void *condition, void *lock) {
    old_wait(condition, lock);
}
