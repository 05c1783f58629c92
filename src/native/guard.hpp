// What both files of plain C functions over faiss share.
//
// Contract of every function that can fail: it returns 0 on success; otherwise it returns 1 and
// has written a NUL-terminated reason to `error` (`error_size` bytes, at least 1). No exception
// leaves such a function. Lengths and ranges are checked by the caller, in Rust.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>

#include <omp.h>

#include <faiss/impl/io.h>

namespace {

template <class Body>
int32_t guarded(char* error, size_t error_size, Body&& body) noexcept {
    try {
        body();
        return 0;
    } catch (const std::exception& cause) {
        snprintf(error, error_size, "%s", cause.what());
    } catch (...) {
        snprintf(error, error_size, "an exception of unknown type");
    }
    return 1;
}

// The thread count of OpenMP regions started by this thread, restored at the end of the scope.
struct ThreadLimit {
    int before = omp_get_max_threads();
    explicit ThreadLimit(int threads) {
        omp_set_num_threads(threads);
    }
    ~ThreadLimit() {
        omp_set_num_threads(before);
    }
};

// Reads no more than the bytes there are.
struct BufferReader final : faiss::IOReader {
    const uint8_t* at;
    size_t left;
    BufferReader(const uint8_t* at, size_t left) : at(at), left(left) {}
    size_t operator()(void* data, size_t size, size_t items) override {
        if (size == 0 || items > left / size) {
            return 0;
        }
        size_t bytes = size * items;
        if (bytes > 0) {
            memcpy(data, at, bytes);
        }
        at += bytes;
        left -= bytes;
        return items;
    }
};

} // namespace
