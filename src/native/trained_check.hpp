// What an index that was read from a file must be like before anything is searched in it: faiss trusts every
// size and every id of a file, and a search follows them wherever they lead.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include <faiss/IndexAdditiveQuantizer.h>
#include <faiss/IndexAdditiveQuantizerFastScan.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFastScan.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexIVFPQR.h>
#include <faiss/IndexIVFRaBitQ.h>
#include <faiss/IndexLSH.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexPQFastScan.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRaBitQ.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/VectorTransform.h>
#include <faiss/impl/ProductAdditiveQuantizer.h>
#include <faiss/invlists/BlockInvertedLists.h>
#include <faiss/invlists/InvertedLists.h>

namespace {

struct Checks {
    // Rows of the whole index, which each of its parts has as well.
    faiss::idx_t rows;

    static void require(bool holds, const char* what) {
        if (!holds) {
            throw std::runtime_error(what);
        }
    }

    static void equal(const char* what, size_t found, size_t expected) {
        if (found != expected) {
            throw std::runtime_error(
                    std::string(what) + " is " + std::to_string(found) + ", not " +
                    std::to_string(expected));
        }
    }

    template <class Part>
    static Part* kind(const faiss::Index* index) {
        return dynamic_cast<Part*>(const_cast<faiss::Index*>(index));
    }

    static size_t round_up(size_t count, size_t block) {
        return (count + block - 1) / block * block;
    }

    // A graph of faiss is searched without end, or beyond its memory, where a distance is not a number.
    static void finite(const char* what, const float* floats, size_t count) {
        for (size_t at = 0; at < count; at++) {
            if (!std::isfinite(floats[at])) {
                throw std::runtime_error(std::string(what) + " have one that is not a number");
            }
        }
    }

    // The same of floats of 16 bits, of which large ones may be infinite; this is infinity.
    static void numbers(const uint8_t* codes, size_t count, uint16_t infinity) {
        for (size_t at = 0; at < count; at++) {
            uint16_t half;
            memcpy(&half, codes + 2 * at, sizeof(half));
            require((half & 0x7fff) <= infinity, "rows have one that is not a number");
        }
    }

    void product(const faiss::ProductQuantizer& pq, size_t dimension) const {
        equal("the dimension of a product quantizer", pq.d, dimension);
        require(pq.M > 0 && pq.nbits > 0 && pq.nbits <= 16, "a product quantizer of no such size");
        require(dimension % pq.M == 0, "the parts of a product quantizer do not divide its dimension");
        equal("the length of its parts", pq.dsub, dimension / pq.M);
        equal("the number of its centres", pq.ksub, size_t(1) << pq.nbits);
        equal("the size of its centres", pq.centroids.size(), dimension * pq.ksub);
        equal("the size of its codes", pq.code_size, (pq.nbits * pq.M + 7) / 8);
        finite("centres", pq.centroids.data(), pq.centroids.size());
    }

    void scalar(const faiss::ScalarQuantizer& sq, size_t dimension) const {
        using Quantizer = faiss::ScalarQuantizer;
        equal("the dimension of a scalar quantizer", sq.d, dimension);
        size_t ranges = 0;
        switch (sq.qtype) {
            case Quantizer::QT_8bit:
            case Quantizer::QT_4bit:
            case Quantizer::QT_6bit:
                ranges = 2 * dimension;
                break;
            case Quantizer::QT_8bit_uniform:
            case Quantizer::QT_4bit_uniform:
                ranges = 2;
                break;
            case Quantizer::QT_fp16:
            case Quantizer::QT_bf16:
            case Quantizer::QT_8bit_direct:
            case Quantizer::QT_8bit_direct_signed:
                break;
            default:
                require(false, "a scalar quantizer of no known type");
        }
        equal("the size of its ranges", sq.trained.size(), ranges);
        finite("ranges", sq.trained.data(), sq.trained.size());
        equal("the size of its codes", sq.code_size, Quantizer(dimension, sq.qtype).code_size);
    }

    void additive(const faiss::AdditiveQuantizer& aq, size_t dimension) const {
        equal("the dimension of an additive quantizer", aq.d, dimension);
        require(aq.M > 0 && aq.is_trained, "an additive quantizer that is not trained");
        equal("the number of its codebooks", aq.nbits.size(), aq.M);
        equal("the number of its offsets", aq.codebook_offsets.size(), aq.M + 1);
        size_t centres = 0, bits = aq.norm_bits;
        for (size_t part = 0; part < aq.M; part++) {
            require(aq.nbits[part] > 0 && aq.nbits[part] <= 16, "a codebook of no such size");
            equal("the offset of a codebook", aq.codebook_offsets[part], centres);
            centres += size_t(1) << aq.nbits[part];
            bits += aq.nbits[part];
        }
        equal("the number of its centres", aq.total_codebook_size, centres);
        equal("the size of its codes", aq.code_size, (bits + 7) / 8);
        auto* product = dynamic_cast<const faiss::ProductAdditiveQuantizer*>(&aq);
        if (!product) {
            equal("the size of its centres", aq.codebooks.size(), centres * dimension);
            finite("centres", aq.codebooks.data(), aq.codebooks.size());
            return;
        }
        require(product->nsplits > 0 && dimension % product->nsplits == 0,
                "the parts of a product quantizer do not divide its dimension");
        equal("the number of its parts", product->quantizers.size(), product->nsplits);
        size_t parts = 0, size = 0;
        for (const faiss::AdditiveQuantizer* part : product->quantizers) {
            require(part, "a part of a quantizer is missing");
            additive(*part, dimension / product->nsplits);
            parts += part->M;
            size += part->codebooks.size();
        }
        equal("the number of its codebooks", parts, aq.M);
        equal("the size of its centres", aq.codebooks.size(), size);
    }

    // Both kinds of fast scan.
    template <class Scan>
    void fast_scan(const Scan& scan) const {
        require(scan.bbs > 0 && scan.bbs % 32 == 0, "a fast scan of no such blocks");
        require(scan.nbits == 4 && scan.ksub == 16, "a fast scan of codes of other than 4 bits");
        require(scan.M > 0, "a fast scan of no codes");
        equal("the size of its rows", scan.M2, round_up(scan.M, 2));
    }

    void transform(const faiss::VectorTransform& transform, int in) const {
        equal("the dimension that a transform takes", transform.d_in, in);
        require(transform.d_out > 0 && transform.is_trained, "a transform that is not trained");
        if (auto* linear = dynamic_cast<const faiss::LinearTransform*>(&transform)) {
            matrix(*linear);
        } else if (auto* itq = dynamic_cast<const faiss::ITQTransform*>(&transform)) {
            equal("the size of its mean", itq->mean.size(), in);
            equal("the dimension that its rotation takes", itq->pca_then_itq.d_in, in);
            equal("the dimension that its rotation makes", itq->pca_then_itq.d_out, itq->d_out);
            matrix(itq->pca_then_itq);
        } else if (auto* remap = dynamic_cast<const faiss::RemapDimensionsTransform*>(&transform)) {
            equal("the size of its map", remap->map.size(), remap->d_out);
            for (int from : remap->map) {
                require(from >= -1 && from < in, "a dimension is taken from one that does not exist");
            }
        } else if (dynamic_cast<const faiss::NormalizationTransform*>(&transform)) {
            equal("the dimension that it makes", transform.d_out, in);
        } else {
            require(false, "a transform of no known kind");
        }
    }

    void matrix(const faiss::LinearTransform& linear) const {
        equal("the size of a rotation", linear.A.size(), size_t(linear.d_in) * linear.d_out);
        require(!linear.have_bias || linear.b.size() >= size_t(linear.d_out),
                "the shift of a rotation is too short");
        finite("rotations", linear.A.data(), linear.A.size());
        finite("shifts", linear.b.data(), linear.b.size());
    }

    void codes(const faiss::IndexFlatCodes& flat) const {
        equal("the size of codes", flat.codes.size(), size_t(rows) * flat.code_size);
        const size_t dimension = flat.d;
        if (dynamic_cast<const faiss::IndexFlat*>(&flat)) {
            equal("the size of a row", flat.code_size, sizeof(float) * dimension);
            const auto* floats = reinterpret_cast<const float*>(flat.codes.data());
            finite("rows", floats, size_t(rows) * dimension);
        } else if (auto* sq = dynamic_cast<const faiss::IndexScalarQuantizer*>(&flat)) {
            scalar(sq->sq, dimension);
            equal("the size of a row", flat.code_size, sq->sq.code_size);
            if (sq->sq.qtype == faiss::ScalarQuantizer::QT_fp16) {
                numbers(flat.codes.data(), size_t(rows) * dimension, 0x7c00);
            } else if (sq->sq.qtype == faiss::ScalarQuantizer::QT_bf16) {
                numbers(flat.codes.data(), size_t(rows) * dimension, 0x7f80);
            }
        } else if (auto* pq = dynamic_cast<const faiss::IndexPQ*>(&flat)) {
            product(pq->pq, dimension);
            equal("the size of a row", flat.code_size, pq->pq.code_size);
        } else if (auto* aq = dynamic_cast<const faiss::IndexAdditiveQuantizer*>(&flat)) {
            require(aq->aq, "there is no quantizer");
            additive(*aq->aq, dimension);
            equal("the size of a row", flat.code_size, aq->aq->code_size);
        } else if (auto* lsh = dynamic_cast<const faiss::IndexLSH*>(&flat)) {
            require(lsh->nbits > 0, "a hash of no bits");
            equal("the size of a row", flat.code_size, (size_t(lsh->nbits) + 7) / 8);
            if (lsh->rotate_data) {
                equal("the dimension of its rotation", lsh->rrot.d_in, dimension);
                equal("the bits of its rotation", lsh->rrot.d_out, lsh->nbits);
                matrix(lsh->rrot);
            } else {
                require(lsh->nbits <= lsh->d, "a hash of more bits than dimensions");
            }
            require(!lsh->train_thresholds || lsh->thresholds.size() == size_t(lsh->nbits),
                    "a hash without its thresholds");
        } else if (auto* bits = dynamic_cast<const faiss::IndexRaBitQ*>(&flat)) {
            equal("the dimension of its quantizer", bits->rabitq.d, dimension);
            equal("the size of its centre", bits->center.size(), dimension);
            equal("the size of a row", flat.code_size, bits->rabitq.code_size);
            equal("the size of its codes",
                  flat.code_size,
                  faiss::RaBitQuantizer(dimension, flat.metric_type).code_size);
        } else {
            require(false, "rows of no known kind");
        }
    }

    void lists(const faiss::IndexIVF& ivf) const {
        require(ivf.nlist > 0 && ivf.quantizer && ivf.invlists, "lists without their parts");
        equal("the dimension of the coarse quantizer", ivf.quantizer->d, ivf.d);
        Checks{faiss::idx_t(ivf.nlist)}.index(ivf.quantizer);
        const faiss::InvertedLists& all = *ivf.invlists;
        equal("the number of lists", all.nlist, ivf.nlist);
        const size_t dimension = ivf.d;
        auto* block = dynamic_cast<const faiss::BlockInvertedLists*>(&all);
        auto* array = dynamic_cast<const faiss::ArrayInvertedLists*>(&all);
        if (auto* scan = dynamic_cast<const faiss::IndexIVFPQFastScan*>(&ivf)) {
            fast_scan(*scan);
            product(scan->pq, dimension);
            equal("the number of its codes", scan->M, scan->pq.M);
            require(block && block->packer, "a fast scan without blocks");
            equal("the rows of a block", block->n_per_block, scan->bbs);
            equal("the size of a block", block->block_size, size_t(scan->bbs) * scan->M2 / 2);
            equal("the number of blocks' lists", block->ids.size(), ivf.nlist);
            equal("the number of lists' blocks", block->codes.size(), ivf.nlist);
        } else {
            require(array, "lists of no known kind");
            equal("the size of a list's row", all.code_size, ivf.code_size);
            equal("the number of lists' ids", array->ids.size(), ivf.nlist);
            equal("the number of lists' rows", array->codes.size(), ivf.nlist);
            rows_of(ivf, dimension);
        }
        // Each id once: bits of those that were met.
        std::vector<bool> met(rows);
        size_t total = 0;
        for (size_t list = 0; list < ivf.nlist; list++) {
            const size_t size = all.list_size(list);
            total += size;
            if (block) {
                const size_t blocks = round_up(size, block->n_per_block) / block->n_per_block;
                require(block->codes[list].size() >= blocks * block->block_size,
                        "a list has fewer codes than ids");
            } else {
                equal("the size of a list",
                      array->codes[list].size(),
                      array->ids[list].size() * ivf.code_size);
            }
            faiss::InvertedLists::ScopedIds ids(&all, list);
            for (size_t place = 0; place < size; place++) {
                faiss::idx_t id = ids[place];
                require(id >= 0 && id < rows, "a list has an id of no row");
                require(!met[id], "a row is in the lists twice");
                met[id] = true;
            }
        }
        equal("the number of rows in lists", total, size_t(rows));
    }

    // How the lists hold their rows.
    void rows_of(const faiss::IndexIVF& ivf, size_t dimension) const {
        if (dynamic_cast<const faiss::IndexIVFFlat*>(&ivf)) {
            equal("the size of a row", ivf.code_size, sizeof(float) * dimension);
        } else if (auto* sq = dynamic_cast<const faiss::IndexIVFScalarQuantizer*>(&ivf)) {
            scalar(sq->sq, dimension);
            equal("the size of a row", ivf.code_size, sq->sq.code_size);
        } else if (auto* pq = dynamic_cast<const faiss::IndexIVFPQ*>(&ivf)) {
            product(pq->pq, dimension);
            equal("the size of a row", ivf.code_size, pq->pq.code_size);
            if (auto* refined = dynamic_cast<const faiss::IndexIVFPQR*>(&ivf)) {
                product(refined->refine_pq, dimension);
                equal("the size of what refines",
                      refined->refine_codes.size(),
                      size_t(rows) * refined->refine_pq.code_size);
            }
        } else if (auto* bits = dynamic_cast<const faiss::IndexIVFRaBitQ*>(&ivf)) {
            equal("the dimension of its quantizer", bits->rabitq.d, dimension);
            equal("the size of a row",
                  ivf.code_size,
                  faiss::RaBitQuantizer(dimension, ivf.metric_type).code_size);
        } else {
            require(false, "lists of rows of no known kind");
        }
    }

    void graph(const faiss::IndexHNSW& graph) const {
        require(graph.storage, "a graph without rows");
        equal("the dimension of a graph's rows", graph.storage->d, graph.d);
        index(graph.storage);
        const faiss::HNSW& links = graph.hnsw;
        const auto& widths = links.cum_nneighbor_per_level;
        require(!widths.empty() && widths[0] == 0, "a graph without widths");
        for (size_t level = 1; level < widths.size(); level++) {
            require(widths[level] >= widths[level - 1], "a graph whose widths fall");
        }
        equal("the number of a graph's levels", links.levels.size(), size_t(rows));
        equal("the number of a graph's offsets", links.offsets.size(), size_t(rows) + 1);
        require(links.offsets[0] == 0, "the links of a graph do not begin at 0");
        for (faiss::idx_t node = 0; node < rows; node++) {
            const int level = links.levels[node];
            require(level > 0 && size_t(level) < widths.size(), "a node of no such level");
            equal("the number of a node's links",
                  links.offsets[node + 1] - links.offsets[node],
                  widths[level]);
        }
        equal("the number of a graph's links", links.neighbors.size(), links.offsets[rows]);
        for (faiss::idx_t node = 0; node < rows; node++) {
            for (int level = 0; level < links.levels[node]; level++) {
                const size_t first = links.offsets[node] + widths[level];
                const size_t end = links.offsets[node] + widths[level + 1];
                for (size_t at = first; at < end; at++) {
                    const faiss::idx_t to = links.neighbors[at];
                    if (to < 0) {
                        break;
                    }
                    require(to < rows && links.levels[to] > level, "a link leads to no node");
                }
            }
        }
        if (rows == 0) {
            return;
        }
        const faiss::idx_t entry = links.entry_point;
        require(entry >= 0 && entry < rows, "a graph begins at no node");
        equal("the level at which a graph begins", links.levels[entry], size_t(links.max_level) + 1);
    }

    void index(const faiss::Index* part) const {
        require(part, "a part is missing");
        require(part->d > 0 && part->is_trained, "a part that is not trained");
        require(part->metric_type == faiss::METRIC_L2 ||
                        part->metric_type == faiss::METRIC_INNER_PRODUCT,
                "a part of no known metric");
        equal("the number of a part's rows", size_t(part->ntotal), size_t(rows));
        if (auto* wrapper = kind<const faiss::IndexPreTransform>(part)) {
            int dimension = wrapper->d;
            for (const faiss::VectorTransform* one : wrapper->chain) {
                require(one, "a transform is missing");
                transform(*one, dimension);
                dimension = one->d_out;
            }
            index(wrapper->index);
            equal("the dimension of what is transformed", wrapper->index->d, dimension);
        } else if (auto* wrapper = kind<const faiss::IndexRefine>(part)) {
            index(wrapper->base_index);
            index(wrapper->refine_index);
            equal("the dimension of what is refined", wrapper->base_index->d, wrapper->d);
            equal("the dimension of what refines", wrapper->refine_index->d, wrapper->d);
        } else if (auto* lists = kind<const faiss::IndexIVF>(part)) {
            this->lists(*lists);
        } else if (auto* graph = kind<const faiss::IndexHNSW>(part)) {
            this->graph(*graph);
        } else if (auto* flat = kind<const faiss::IndexFlatCodes>(part)) {
            codes(*flat);
        } else if (auto* scan = kind<const faiss::IndexFastScan>(part)) {
            fast_scan(*scan);
            equal("the number of a scan's places", scan->ntotal2, round_up(rows, scan->bbs));
            require(scan->codes.size() >= scan->ntotal2 * scan->M2 / 2, "fewer codes than rows");
            if (auto* pq = kind<const faiss::IndexPQFastScan>(part)) {
                product(pq->pq, pq->d);
                equal("the number of its codes", pq->M, pq->pq.M);
            } else if (auto* aq = kind<const faiss::IndexAdditiveQuantizerFastScan>(part)) {
                require(aq->aq, "there is no quantizer");
                additive(*aq->aq, aq->d);
                equal("the number of its codes", aq->M, aq->aq->tot_bits / 4);
            } else {
                require(false, "a scan of no known kind");
            }
        } else {
            require(false, "an index of no known kind");
        }
    }
};

// Throws where an index is not whole.
void check_index(const faiss::Index& index) {
    Checks::require(index.ntotal >= 0 && index.ntotal <= UINT32_MAX, "an index of no such size");
    Checks{index.ntotal}.index(&index);
}

} // namespace
