//! Voisin: a gRPC vector database. Vectors in, nearest neighbours out, nothing lost.
//!
//! ARCHITECTURE.md has the map. Imports point down: server > database > collection > query >
//! segment > index, wal, manifest > storage > native > simd > schema; `unsafe` lives in `native` and `simd` only.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod bench;
pub mod cancel;
pub mod cli;
pub mod collection;
pub mod compute;
pub mod config;
pub mod database;
pub mod embedding;
pub mod error;
pub mod files;
pub mod index;
pub mod manifest;
pub mod memory;
pub mod native;
pub mod query;
pub mod schema;
pub mod segment;
pub mod server;
pub mod simd;
pub mod storage;
pub mod telemetry;
pub mod transfer;
pub mod wal;
