//! Reject streams: bad rows as rows.
//!
//! Laws
//! - A reject node gathers what its stages set aside in one chunk and passes it on at the chunk's end, by (place, node): the order
//!   does not depend on which stage ran first.
//! - Rows behind the place where the run ended are dropped.

use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Arena, Batch, Bits, Column, Columns, Data, Field, Place, Result, Schema, Text, Type};

/// The columns of every reject stream.
pub fn schema() -> Schema {
    let field = |name: &str, ty: Type, nullable: bool| Field::new(name, ty, nullable);
    Schema::new(vec![
        field("code", Type::String, false),
        field("message", Type::String, false),
        field("step", Type::String, false),
        field("script_line", Type::Int, false),
        field("source", Type::String, true),
        field("line", Type::Int, true),
        field("row", Type::Int, true),
        field("byte", Type::Int, true),
        field("record", Type::Json, true),
        field("raw", Type::Bytes, true),
    ])
}

/// One bad row on its way into a reject stream.
#[derive(Clone, Debug)]
pub(crate) struct Reject {
    pub place: Place,
    pub node: u32,
    pub code: standpipe_sdk::Code,
    pub message: String,
    pub step: std::sync::Arc<str>,
    pub script_line: u32,
    pub source: Option<String>,
    pub line: Option<u64>,
    pub row: Option<u64>,
    pub byte: Option<u64>,
    pub record: Option<String>,
    pub raw: Option<Vec<u8>>,
}

/// The rejects as a batch in `arena`.
pub(crate) fn batch<'a>(rows: &[Reject], arena: &'a Arena) -> Result<Batch<'a>> {
    let n = rows.len();
    let int = |get: &dyn Fn(&Reject) -> Option<u64>| -> Result<Column<'a>> {
        let values = arena.collect(n, |i| get(&rows[i]).unwrap_or(0) as i64)?;
        Ok(Column::int(
            values,
            Some(Bits::collect(arena, n, |i| get(&rows[i]).is_some())?),
        ))
    };
    let mut columns = Columns::new(arena, 10)?;
    let full = |get: &dyn Fn(&Reject) -> Result<String>| -> Result<Text<'a>> {
        let mut builder = TextBuilder::new(arena, n, n * 32)?;
        for row in rows {
            builder.push(&get(row)?)?;
        }
        builder.finish()
    };
    let some = |get: &dyn Fn(&Reject) -> Option<&[u8]>| -> Result<(Text<'a>, Option<Bits<'a>>)> {
        let mut builder = TextBuilder::new(arena, n, n * 64)?;
        for row in rows {
            builder.push_bytes(get(row).unwrap_or_default())?;
        }
        Ok((
            builder.finish()?,
            Some(Bits::collect(arena, n, |i| get(&rows[i]).is_some())?),
        ))
    };
    columns.push(Column::string(full(&|r| Ok(r.code.to_string()))?, None));
    columns.push(Column::string(full(&|r| Ok(r.message.clone()))?, None));
    columns.push(Column::string(full(&|r| Ok(r.step.to_string()))?, None));
    columns.push(int(&|r| Some(u64::from(r.script_line)))?.with_valid(None));
    let (text, valid) = some(&|r| r.source.as_deref().map(str::as_bytes))?;
    columns.push(Column::string(text, valid));
    columns.push(int(&|r| r.line)?);
    columns.push(int(&|r| r.row)?);
    columns.push(int(&|r| r.byte)?);
    let (text, valid) = some(&|r| r.record.as_deref().map(str::as_bytes))?;
    columns.push(Column::new(Data::Json(text), valid, n));
    let (text, valid) = some(&|r| r.raw.as_deref())?;
    columns.push(Column::new(Data::Bytes(text), valid, n));
    let places = arena.collect(n, |i| rows[i].place)?;
    Ok(Batch::new(columns.finish(), Some(places), n))
}
