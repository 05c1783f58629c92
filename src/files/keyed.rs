//! A table whose keys are in a file of their own, row by row: a `.npy` of whole numbers, as exports of
//! formats that have room for vectors alone put beside them.

use std::path::Path;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};

use super::npy::NpyTable;
use super::{Block, Fault, Read, Table};

/// The column that the keys become.
pub(super) const KEY: &str = "_key";

/// A table with the column [`KEY`] before its own.
pub(super) struct KeyedTable {
    table: Box<dyn Table>,
    keys: NpyTable,
    schema: SchemaRef,
    /// Where among the selected columns the keys come; none where they are not wanted.
    key_at: Option<usize>,
}

impl KeyedTable {
    pub fn open(table: Box<dyn Table>, path: &Path) -> Read<KeyedTable> {
        let of_keys = |why: String| Fault::new(format!("its keys in {}: {why}", path.display()));
        let keys = NpyTable::open(path).map_err(|fault| of_keys(fault.to_string()))?;
        let data_type = keys.schema().field(0).data_type().clone();
        if !data_type.is_integer() {
            return Err(of_keys(format!("of type {data_type}, and keys are whole numbers")));
        }
        if keys.rows() != table.rows() {
            return Err(of_keys(format!("{} for {} rows", keys.rows(), table.rows())));
        }
        let own = table.schema();
        if own.field_with_name(KEY).is_ok() {
            return Err(of_keys(format!("there is a column {KEY:?} already")));
        }
        let key = Arc::new(Field::new(KEY, data_type, false));
        let fields: Vec<_> = std::iter::once(key).chain(own.fields().iter().cloned()).collect();
        let schema = Schema::new_with_metadata(fields, own.metadata().clone());
        Ok(KeyedTable { table, keys, schema: Arc::new(schema), key_at: Some(0) })
    }
}

impl Table for KeyedTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.table.rows()
    }

    fn select(&mut self, columns: &[usize]) -> Read<()> {
        self.key_at = columns.iter().position(|at| *at == 0);
        let own: Vec<usize> = columns.iter().filter(|at| **at > 0).map(|at| at - 1).collect();
        self.table.select(&own)
    }

    fn read(&mut self, rows_max: usize) -> Read<Option<Block>> {
        let Some(mut block) = self.table.read(rows_max)? else { return Ok(None) };
        let Some(key_at) = self.key_at else { return Ok(Some(block)) };
        if block.rows == 0 {
            return Ok(None);
        }
        let mut keys = Vec::new();
        let mut read = 0;
        while read < block.rows {
            let part = self.keys.read(block.rows - read)?.ok_or_else(|| Fault::new("no keys"))?;
            read += part.rows;
            keys.extend(part.columns);
        }
        let parts: Vec<&dyn arrow_array::Array> = keys.iter().map(AsRef::as_ref).collect();
        let keys = arrow_select::concat::concat(&parts).map_err(Fault::new)?;
        block.columns.insert(key_at.min(block.columns.len()), keys);
        Ok(Some(block))
    }

    fn skip(&mut self, rows: u64) -> Read<()> {
        self.table.skip(rows)?;
        self.keys.skip(rows)
    }
}
