//! Statistics of our own contract.

use super::super::proto::voisin_v1::{
    self as wire, BytesWritten, CollectionMemory, Indexing, StatsReply,
};
use crate::collection::{
    CollectionStats, IndexingReport, MemoryReport, RecallReport, WrittenReport,
};
use crate::database::ServerMemory;

/// A collection's statistics, with the memory of the process.
pub fn stats_reply(
    stats: &CollectionStats,
    indexing: IndexingReport,
    memory: MemoryReport,
    written: WrittenReport,
    server: ServerMemory,
    unindexed: Vec<String>,
    recall: Vec<RecallReport>,
) -> StatsReply {
    let column_recall = |report: RecallReport| wire::ColumnRecall {
        column: report.column,
        expected: report.expected,
        live: report.live,
        live_deviation: report.live_deviation,
        live_queries: report.live_queries,
        filtered: report.filtered,
        filtered_queries: report.filtered_queries,
    };
    StatsReply {
        unindexed,
        recall: recall.into_iter().map(column_recall).collect(),
        rows: stats.segments.iter().map(|segment| segment.live_rows).sum(),
        segments: stats.segments.iter().filter(|segment| segment.live_rows > 0).count() as u32,
        file_bytes: stats.segments.iter().map(|segment| segment.file_bytes).sum(),
        indexing: Some(indexing_report(indexing)),
        memory: Some(CollectionMemory {
            growing: memory.growing,
            codes: memory.codes,
            graphs: memory.graphs,
            keys: memory.keys,
            deletes: memory.deletes,
            builds: memory.builds,
            filters: memory.filters,
            total: memory.total(),
        }),
        server_memory: Some(wire::ServerMemory {
            anonymous: server.anonymous,
            resident: server.resident,
            limit: server.limit,
            forward_store: server.forward_store,
            allocator: server.allocator,
            base: server.base,
            left_behind: server.left_behind,
        }),
        bytes_written: Some(BytesWritten {
            by_callers: written.asked,
            in_all: written.written,
            ratio: match written.asked {
                0 => 0.0,
                asked => written.written as f64 / asked as f64,
            },
        }),
    }
}

/// How far the indexing of a collection is.
pub fn indexing_report(indexing: IndexingReport) -> Indexing {
    Indexing {
        rows_waiting: indexing.rows_waiting,
        rows_linking: indexing.rows_linking,
        rows_linked: indexing.rows_linked,
        seconds_left: indexing.seconds_left.unwrap_or(0.0),
        settled: indexing.is_settled,
    }
}
