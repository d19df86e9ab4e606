// The ids of a text as they come, and as an array for Python.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "bindings.hpp"

namespace penjing {

// Ids in memory that is not cleared before it is written.
class Ids {
   public:
    Ids() = default;
    Ids(Ids&& other) noexcept { *this = std::move(other); }
    Ids& operator=(Ids&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Ids() { std::free(data_); }

    size_t size() const { return size_; }
    const uint32_t* data() const { return data_; }

    // Where `count` more may be written; `wrote` says how many were.
    uint32_t* room(size_t count) {
        if (size_ + count > capacity_) {
            const size_t wanted = std::max(size_ + count, 2 * capacity_ + 64);
            void* moved = std::realloc(data_, wanted * sizeof(uint32_t));
            if (moved == nullptr) throw std::bad_alloc();
            data_ = static_cast<uint32_t*>(moved);
            capacity_ = wanted;
        }
        return data_ + size_;
    }
    void wrote(size_t count) { size_ += count; }
    void add(uint32_t id) {
        *room(1) = id;
        wrote(1);
    }
    void add(const Ids& others) {
        if (others.size_) std::memcpy(room(others.size_), others.data_, others.size_ * sizeof(uint32_t));
        wrote(others.size_);
    }

    nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>> to_numpy() && {
        auto* owned = new Ids(std::move(*this));
        owned->room(1);  // numpy wants an address
        nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<Ids*>(pointer); });
        return {owned->data_, {owned->size_}, owner};
    }

   private:
    uint32_t* data_ = nullptr;
    size_t size_ = 0, capacity_ = 0;
};

}  // namespace penjing
