// C++'s way to memory, through malloc as C's is, so that it fails on demand too: see faulty_memory.h.
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <new>

void *operator new(std::size_t size) {
    void *memory = std::malloc(size ? size : 1);
    if (!memory)
        throw std::bad_alloc();
    return memory;
}

void operator delete(void *memory) noexcept {
    std::free(memory);
}

void operator delete(void *memory, std::size_t) noexcept {
    std::free(memory);
}
