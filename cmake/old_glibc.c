/* Calls of glibc whose newest versions are younger than glibc 2.28, as their older ones. With NVLX_STATIC_DEPS the
 * linker leads all calls here (--wrap), those of the archives too, so that a library built on a new system serves old
 * ones.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/stat.h>

#if defined __x86_64__
#define FIRST      "GLIBC_2.2.5"
#define DLMOPEN    "GLIBC_2.3.4"
#define SETCLOCK   "GLIBC_2.3.3"
#define SETNAME    "GLIBC_2.12"
#define JUMP       "jmp "
#define STAT_LINUX 1
#elif defined __aarch64__
#define FIRST      "GLIBC_2.17"
#define DLMOPEN    FIRST
#define SETCLOCK   FIRST
#define SETNAME    FIRST
#define JUMP       "b "
#define STAT_LINUX 0
#else
/* cppcheck-suppress preprocessorErrorDirective ; it knows no processor */
#error "NVLX_STATIC_DEPS is for x86_64 and aarch64"
#endif

/* __wrap_name, which goes on to that version of `name`. */
#define OLD(name, version)                                                                                             \
    __asm__(".symver old_" #name "," #name "@" version "\n.text\n.hidden __wrap_" #name "\n.globl __wrap_" #name       \
            "\n.type __wrap_" #name ",@function\n__wrap_" #name ":\n" JUMP "old_" #name "\n");

/* clang-format off */
OLD(dlmopen, DLMOPEN)
OLD(pthread_condattr_setclock, SETCLOCK)
OLD(pthread_setname_np, SETNAME)
OLD(dlclose, FIRST)
OLD(dlerror, FIRST)
OLD(dlopen, FIRST)
OLD(dlsym, FIRST)
OLD(dlvsym, FIRST)
OLD(pthread_condattr_setpshared, FIRST)
OLD(pthread_create, FIRST)
OLD(pthread_detach, FIRST)
OLD(pthread_getspecific, FIRST)
OLD(pthread_join, FIRST)
OLD(pthread_key_create, FIRST)
OLD(pthread_key_delete, FIRST)
OLD(pthread_kill, FIRST)
OLD(pthread_mutex_trylock, FIRST)
OLD(pthread_mutexattr_destroy, FIRST)
OLD(pthread_mutexattr_init, FIRST)
OLD(pthread_mutexattr_setpshared, FIRST)
OLD(pthread_mutexattr_settype, FIRST)
OLD(pthread_once, FIRST)
OLD(pthread_rwlock_destroy, FIRST)
OLD(pthread_rwlock_init, FIRST)
OLD(pthread_rwlock_rdlock, FIRST)
OLD(pthread_rwlock_timedrdlock, FIRST)
OLD(pthread_rwlock_timedwrlock, FIRST)
OLD(pthread_rwlock_tryrdlock, FIRST)
OLD(pthread_rwlock_trywrlock, FIRST)
OLD(pthread_rwlock_unlock, FIRST)
OLD(pthread_rwlock_wrlock, FIRST)
OLD(pthread_rwlockattr_destroy, FIRST)
OLD(pthread_rwlockattr_init, FIRST)
OLD(pthread_rwlockattr_setkind_np, FIRST)
OLD(pthread_rwlockattr_setpshared, FIRST)
OLD(pthread_setspecific, FIRST)
OLD(pthread_sigmask, FIRST)
OLD(pthread_spin_destroy, FIRST)
OLD(pthread_spin_init, FIRST)
OLD(pthread_spin_lock, FIRST)
OLD(pthread_spin_trylock, FIRST)
OLD(pthread_spin_unlock, FIRST)
OLD(sem_destroy, FIRST)
OLD(sem_init, FIRST)
OLD(sem_post, FIRST)
OLD(sem_timedwait, FIRST)
OLD(sem_trywait, FIRST)
OLD(sem_wait, FIRST)
OLD(shm_open, FIRST)
OLD(shm_unlink, FIRST)
/* clang-format on */

/* Before glibc 2.33 these three were inline. */
OLD(__xstat, FIRST)
OLD(__lxstat, FIRST)
OLD(__fxstat, FIRST)
int __wrap___xstat(int version, const char *path, struct stat *told);
int __wrap___lxstat(int version, const char *path, struct stat *told);
int __wrap___fxstat(int version, int fd, struct stat *told);
int __wrap_stat(const char *path, struct stat *told);
int __wrap_lstat(const char *path, struct stat *told);
int __wrap_fstat(int fd, struct stat *told);

int __wrap_stat(const char *path, struct stat *told) {
    return __wrap___xstat(STAT_LINUX, path, told);
}

int __wrap_lstat(const char *path, struct stat *told) {
    return __wrap___lxstat(STAT_LINUX, path, told);
}

int __wrap_fstat(int fd, struct stat *told) {
    return __wrap___fxstat(STAT_LINUX, fd, told);
}

/* What libstdc++ of gcc 11 throws where a length for new is too large, as older ones throw it: its base class. */
void _ZSt17__throw_bad_allocv(void) __attribute__((noreturn));
void __wrap__ZSt28__throw_bad_array_new_lengthv(void) __attribute__((noreturn));

void __wrap__ZSt28__throw_bad_array_new_lengthv(void) {
    _ZSt17__throw_bad_allocv();
}
