// Indexes that faiss trains: inverted lists, quantizers, and whatever else its index factory makes.
// Plain C functions; src/native/trained_ffi.rs is their only caller. The contract is in
// guard.hpp.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include <omp.h>

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFastScan.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include "guard.hpp"
#include "interrupt.hpp"
#include "trained_mend.hpp"
#include "trained_check.hpp"

extern "C" void openblas_set_num_threads(int);

namespace {

// Looks for nearest neighbours in several threads of its own, which have the caller's priority. Those of
// OpenBLAS do not, and those of OpenMP wait busily for the next of the many short steps of training.
void search_in_threads(
        const faiss::Index& index,
        int threads,
        faiss::idx_t count,
        const float* rows,
        faiss::idx_t k,
        float* distances,
        faiss::idx_t* labels) {
    constexpr faiss::idx_t BLOCK = 4096;
    std::atomic<faiss::idx_t> next{0};
    std::exception_ptr failure;
    std::mutex failing;
    // No exception may leave a parallel region of faiss's.
    const bool* flag = omp_get_level() == 0 ? voisin::watched() : nullptr;
    auto work = [&] {
        ThreadLimit limit(1);
        voisin::Watched watched(flag);
        try {
            for (;;) {
                faiss::idx_t first = next.fetch_add(BLOCK);
                if (first >= count) {
                    return;
                }
                if (voisin::is_interrupted()) {
                    throw std::runtime_error("interrupted");
                }
                index.search(
                        std::min(BLOCK, count - first),
                        rows + first * index.d,
                        k,
                        distances + first * k,
                        labels + first * k);
            }
        } catch (...) {
            std::lock_guard<std::mutex> lock(failing);
            failure = std::current_exception();
        }
    };
    faiss::idx_t useful = std::min<faiss::idx_t>(threads, (count + BLOCK - 1) / BLOCK);
    std::vector<std::thread> helpers;
    try {
        while (faiss::idx_t(helpers.size()) + 1 < useful) {
            helpers.emplace_back(work);
        }
    } catch (const std::system_error&) {
        // Fewer threads do it too.
    }
    work();
    for (std::thread& helper : helpers) {
        helper.join();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

// An exact index that is searched in several threads.
struct ParallelFlat final : faiss::IndexFlat {
    int threads;
    ParallelFlat(faiss::idx_t dimension, faiss::MetricType metric, int threads)
            : faiss::IndexFlat(dimension, metric), threads(threads) {}

    struct Part final : faiss::Index {
        const ParallelFlat& whole;
        explicit Part(const ParallelFlat& whole)
                : faiss::Index(whole.d, whole.metric_type), whole(whole) {}
        void add(faiss::idx_t, const float*) override {}
        void reset() override {}
        void search(
                faiss::idx_t count,
                const float* rows,
                faiss::idx_t k,
                float* distances,
                faiss::idx_t* labels,
                const faiss::SearchParameters* params) const override {
            whole.faiss::IndexFlat::search(count, rows, k, distances, labels, params);
        }
    };

    void search(
            faiss::idx_t count,
            const float* rows,
            faiss::idx_t k,
            float* distances,
            faiss::idx_t* labels,
            const faiss::SearchParameters* = nullptr) const override {
        search_in_threads(Part(*this), threads, count, rows, k, distances, labels);
    }
};

using Write = int32_t (*)(void* context, const uint8_t* data, size_t size);

// Hands everything to a function, which returns 0 unless it failed; a short count makes faiss throw.
struct CallbackWriter final : faiss::IOWriter {
    void* context;
    Write write;
    CallbackWriter(void* context, Write write) : context(context), write(write) {}
    size_t operator()(const void* data, size_t size, size_t items) override {
        bool written = write(context, static_cast<const uint8_t*>(data), size * items) == 0;
        return written ? items : 0;
    }
};

using Admits = bool (*)(const void* context, int64_t id);

struct CallbackSelector final : faiss::IDSelector {
    const void* context;
    Admits admits;
    CallbackSelector(const void* context, Admits admits) : context(context), admits(admits) {}
    bool is_member(faiss::idx_t id) const override {
        return admits(context, id);
    }
};

// The parameters of one search, for an index and those that it wraps.
struct SearchSettings {
    std::vector<std::unique_ptr<faiss::SearchParameters>> all;

    template <class Params>
    Params* make(faiss::IDSelector* selector) {
        auto params = std::make_unique<Params>();
        params->sel = selector;
        Params* raw = params.get();
        all.push_back(std::move(params));
        return raw;
    }

    // Null where there is nothing to say.
    faiss::SearchParameters* of(
            const faiss::Index* index,
            int effort,
            faiss::IDSelector* selector) {
        if (auto* wrapper = dynamic_cast<const faiss::IndexPreTransform*>(index)) {
            auto* params = make<faiss::SearchParametersPreTransform>(nullptr);
            params->index_params = of(wrapper->index, effort, selector);
            return params;
        }
        if (auto* wrapper = dynamic_cast<const faiss::IndexRefine*>(index)) {
            auto* params = make<faiss::IndexRefineSearchParameters>(nullptr);
            params->k_factor = wrapper->k_factor;
            params->base_index_params = of(wrapper->base_index, effort, selector);
            return params;
        }
        if (auto* lists = dynamic_cast<const faiss::IndexIVF*>(index)) {
            auto* params = make<faiss::SearchParametersIVF>(selector);
            params->nprobe = std::min(size_t(effort), lists->nlist);
            return params;
        }
        if (dynamic_cast<const faiss::IndexHNSW*>(index)) {
            auto* params = make<faiss::SearchParametersHNSW>(selector);
            params->efSearch = effort;
            return params;
        }
        return selector ? make<faiss::SearchParameters>(selector) : nullptr;
    }
};

enum VoisinTuned : int32_t { NOTHING = 0, LISTS = 1, CANDIDATES = 2 };

void describe_tuning(const faiss::Index* index, int32_t& tuned, uint64_t& lists) {
    if (auto* wrapper = dynamic_cast<const faiss::IndexPreTransform*>(index)) {
        describe_tuning(wrapper->index, tuned, lists);
    } else if (auto* wrapper = dynamic_cast<const faiss::IndexRefine*>(index)) {
        describe_tuning(wrapper->base_index, tuned, lists);
    } else if (auto* inverted = dynamic_cast<const faiss::IndexIVF*>(index)) {
        tuned = LISTS;
        lists = inverted->nlist;
    } else if (dynamic_cast<const faiss::IndexHNSW*>(index)) {
        tuned = CANDIDATES;
    }
}

void search(
        const faiss::Index& index,
        const float* query,
        size_t k,
        int32_t effort,
        faiss::IDSelector* selector,
        float* distances,
        int64_t* ids) {
    ThreadLimit limit(1);
    SearchSettings settings;
    const faiss::SearchParameters* params = settings.of(&index, effort, selector);
    index.search(1, query, faiss::idx_t(k), distances, ids, params);
}

// Some kinds of index refuse a selector, which only a search shows.
bool takes_selector(const faiss::Index& index) {
    if (index.ntotal == 0) {
        return false;
    }
    std::vector<float> query(index.d, 0.0f);
    float distance;
    int64_t id;
    CallbackSelector none(nullptr, [](const void*, int64_t) { return false; });
    try {
        search(index, query.data(), 1, 1, &none, &distance, &id);
    } catch (const std::exception&) {
        return false;
    }
    // One that takes it and does not look at it is of no use either.
    return id == -1;
}

} // namespace

extern "C" {

struct VoisinTrained {
    std::unique_ptr<faiss::Index> index;
};

struct VoisinTrainedInfo {
    int64_t rows;
    int32_t dimension;
    int32_t metric;
    int32_t is_trained;
    int32_t tuned; // a VoisinTuned
    uint64_t lists;
    int32_t takes_selector;
};

int32_t voisin_trained_new(
        const char* description,
        int32_t dimension,
        int32_t metric,
        VoisinTrained** trained,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        openblas_set_num_threads(1);
        auto made = std::make_unique<VoisinTrained>();
        made->index.reset(
                faiss::index_factory(dimension, description, faiss::MetricType(metric)));
        prepare(made->index.get());
        mend(made->index);
        *trained = made.release();
    });
}

int32_t voisin_trained_read(
        const uint8_t* bytes,
        size_t size,
        VoisinTrained** trained,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        openblas_set_num_threads(1);
        auto made = std::make_unique<VoisinTrained>();
        BufferReader reader(bytes, size);
        made->index.reset(faiss::read_index(&reader));
        if (reader.left != 0) {
            throw std::runtime_error("there are bytes after the end of the index");
        }
        check_index(*made->index);
        mend(made->index);
        *trained = made.release();
    });
}

void voisin_trained_free(VoisinTrained* trained) {
    delete trained;
}

int32_t voisin_trained_info(
        const VoisinTrained* trained,
        VoisinTrainedInfo* info,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        const faiss::Index& index = *trained->index;
        *info = VoisinTrainedInfo{};
        info->rows = index.ntotal;
        info->dimension = index.d;
        info->metric = index.metric_type;
        info->is_trained = index.is_trained;
        describe_tuning(&index, info->tuned, info->lists);
        info->takes_selector = index.is_trained && takes_selector(index);
    });
}

// Trains with `count` >= 1 rows.
int32_t voisin_trained_train(
        VoisinTrained* trained,
        const float* rows,
        size_t count,
        int32_t threads,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        ThreadLimit limit(1);
        faiss::Index& index = *trained->index;
        QuietRotations quiet(index);
        auto* lists = dynamic_cast<faiss::IndexIVF*>(&index);
        if (lists && dynamic_cast<faiss::IndexFlat*>(lists->quantizer)) {
            ParallelFlat assigner(lists->d, lists->metric_type, threads);
            lists->clustering_index = &assigner;
            struct Restore {
                faiss::IndexIVF* lists;
                ~Restore() {
                    lists->clustering_index = nullptr;
                }
            } restore{lists};
            index.train(faiss::idx_t(count), rows);
        } else {
            index.train(faiss::idx_t(count), rows);
        }
    });
}

// Appends `count` >= 1 rows. After an error the index may hold some of them and must not be used.
int32_t voisin_trained_add(
        VoisinTrained* trained,
        const float* rows,
        size_t count,
        int32_t threads,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        ThreadLimit limit(threads);
        faiss::Index& index = *trained->index;
        auto* lists = dynamic_cast<faiss::IndexIVF*>(&index);
        bool is_plain = lists && !dynamic_cast<faiss::IndexIVFFastScan*>(lists);
        if (is_plain && dynamic_cast<faiss::IndexFlat*>(lists->quantizer)) {
            std::vector<float> distances(count);
            std::vector<faiss::idx_t> nearest(count);
            search_in_threads(
                    *lists->quantizer,
                    threads,
                    faiss::idx_t(count),
                    rows,
                    1,
                    distances.data(),
                    nearest.data());
            lists->add_core(faiss::idx_t(count), rows, nullptr, nearest.data());
        } else {
            index.add(faiss::idx_t(count), rows);
        }
    });
}

// Fills `k` ids, nearest first; unused places have the id -1. `effort` is the number of lists to look
// into, or of candidates to keep, for indexes that have such a number. `admits` may be null; it says
// which ids may be found, for indexes that take a selector. Runs on the calling thread only.
int32_t voisin_trained_search(
        const VoisinTrained* trained,
        const float* query,
        size_t k,
        int32_t effort,
        const void* context,
        Admits admits,
        float* distances,
        int64_t* ids,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        CallbackSelector selector(context, admits);
        search(*trained->index, query, k, effort, admits ? &selector : nullptr, distances, ids);
    });
}

int32_t voisin_trained_write(
        const VoisinTrained* trained,
        void* context,
        Write write,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        CallbackWriter writer(context, write);
        faiss::write_index(trained->index.get(), &writer);
    });
}

} // extern "C"
