// Memory for large tables that are read at random places.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace penjing {

// Pages of 2 MiB where the system has them: else every second look-up would miss the TLB as well.
template <class T>
struct HugePages {
    using value_type = T;
    static constexpr size_t kPage = size_t(1) << 21;

    HugePages() = default;
    template <class U>
    HugePages(const HugePages<U>&) {}

    T* allocate(size_t count) {
        const size_t size = count * sizeof(T);
        const bool huge = size >= kPage;
        const size_t alignment = huge ? kPage : 64;
        void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
        if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (huge) madvise(memory, size, MADV_HUGEPAGE);
#endif
        return static_cast<T*>(memory);
    }
    void deallocate(T* memory, size_t) { std::free(memory); }

    template <class U>
    bool operator==(const HugePages<U>&) const { return true; }
    template <class U>
    bool operator!=(const HugePages<U>&) const { return false; }
};

template <class T>
using HugeVector = std::vector<T, HugePages<T>>;

}  // namespace penjing
