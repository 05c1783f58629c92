// Ends calls into faiss early: one handler for the process, which asks the flag of the thread that
// faiss asks on. src/native/interrupt.rs is the caller.

#include "interrupt.hpp"

#include <memory>
#include <mutex>

#include <omp.h>

#include <faiss/impl/AuxIndexStructures.h>

namespace {

// What the thread's calls end by; null where nothing ends them.
thread_local const bool* flag = nullptr;

struct FlagCallback final : faiss::InterruptCallback {
    bool want_interrupt() override {
        // faiss throws where this is true, and no exception may leave a parallel region, not even one of
        // one thread. Outside of them it asks often enough.
        return flag && omp_get_level() == 0 && __atomic_load_n(flag, __ATOMIC_RELAXED);
    }
};

} // namespace

namespace voisin {

const bool* watched() {
    return flag;
}

const bool* watch(const bool* next) {
    const bool* before = flag;
    flag = next;
    return before;
}

bool is_interrupted() {
    return flag && __atomic_load_n(flag, __ATOMIC_RELAXED);
}

} // namespace voisin

extern "C" {

// Has the calls of this thread end soon after `next` is set, and returns what they ended by before. Where
// they end so, they fail. `next` must stay valid until the next such call.
const bool* voisin_interrupt_watch(const bool* next) {
    static std::once_flag once;
    // Never taken away again: threads may ask until the process ends.
    std::call_once(once, [] {
        faiss::InterruptCallback::instance = std::make_unique<FlagCallback>();
    });
    return voisin::watch(next);
}

} // extern "C"
