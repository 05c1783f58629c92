//! Statistics of our own contract.

use super::super::proto::voisin_v1::{CollectionMemory, Indexing, ServerMemory, StatsReply};
use crate::collection::{CollectionStats, IndexingReport, MemoryReport};
use crate::memory::Memory;

/// A collection's statistics, with the process's memory and its limit.
pub fn stats_reply(
    stats: &CollectionStats,
    indexing: IndexingReport,
    memory: MemoryReport,
    (server, limit): (Option<Memory>, u64),
) -> StatsReply {
    StatsReply {
        rows: stats.segments.iter().map(|segment| segment.live_rows).sum(),
        segments: stats.segments.iter().filter(|segment| segment.live_rows > 0).count() as u32,
        file_bytes: stats.segments.iter().map(|segment| segment.file_bytes).sum(),
        indexing: Some(Indexing {
            rows_waiting: indexing.rows_waiting,
            rows_linking: indexing.rows_linking,
            rows_linked: indexing.rows_linked,
            seconds_left: indexing.seconds_left.unwrap_or(0.0),
        }),
        memory: Some(CollectionMemory {
            growing: memory.growing,
            codes: memory.codes,
            graphs: memory.graphs,
            keys: memory.keys,
            deletes: memory.deletes,
            total: memory.total(),
        }),
        server_memory: Some(ServerMemory {
            anonymous: server.map_or(0, |memory| memory.anonymous),
            resident: server.map_or(0, |memory| memory.resident),
            limit,
        }),
    }
}
