//! Voisin: a gRPC vector database. Vectors in, nearest neighbours out, nothing lost.
//!
//! ARCHITECTURE.md has the map. Imports point down: server > database > collection > query >
//! segment > index, wal, manifest > schema > storage; `unsafe` lives in `native` and `simd` only.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod error;
pub mod native;
pub mod schema;
