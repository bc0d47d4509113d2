//! Apache Parquet: a text column and, where there is one, the URL beside it. Only the chunks of these columns
//! are read. A row group is the unit of a split, and its borders stand in the footer.
//!
//! A column chunk is held in memory while it is read; the usual writers keep it below 128 MiB.

use crate::coverage::{Reason, Skip};
use crate::hit::Stored;
use crate::object::{ReadAt, read_full};
use crate::records::Head;
use crate::scan::{About, Scan, Scanned};
use crate::{Error, Layer, Range, Seam};
use bytes::{Buf, Bytes};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use std::borrow::Cow;
use std::sync::Arc;

/// Columns that hold a page's text where nobody says which, the likeliest first.
const TEXT_COLUMNS: [&str; 6] = ["text", "content", "body", "raw_content", "html", "document"];
const URL_COLUMNS: [&str; 3] = ["url", "uri", "source_url"];
/// The largest footer and the largest column chunk that are read, in bytes.
const FOOTER_BYTES_MAX: usize = 256 << 20;
const CHUNK_BYTES_MAX: u64 = 2 << 30;
/// Rows that are decoded together.
const ROWS: usize = 256;

/// The columns that are read, by their place.
struct Columns {
    text: usize,
    url: Option<usize>,
}

impl Scan<'_> {
    pub(crate) fn parquet(mut self, object: &dyn ReadAt) -> Result<Scanned, Error> {
        let Range { size, start, end, begin, .. } = *self.range;
        let metadata = match footer(object, size)? {
            Ok(metadata) => metadata,
            Err(why) => return self.undecodable(format!("the Parquet footer can't be read: {why}")),
        };
        let columns = match self.columns(&metadata) {
            Ok(columns) => columns,
            Err(why) => return self.undecodable(why),
        };
        let groups = metadata.row_groups();
        // The first one's place is the object's start, so that the whole is accounted for.
        let starts: Vec<u64> =
            groups.iter().enumerate().map(|(n, group)| if n == 0 { 0 } else { first_byte(group) }).collect();
        if !starts.is_sorted() {
            return self.undecodable("its row groups do not stand in their order".into());
        }
        let begin = begin.or_else(|| starts.iter().find(|at| **at >= start).map(|at| Seam::at(*at)));
        let begin = begin.or((start == 0).then_some(Seam::at(0)));
        let Some(begin) = begin.filter(|seam| seam.offset < end) else {
            return Ok(self.none_begins(begin.or(Some(Seam::at(size)))));
        };
        let (mut not_asked, mut row) = ((None, 0), 0);
        for (n, group) in groups.iter().enumerate() {
            let rows = group.num_rows().max(0) as u64;
            let at = starts[n];
            if at >= end {
                return Ok(self.finish_table(begin, Seam::at(at), false, not_asked));
            }
            if at >= begin.offset {
                let from = if at == begin.offset { begin.skip } else { 0 };
                if let Some(reached) = self.group(object, group, &columns, row, from)? {
                    let next = Seam { offset: at, skip: reached };
                    return Ok(self.finish_table(begin, next, true, not_asked));
                }
                not_asked.0.get_or_insert(at);
                not_asked.1 += unread(group, &columns);
            }
            row += rows;
        }
        Ok(self.finish_table(begin, Seam::at(size), false, not_asked))
    }

    fn finish_table(
        mut self,
        first: Seam,
        next: Seam,
        capped: bool,
        not_asked: (Option<u64>, u64),
    ) -> Scanned {
        if let (Some(offset), length @ 1..) = not_asked {
            let skip = Skip::new(offset, length, Reason::ColumnNotAsked);
            self.coverage.skip(skip.because("columns beside those that are read, from here on"));
        }
        self.finish(first, next, capped)
    }

    fn columns(&self, metadata: &ParquetMetaData) -> Result<Columns, String> {
        let schema = metadata.file_metadata().schema_descr();
        let leaves: Vec<(String, bool)> = schema
            .columns()
            .iter()
            .map(|c| (c.path().string(), c.physical_type() == Type::BYTE_ARRAY && c.max_rep_level() == 0))
            .collect();
        let texts = || {
            leaves
                .iter()
                .filter(|(_, text)| *text)
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let place =
            |name: &str| leaves.iter().position(|(leaf, text)| *text && leaf.eq_ignore_ascii_case(name));
        let text = match &self.search.field {
            Some(name) => {
                place(name).ok_or_else(|| format!("there is no text column `{name}`: it has {}", texts()))
            }
            None => TEXT_COLUMNS.iter().find_map(|name| place(name)).ok_or_else(|| {
                format!(
                    "none of its columns is named as text usually is: choose one of {} by `field`",
                    texts()
                )
            }),
        };
        Ok(Columns { text: text?, url: URL_COLUMNS.iter().find_map(|name| place(name)) })
    }

    /// Searches the rows of a group from one on; says at which one the limit on hits ended it.
    fn group(
        &mut self,
        object: &dyn ReadAt,
        group: &RowGroupMetaData,
        columns: &Columns,
        first_row: u64,
        from: u64,
    ) -> Result<Option<u64>, Error> {
        let opened = Column::open(object, group, columns.text).and_then(|text| {
            Ok((text, columns.url.map(|url| Column::open(object, group, url)).transpose()?))
        });
        let (mut text, mut url) = match opened {
            Ok(columns) => columns,
            Err(Trouble::Read(e)) => return Err(e),
            Err(Trouble::Format(why)) => return Ok(self.broken(group, columns, why)),
        };
        let rows = group.num_rows().max(0) as u64;
        let mut row = 0;
        while row < rows {
            let read = text.rows().and_then(|texts| Ok((texts, url.as_mut().map(Column::rows).transpose()?)));
            let (texts, urls) = match read {
                Ok((texts, _)) if texts.is_empty() => {
                    return Ok(self.broken(group, columns, format!("it ends at row {row} of {rows}")));
                }
                Ok(read) => read,
                Err(why) => return Ok(self.broken(group, columns, why)),
            };
            for (n, text) in texts.iter().enumerate() {
                let this = row + n as u64;
                if this < from {
                    continue;
                }
                if self.is_full() {
                    return Ok(Some(this));
                }
                let url = urls.as_ref().and_then(|urls| urls.get(n)?.as_ref());
                self.row(first_row + this, text.as_ref().map(ByteArray::data), url.map(ByteArray::data))?;
            }
            row += texts.len() as u64;
        }
        Ok(None)
    }

    fn row(&mut self, row: u64, text: Option<&[u8]>, url: Option<&[u8]>) -> Result<(), Error> {
        let head =
            Head { record_type: Some(Cow::Borrowed(b"row")), url: url.map(Cow::Borrowed), ..Head::default() };
        if !self.search.filter.takes(&head, None, None) {
            self.leave_out(0, 0);
            return Ok(());
        }
        let mut about = About::new(&head, Stored::Row { row });
        let text = text.unwrap_or_default();
        self.count(&about, Some(text.len() as u64))?;
        for layer in [Layer::Raw, Layer::Body, Layer::Text] {
            if self.search.layers.contains(&layer) {
                self.search_layer(&mut about, layer, text, 0)?;
            }
        }
        self.note_cut(&about);
        Ok(())
    }

    /// Names a row group that can't be read.
    fn broken(&mut self, group: &RowGroupMetaData, columns: &Columns, why: String) -> Option<u64> {
        let length = read_bytes(group, columns);
        let skip = Skip::new(first_byte(group), length, Reason::Damaged);
        self.coverage.skip(skip.because(format!("the row group can't be read: {why}")));
        None
    }
}

/// What went wrong: another attempt may help, or the bytes are what they are.
enum Trouble {
    Read(Error),
    Format(String),
}

fn footer(object: &dyn ReadAt, size: u64) -> Result<Result<ParquetMetaData, String>, Error> {
    let mut tail = [0; 8];
    if size < 12 {
        return Ok(Err("the file is too short".into()));
    }
    read_full(object, size - 8, &mut tail)?;
    let length = match FooterTail::try_new(&tail) {
        Ok(tail) if tail.is_encrypted_footer() => return Ok(Err("it is encrypted".into())),
        Ok(tail) => tail.metadata_length(),
        Err(e) => return Ok(Err(e.to_string())),
    };
    if length > FOOTER_BYTES_MAX || length as u64 + 12 > size {
        return Ok(Err(format!("it is said to have {length} bytes")));
    }
    let mut bytes = vec![0; length];
    read_full(object, size - 8 - length as u64, &mut bytes)?;
    let decoded = std::panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(&bytes));
    let decoded = decoded.map_err(|_| "its footer is broken".to_owned());
    let decoded = decoded.and_then(|decoded| decoded.map_err(|e| e.to_string()));
    // What the footer says of places must lie in the file.
    Ok(decoded.and_then(|metadata| {
        let inside = |column: &parquet::file::metadata::ColumnChunkMetaData| {
            let offset = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let place = u64::try_from(offset).ok().zip(u64::try_from(column.compressed_size()).ok());
            place.and_then(|(at, len)| at.checked_add(len)).is_some_and(|end| end <= size)
        };
        let columns = || metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
        // Each in the file is not enough: together they can't have more bytes than it has.
        let total: i128 = columns().map(|column| i128::from(column.compressed_size())).sum();
        match columns().all(inside) && total <= i128::from(size) {
            true => Ok(metadata),
            false => Err("it names places that are not in the file".into()),
        }
    }))
}

fn first_byte(group: &RowGroupMetaData) -> u64 {
    group.columns().iter().map(|column| column.byte_range().0).min().unwrap_or(0)
}

/// Stored bytes of the group's columns that are not read.
fn unread(group: &RowGroupMetaData, columns: &Columns) -> u64 {
    let others =
        group.columns().iter().enumerate().filter(|(n, _)| *n != columns.text && Some(*n) != columns.url);
    others.map(|(_, column)| column.byte_range().1).sum()
}

/// Stored bytes of the columns that are read.
fn read_bytes(group: &RowGroupMetaData, columns: &Columns) -> u64 {
    let all: u64 = group.columns().iter().map(|column| column.byte_range().1).sum();
    all - unread(group, columns)
}

/// One column of a row group.
struct Column {
    reader: ColumnReaderImpl<ByteArrayType>,
    /// The definition level of a value that is there.
    present: i16,
}

impl Column {
    fn open(object: &dyn ReadAt, group: &RowGroupMetaData, place: usize) -> Result<Column, Trouble> {
        let format = |e: ParquetError| Trouble::Format(e.to_string());
        let chunk = group.column(place);
        let (start, length) = chunk.byte_range();
        if length > CHUNK_BYTES_MAX {
            return Err(Trouble::Format(format!("a column chunk has {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        let n = read_full(object, start, &mut bytes).map_err(Trouble::Read)?;
        if n < bytes.len() {
            return Err(Trouble::Read(Error::Shrunk { end: start + n as u64, size: start + length }));
        }
        let chunk_bytes = Arc::new(Chunk { start, bytes: bytes.into() });
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let pages = SerializedPageReader::new(chunk_bytes, chunk, rows, None).map_err(format)?;
        match get_column_reader(chunk.column_descr_ptr(), Box::new(pages)) {
            ColumnReader::ByteArrayColumnReader(reader) => {
                Ok(Column { reader, present: chunk.column_descr().max_def_level() })
            }
            _ => Err(Trouble::Format("the column holds no text".into())),
        }
    }

    /// The next rows; a row without a value is `None`.
    fn rows(&mut self) -> Result<Vec<Option<ByteArray>>, String> {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let levels_wanted = (self.present > 0).then_some(&mut levels);
        // The decoders of a broken page may panic; that costs the row group and not the process.
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.reader.read_records(ROWS, levels_wanted, None, &mut values)
        }));
        let (rows, ..) = read.map_err(|_| "a page is broken".to_owned())?.map_err(|e| e.to_string())?;
        if self.present == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(levels
            .iter()
            .take(rows)
            .map(|level| if *level == self.present { values.next() } else { None })
            .collect())
    }
}

/// A column chunk in memory, found by its place in the file.
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = start.checked_sub(self.start).filter(|at| *at <= self.bytes.len() as u64);
        let at = at.ok_or_else(|| ParquetError::EOF("a page outside its column chunk".into()))?;
        Ok(self.bytes.slice(at as usize..))
    }
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF("a page outside its column chunk".into())),
        }
    }
}
