// The part of faiss that its C API leaves out: HNSW search with a per-query ef, and
// (de)serialisation in memory. Plain C functions; src/native/ffi.rs is their only caller.
// The contract is in guard.hpp.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <omp.h>

#include <faiss/IndexBinaryHNSW.h>
#include <faiss/IndexHNSW.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/DistanceComputer.h>
#include <faiss/impl/ResultHandler.h>
#include <faiss/impl/io.h>
#include <faiss/index_io.h>
#include <faiss/utils/random.h>
#include <faiss/utils/utils.h>

#include "guard.hpp"

extern "C" char* openblas_get_config(void);

// What rows are stored as; the numbers are those of `Storage` in layout.rs.
enum VoisinStorage : uint32_t {
    FLOATS = 0,
    HALVES = 1,
    SIGNED_BYTES = 2,
    BITS = 3,
};

struct VoisinSpec {
    uint32_t storage;
    int32_t metric; // a faiss::MetricType
    uint32_t dimension;
    uint32_t max_neighbor_count;
    uint32_t ef_construction;
};

// Exactly one of the two is set.
struct VoisinGraph {
    std::unique_ptr<faiss::IndexHNSW> floats;
    std::unique_ptr<faiss::IndexBinaryHNSW> bits;

    faiss::HNSW& hnsw() {
        return floats ? floats->hnsw : bits->hnsw;
    }
    const faiss::HNSW& hnsw() const {
        return floats ? floats->hnsw : bits->hnsw;
    }
};

namespace {

constexpr int64_t LEVEL_SEED = 12345;

// Distances as the search heaps need them: smaller is nearer, and never NaN or +infinity. faiss
// reads outside its candidate heap when a distance there is NaN (HNSW::MinimaxHeap::pop_min, AVX2
// and AVX-512), which an overflowing inner product of finite vectors can be; and it never returns
// a row at FLT_MAX or beyond.
struct Ranked final : faiss::DistanceComputer {
    std::unique_ptr<faiss::DistanceComputer> inner;
    float sign;

    Ranked(faiss::DistanceComputer* inner, bool larger_is_nearer)
            : inner(inner), sign(larger_is_nearer ? -1.0f : 1.0f) {}

    float rank(float distance) const {
        constexpr float FARTHEST = 0x1.fffffcp127f; // the float below FLT_MAX
        float signed_distance = sign * distance;
        return signed_distance < FARTHEST ? signed_distance : FARTHEST;
    }
    void set_query(const float* query) override {
        inner->set_query(query);
    }
    float operator()(faiss::idx_t id) override {
        return rank((*inner)(id));
    }
    float symmetric_dis(faiss::idx_t a, faiss::idx_t b) override {
        return rank(inner->symmetric_dis(a, b));
    }
    void distances_batch_4(
            const faiss::idx_t id0,
            const faiss::idx_t id1,
            const faiss::idx_t id2,
            const faiss::idx_t id3,
            float& distance0,
            float& distance1,
            float& distance2,
            float& distance3) override {
        inner->distances_batch_4(
                id0, id1, id2, id3, distance0, distance1, distance2, distance3);
        distance0 = rank(distance0);
        distance1 = rank(distance1);
        distance2 = rank(distance2);
        distance3 = rank(distance3);
    }
};

struct CountingWriter final : faiss::IOWriter {
    uint64_t written = 0;
    size_t operator()(const void*, size_t size, size_t items) override {
        written += uint64_t(size) * items;
        return items;
    }
};

// Writes into a buffer of the size that CountingWriter found; a short count makes faiss throw.
struct BufferWriter final : faiss::IOWriter {
    uint8_t* at;
    size_t left;
    BufferWriter(uint8_t* at, size_t left) : at(at), left(left) {}
    size_t operator()(const void* data, size_t size, size_t items) override {
        size_t bytes = size * items;
        if (bytes > left) {
            return 0;
        }
        if (bytes > 0) {
            memcpy(at, data, bytes);
        }
        at += bytes;
        left -= bytes;
        return items;
    }
};

void write(const VoisinGraph& graph, faiss::IOWriter* writer) {
    if (graph.floats) {
        faiss::write_index(graph.floats.get(), writer);
    } else {
        faiss::write_index_binary(graph.bits.get(), writer);
    }
}

std::unique_ptr<VoisinGraph> empty_graph(const VoisinSpec& spec) {
    auto graph = std::make_unique<VoisinGraph>();
    auto metric = faiss::MetricType(spec.metric);
    int dimension = int(spec.dimension);
    int neighbors = int(spec.max_neighbor_count);
    switch (spec.storage) {
        case FLOATS:
            graph->floats = std::make_unique<faiss::IndexHNSWFlat>(dimension, neighbors, metric);
            break;
        case HALVES:
            graph->floats = std::make_unique<faiss::IndexHNSWSQ>(
                    dimension, faiss::ScalarQuantizer::QT_fp16, neighbors, metric);
            break;
        case SIGNED_BYTES:
            graph->floats = std::make_unique<faiss::IndexHNSWSQ>(
                    dimension, faiss::ScalarQuantizer::QT_8bit_direct_signed, neighbors, metric);
            break;
        case BITS:
            graph->bits = std::make_unique<faiss::IndexBinaryHNSW>(dimension, neighbors);
            break;
        default:
            throw std::invalid_argument("unknown storage");
    }
    return graph;
}

void add_block(VoisinGraph& graph, const void* rows, size_t count) {
    if (graph.floats) {
        graph.floats->add(faiss::idx_t(count), static_cast<const float*>(rows));
    } else {
        graph.bits->add(faiss::idx_t(count), static_cast<const uint8_t*>(rows));
    }
}

// faiss reads the entry point and the top level of the graph at two moments. While one thread
// raises the top level, another can start from the old entry point at the new level and read links
// that are not there. So the levels are drawn here, the highest is given to the first row (they
// are independent draws), and that row goes in alone when it raises the top: nothing does after it.
void add_rows(VoisinGraph& graph, const void* rows, size_t count, int threads) {
    faiss::HNSW& hnsw = graph.hnsw();
    std::vector<int> levels(count);
    for (int& level : levels) {
        level = hnsw.random_level() + 1;
    }
    std::iter_swap(levels.begin(), std::max_element(levels.begin(), levels.end()));
    size_t alone = levels[0] - 1 > hnsw.max_level ? 1 : 0;
    size_t row_bytes = graph.floats ? size_t(graph.floats->d) * sizeof(float)
                                    : size_t(graph.bits->code_size);
    if (alone == 1) {
        ThreadLimit limit(1);
        hnsw.levels.push_back(levels[0]);
        add_block(graph, rows, 1);
    }
    if (count > alone) {
        ThreadLimit limit(threads);
        hnsw.levels.insert(hnsw.levels.end(), levels.begin() + alone, levels.end());
        add_block(graph, static_cast<const uint8_t*>(rows) + alone * row_bytes, count - alone);
    }
}

std::unique_ptr<VoisinGraph> read(const VoisinSpec& spec, const uint8_t* bytes, size_t size) {
    auto graph = std::make_unique<VoisinGraph>();
    BufferReader reader(bytes, size);
    bool fits = false;
    if (spec.storage == BITS) {
        std::unique_ptr<faiss::IndexBinary> index(faiss::read_index_binary(&reader));
        auto* hnsw = dynamic_cast<faiss::IndexBinaryHNSW*>(index.get());
        auto* stored = hnsw ? dynamic_cast<faiss::IndexBinaryFlat*>(hnsw->storage) : nullptr;
        fits = stored && stored->ntotal == hnsw->ntotal && stored->d == int(spec.dimension);
        if (fits) {
            index.release();
            graph->bits.reset(hnsw);
        }
    } else {
        std::unique_ptr<faiss::Index> index(faiss::read_index(&reader));
        auto* hnsw = dynamic_cast<faiss::IndexHNSW*>(index.get());
        auto* stored = hnsw ? dynamic_cast<faiss::IndexFlatCodes*>(hnsw->storage) : nullptr;
        fits = stored && stored->ntotal == hnsw->ntotal && stored->d == int(spec.dimension) &&
                stored->codes.size() == size_t(stored->ntotal) * stored->code_size;
        if (fits) {
            index.release();
            graph->floats.reset(hnsw);
        }
    }
    if (!fits || reader.left != 0) {
        throw std::runtime_error("the index is not of the expected type and size");
    }
    return graph;
}

void set_build_parameters(VoisinGraph& graph, const VoisinSpec& spec) {
    faiss::HNSW& hnsw = graph.hnsw();
    hnsw.efConstruction = int(spec.ef_construction);
    // faiss starts every index, read ones too, at one seed: a graph that grows row by row over
    // restarts would draw the same level each time.
    hnsw.rng = faiss::RandomGenerator(LEVEL_SEED + int64_t(hnsw.levels.size()));
}

} // namespace

extern "C" {

int32_t voisin_graph_new(
        const VoisinSpec* spec,
        VoisinGraph** graph,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        auto made = empty_graph(*spec);
        set_build_parameters(*made, *spec);
        *graph = made.release();
    });
}

// `bytes` must have passed the checks of format.rs: faiss trusts the sizes and links it reads.
int32_t voisin_graph_read(
        const VoisinSpec* spec,
        const uint8_t* bytes,
        size_t size,
        VoisinGraph** graph,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        auto made = read(*spec, bytes, size);
        set_build_parameters(*made, *spec);
        *graph = made.release();
    });
}

void voisin_graph_free(VoisinGraph* graph) {
    delete graph;
}

// Appends `count` >= 1 rows: aligned floats, or bytes of bits. After an error the graph may hold
// half of them and must not be used again.
int32_t voisin_graph_add(
        VoisinGraph* graph,
        const void* rows,
        size_t count,
        int32_t threads,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] { add_rows(*graph, rows, count, threads); });
}

// Fills `k` distances and ids, nearest first; unused places at the end have the id -1. Runs on the
// calling thread only: HNSW::search has no parallel region, unlike the indexes' own search.
int32_t voisin_graph_search(
        const VoisinGraph* graph,
        const void* query,
        size_t k,
        int32_t ef,
        float* distances,
        int64_t* ids,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        bool larger_is_nearer = graph->floats &&
                faiss::is_similarity_metric(graph->floats->metric_type);
        Ranked ranked(
                graph->floats ? graph->floats->get_distance_computer()
                              : graph->bits->get_distance_computer(),
                larger_is_nearer);
        ranked.set_query(static_cast<const float*>(query));

        faiss::SearchParametersHNSW params;
        params.efSearch = ef;
        params.bounded_queue = true;
        using Results = faiss::HeapBlockResultHandler<faiss::HNSW::C>;
        Results results(1, distances, ids, k);
        Results::SingleResultHandler result(results);
        const faiss::HNSW& hnsw = graph->hnsw();
        faiss::VisitedTable visited(int(hnsw.levels.size()));
        result.begin(0);
        hnsw.search(ranked, result, visited, &params);
        result.end();
    });
}

int32_t voisin_graph_written_size(
        const VoisinGraph* graph,
        uint64_t* size,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        CountingWriter writer;
        write(*graph, &writer);
        *size = writer.written;
    });
}

// Fills exactly `size` bytes, the number that voisin_graph_written_size gave.
int32_t voisin_graph_write(
        const VoisinGraph* graph,
        uint8_t* bytes,
        size_t size,
        char* error,
        size_t error_size) {
    return guarded(error, error_size, [&] {
        BufferWriter writer(bytes, size);
        write(*graph, &writer);
        if (writer.left != 0) {
            throw std::runtime_error("the index was written short");
        }
    });
}

// Writes four lines of text, NUL-terminated: faiss's version, the options libfaiss reports it
// was compiled with, the instruction set of this file, OpenBLAS's description of itself.
int32_t voisin_build_info(char* text, size_t text_size, char* error, size_t error_size) {
    return guarded(error, error_size, [&] {
#if defined(__AVX512F__)
        const char* shim_simd = "AVX512";
#elif defined(__AVX2__)
        const char* shim_simd = "AVX2";
#elif defined(__ARM_FEATURE_SVE)
        const char* shim_simd = "SVE NEON";
#elif defined(__aarch64__)
        const char* shim_simd = "NEON";
#else
        const char* shim_simd = "GENERIC";
#endif
        std::string lines = faiss::get_version() + "\n" + faiss::get_compile_options() + "\n" +
                shim_simd + "\n" + openblas_get_config();
        snprintf(text, text_size, "%s", lines.c_str());
    });
}

} // extern "C"
