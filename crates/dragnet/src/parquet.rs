//! Hits as a Parquet file: a row for each, columns by the names of a hit's fields.

use crate::output::COLUMNS;
use anyhow::Result;
use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::Value as Json;
use std::fs::File;
use std::sync::Arc;

/// Hits that are written together as a row group.
const ROWS: usize = 50_000;
/// Columns that hold numbers; the others hold text.
const NUMBERS: [&str; 7] = ["status", "offset", "length", "skip", "row", "start", "end"];

pub(crate) struct HitWriter {
    out: SerializedFileWriter<File>,
    rows: Vec<Json>,
}

impl HitWriter {
    pub(crate) fn new(file: File) -> Result<HitWriter> {
        let column = |name: &&str| {
            let (physical, converted) = match NUMBERS.contains(name) {
                true => (Physical::INT64, ConvertedType::NONE),
                false => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
            };
            let built = Type::primitive_type_builder(name, physical).with_converted_type(converted);
            Ok(Arc::new(built.with_repetition(Repetition::OPTIONAL).build()?))
        };
        let columns = COLUMNS.iter().map(column).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(Type::group_type_builder("hit").with_fields(columns).build()?);
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
        let out = SerializedFileWriter::new(file, schema, Arc::new(properties.build()))?;
        Ok(HitWriter { out, rows: Vec::new() })
    }

    /// Takes JSON lines.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Result<()> {
        for hit in serde_json::Deserializer::from_slice(lines).into_iter::<Json>() {
            self.rows.push(hit?);
        }
        if self.rows.len() >= ROWS { self.flush() } else { Ok(()) }
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.out.close()?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut group = self.out.next_row_group()?;
        for name in COLUMNS {
            let levels: Vec<i16> = self.rows.iter().map(|hit| i16::from(!hit[name].is_null())).collect();
            let Some(mut column) = group.next_column()? else { break };
            if NUMBERS.contains(&name) {
                let values: Vec<i64> = self.rows.iter().filter_map(|hit| hit[name].as_i64()).collect();
                column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
            } else {
                let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let present = self.rows.iter().map(|hit| &hit[name]).filter(|value| !value.is_null());
                let values: Vec<ByteArray> =
                    present.map(|value| ByteArray::from(text(value).into_bytes())).collect();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
            }
            column.close()?;
        }
        group.close()?;
        self.rows.clear();
        Ok(())
    }
}
