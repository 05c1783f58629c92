// What the calls of a thread end by; see interrupt.cpp.

#pragma once

namespace voisin {

// The flag of this thread; null where nothing ends its calls.
const bool* watched();

// Has the calls of this thread end by another flag, and returns the one before.
const bool* watch(const bool* next);

// Has the calls of this thread end by a flag until the end of the scope.
struct Watched {
    const bool* before;
    explicit Watched(const bool* flag) : before(watch(flag)) {}
    ~Watched() {
        watch(before);
    }
};

// True where the calls of this thread are to end. In threads of ours, faiss is not the only one to ask.
bool is_interrupted();

} // namespace voisin
