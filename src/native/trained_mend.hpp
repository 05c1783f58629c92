// What is made otherwise than faiss's index factory makes it.
//
// The by-residual fast scan (`IVFn,PQmx4fsr`) is mended: `IndexIVFPQFastScan::compute_LUT` of faiss 1.12.0 makes look-up tables and biases for as many lists as
// the index's own `nprobe` says, which is 1 unless somebody sets it. The search then reads as many as its
// parameters say: what lies behind the tables, which is foreign memory. An index that many threads search,
// each with an effort of its own, cannot be set beforehand, so the tables are made here, for the lists that
// the search looks into.

#pragma once

#include <cstring>
#include <memory>
#include <typeinfo>
#include <vector>

#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexIVFPQR.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPQFastScan.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/utils/AlignedTable.h>
#include <faiss/utils/distances.h>

namespace {

struct ResidualScan final : faiss::IndexIVFPQFastScan {
    // Takes over what the other one owns.
    explicit ResidualScan(faiss::IndexIVFPQFastScan& other)
            : ResidualScan(other, Owned(other)) {}

    void compute_LUT(
            size_t n,
            const float* x,
            const CoarseQuantized& cq,
            faiss::AlignedTable<float>& tables,
            faiss::AlignedTable<float>& biases) const override {
        const size_t lists = cq.nprobe;
        const size_t table = pq.ksub * pq.M;
        biases.resize(n * lists);
        if (metric_type == faiss::METRIC_INNER_PRODUCT) {
            tables.resize(n * table);
            pq.compute_inner_prod_tables(n, x, tables.get());
            memcpy(biases.get(), cq.dis, sizeof(float) * n * lists);
            for (size_t i = 0; i < n; i++) {
                fill_missing(cq.ids + i * lists, lists, biases.get() + i * lists, nullptr, 0);
            }
            return;
        }
        FAISS_THROW_IF_NOT(metric_type == faiss::METRIC_L2);
        tables.resize(n * lists * table);
        const bool is_precomputed = use_precomputed_table == 1;
        faiss::AlignedTable<float> products;
        std::vector<float> residual;
        if (is_precomputed) {
            products.resize(n * table);
            pq.compute_inner_prod_tables(n, x, products.get());
            memcpy(biases.get(), cq.dis, sizeof(float) * n * lists);
        } else {
            residual.resize(d);
            memset(biases.get(), 0, sizeof(float) * n * lists);
        }
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < lists; j++) {
                faiss::idx_t list = cq.ids[i * lists + j];
                float* out = tables.get() + (i * lists + j) * table;
                if (list < 0) {
                    continue;
                }
                if (is_precomputed) {
                    const float* known = precomputed_table.get() + list * table;
                    faiss::fvec_madd(table, known, -2, products.get() + i * table, out);
                } else {
                    quantizer->compute_residual(x + i * d, residual.data(), list);
                    pq.compute_distance_table(residual.data(), out);
                }
            }
            fill_missing(
                    cq.ids + i * lists,
                    lists,
                    biases.get() + i * lists,
                    tables.get() + i * lists * table,
                    table);
        }
    }

private:
    // What an index owns, taken from it and given back where copying it fails.
    struct Owned {
        faiss::IndexIVFPQFastScan& other;
        bool quantizer, lists;
        explicit Owned(faiss::IndexIVFPQFastScan& other)
                : other(other), quantizer(other.own_fields), lists(other.own_invlists) {
            other.own_fields = other.own_invlists = false;
        }
        Owned(const Owned&) = delete;
        ~Owned() {
            other.own_fields = quantizer;
            other.own_invlists = lists;
        }
    };

    ResidualScan(faiss::IndexIVFPQFastScan& other, Owned&& owned)
            : faiss::IndexIVFPQFastScan(other) {
        fine_quantizer = &pq;
        std::swap(own_fields, owned.quantizer);
        std::swap(own_invlists, owned.lists);
    }

    // A coarse quantizer that is a graph may find fewer lists than asked for. The others are skipped by the
    // scan, but their tables would stretch the range that the bytes of all tables have to cover.
    static void fill_missing(
            const faiss::idx_t* ids,
            size_t lists,
            float* biases,
            float* tables,
            size_t table) {
        size_t known = 0;
        while (known < lists && ids[known] < 0) {
            known++;
        }
        for (size_t j = 0; j < lists; j++) {
            if (ids[j] >= 0) {
                continue;
            }
            biases[j] = known < lists ? biases[known] : 0;
            if (tables && known < lists) {
                memcpy(tables + j * table, tables + known * table, sizeof(float) * table);
            } else if (tables) {
                memset(tables + j * table, 0, sizeof(float) * table);
            }
        }
    }
};

// Puts a mended index into the place of each one that has the fault.
void mend(faiss::Index*& place) {
    if (auto* wrapper = dynamic_cast<faiss::IndexPreTransform*>(place)) {
        mend(wrapper->index);
    } else if (auto* wrapper = dynamic_cast<faiss::IndexRefine*>(place)) {
        mend(wrapper->base_index);
    } else if (auto* scan = dynamic_cast<faiss::IndexIVFPQFastScan*>(place)) {
        if (scan->by_residual && typeid(*scan) != typeid(ResidualScan)) {
            auto mended = std::make_unique<ResidualScan>(*scan);
            delete scan;
            place = mended.release();
        }
    }
}

void mend(std::unique_ptr<faiss::Index>& index) {
    faiss::Index* raw = index.release();
    try {
        mend(raw);
    } catch (...) {
        index.reset(raw);
        throw;
    }
    index.reset(raw);
}

// Training that is told how many rows it has by Voisin's own log, and not by a line of faiss for each of
// its thousands of steps; and without ordering centres for a search by Hamming distances, which nobody
// asks for and which takes minutes where codes have 10 bits.
void prepare(faiss::Index* index) {
    auto quiet = [](faiss::ClusteringParameters& clustering) {
        clustering.min_points_per_centroid = 1;
    };
    if (auto* wrapper = dynamic_cast<faiss::IndexPreTransform*>(index)) {
        prepare(wrapper->index);
    } else if (auto* wrapper = dynamic_cast<faiss::IndexRefine*>(index)) {
        prepare(wrapper->base_index);
        prepare(wrapper->refine_index);
    } else if (auto* graph = dynamic_cast<faiss::IndexHNSW*>(index)) {
        prepare(graph->storage);
    } else if (auto* pq = dynamic_cast<faiss::IndexPQ*>(index)) {
        pq->do_polysemous_training = false;
        quiet(pq->pq.cp);
    } else if (auto* scan = dynamic_cast<faiss::IndexPQFastScan*>(index)) {
        quiet(scan->pq.cp);
    } else if (auto* lists = dynamic_cast<faiss::IndexIVF*>(index)) {
        quiet(lists->cp);
        if (auto* pq = dynamic_cast<faiss::IndexIVFPQ*>(index)) {
            pq->do_polysemous_training = false;
            quiet(pq->pq.cp);
        }
        if (auto* refined = dynamic_cast<faiss::IndexIVFPQR*>(index)) {
            quiet(refined->refine_pq.cp);
        }
        if (auto* scan = dynamic_cast<faiss::IndexIVFPQFastScan*>(index)) {
            quiet(scan->pq.cp);
        }
    }
}

// The product quantizers by which rotations are trained, quiet as well, for as long as this lives.
struct QuietRotations {
    std::vector<faiss::OPQMatrix*> rotations;
    std::vector<std::unique_ptr<faiss::ProductQuantizer>> quantizers;

    explicit QuietRotations(faiss::Index& index) {
        faiss::Index* at = &index;
        while (at) {
            if (auto* refine = dynamic_cast<faiss::IndexRefine*>(at)) {
                at = refine->base_index;
                continue;
            }
            auto* wrapper = dynamic_cast<faiss::IndexPreTransform*>(at);
            if (!wrapper) {
                break;
            }
            for (faiss::VectorTransform* transform : wrapper->chain) {
                auto* rotation = dynamic_cast<faiss::OPQMatrix*>(transform);
                if (rotation && !rotation->pq && !rotation->is_trained) {
                    // As `OPQMatrix::train` makes its own.
                    auto pq = std::make_unique<faiss::ProductQuantizer>(
                            rotation->d_out, rotation->M, 8);
                    pq->cp.min_points_per_centroid = 1;
                    rotations.push_back(rotation);
                    rotation->pq = pq.get();
                    quantizers.push_back(std::move(pq));
                }
            }
            at = wrapper->index;
        }
    }
    QuietRotations(const QuietRotations&) = delete;
    ~QuietRotations() {
        for (faiss::OPQMatrix* rotation : rotations) {
            rotation->pq = nullptr;
        }
    }
};

} // namespace
