//! CSV and TSV.
//!
//! Laws
//! - Null is an empty cell without quotes; `""` is the empty string; writing keeps the difference.
//! - Names and types come from the header and the first rows, or from `schema:`; nothing is guessed after the first row has run.

pub mod index;
pub mod infer;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(in crate::formats) use write::CsvEncoder;
pub use write::write_plain;

use crate::formats::blocks::{Blocks, Framing, Start};
use crate::formats::input::Input;
use crate::formats::output::{RowEncoder, TextSink, TextSinkPlan};
use crate::formats::{codes, options};
use infer::Records;
use read::{CsvSource, FileLayout, ReadPlan};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, FormatSide, FormatSpec, Lineage, Make, Param, Plan, Want};
use standpipe_sdk::{Code, Field, Schema, Source, Type};
use std::sync::Arc;

const HEADER: Param = Param::new(
    "header",
    ArgKind::Const(Want::Bool),
    Some("true"),
    "whether the first record names the columns",
);
const DELIMITER: Param = Param::new(
    "delimiter",
    ArgKind::Const(Want::String),
    None,
    "the character between cells",
);
const RAGGED: Param = Param::new("ragged", ArgKind::Word, None, "`pad`: short rows are filled with nulls");

const READ_OPTIONS: &[Param] = &[
    options::SCHEMA,
    HEADER,
    DELIMITER,
    options::NULL,
    options::INFER,
    RAGGED,
    options::EXTRA,
    options::MISSING,
    options::IF_NONE,
    options::FILE_COLUMN,
    options::CHECK,
    options::ENCODING,
];
const WRITE_OPTIONS: &[Param] = &[HEADER, DELIMITER, options::APPEND];

pub const CSV: FormatSpec = FormatSpec {
    name: "csv",
    about: "Comma-separated text with a header",
    extensions: &["csv"],
    read: Some(FormatSide {
        options: READ_OPTIONS,
        bind: |call, plan| bind_read(call, plan, b','),
    }),
    write: Some(FormatSide {
        options: WRITE_OPTIONS,
        bind: |call, plan| bind_write(call, plan, b','),
    }),
};

pub const TSV: FormatSpec = FormatSpec {
    name: "tsv",
    about: "Tab-separated text with a header, quoted like CSV",
    extensions: &["tsv", "tab"],
    read: Some(FormatSide {
        options: READ_OPTIONS,
        bind: |call, plan| bind_read(call, plan, b'\t'),
    }),
    write: Some(FormatSide {
        options: WRITE_OPTIONS,
        bind: |call, plan| bind_write(call, plan, b'\t'),
    }),
};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What a file says of itself: its columns, and where its rows begin.
struct Head {
    names: Vec<String>,
    skip: u64,
    lines: u64,
    sample: Vec<u8>,
    renamed: bool,
}

fn bind_read(call: &Call<'_>, plan: &Plan<'_>, delimiter: u8) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let delimiter = options::byte(call, "delimiter", delimiter, &mut complaints);
    let nulls = options::texts(call, "null", &mut complaints);
    let rows = options::infer_rows(call, &mut complaints);
    let declared = options::schema(call, &mut complaints).cloned();
    let has_header = call.option("header").is_none() || call.flag("header");
    let extra = options::word(call, "extra", &["error"], &mut complaints).is_some();
    let missing = options::word(call, "missing", &["null"], &mut complaints).is_some();
    let pad = options::word(call, "ragged", &["pad"], &mut complaints).is_some();
    let check_all = options::check_all(call, &mut complaints);
    let inputs = options::inputs(call, plan, &mut complaints);
    if let Some(field) = declared
        .iter()
        .flat_map(|s| s.fields())
        .find(|f| matches!(f.ty, Type::List(_) | Type::Record(_) | Type::Bytes))
    {
        let message = format!("a CSV cell cannot be `{}`, as `{}` is declared", field.ty, field.name);
        complaints.push(options::about(call, codes::NO_SCHEMA, message));
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let mut schema: Option<Schema> = declared.clone();
    let (mut starts, mut files) = (Vec::new(), Vec::new());
    for (number, input) in inputs.into_iter().enumerate() {
        let sample_rows = if number == 0 && schema.is_none() { rows } else { 1 };
        let head = match head(&input, delimiter, has_header, sample_rows, declared.as_ref()) {
            Ok(head) => head,
            Err((code, message)) => {
                complaints.push(options::about(call, code, message));
                continue;
            }
        };
        if head.renamed {
            let names: Vec<String> = head.names.iter().map(|n| format!("`{n}`")).collect();
            let message = format!(
                "`{}` has empty or repeated names in its header: they are {}",
                input.path,
                names.join(", ")
            );
            (plan.warn)(options::about(call, codes::RENAMED_COLUMN, message));
        }
        let schema = schema.get_or_insert_with(|| {
            let mut sample = Records::new(&head.sample, delimiter);
            infer::schema(&head.names, &mut sample, rows, &nulls)
        });
        match layout(&head, schema, &input, declared.is_some(), missing, extra) {
            Ok(layout) => files.push(layout),
            Err((code, message)) => complaints.push(options::about(call, code, message)),
        }
        starts.push(Start {
            input,
            skip: head.skip,
            lines: head.lines,
        });
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let mut fields: Vec<Field> = schema.unwrap_or_default().fields().to_vec();
    let file_column = call.text("file_column").map(|name| {
        fields.push(Field::new(name, Type::String, false));
        for file in &mut files {
            file.cells.push(None);
        }
        fields.len() - 1
    });
    let schema = Schema::new(fields);
    let made = schema.clone();
    Ok(Bound {
        lineage: vec![Lineage::New; schema.width()],
        schema,
        reads: vec![],
        sorted_by: vec![],
        needs_places: false,
        make: Make::Source(Box::new(move |setup, request| {
            let plan = ReadPlan {
                schema: made.clone(),
                request: request.clone(),
                files: files.clone(),
                delimiter,
                nulls: nulls.clone(),
                pad,
                file_column,
                check_all,
                declared: declared.is_some(),
            };
            let blocks = Blocks::new(starts.clone(), Framing::Quoted { delimiter }, setup);
            Ok(Arc::new(CsvSource {
                blocks,
                plan: Arc::new(plan),
            }) as Arc<dyn Source>)
        })),
    })
}

fn head(
    input: &Input,
    delimiter: u8,
    has_header: bool,
    rows: usize,
    declared: Option<&Schema>,
) -> Result<Head, (Code, String)> {
    // With a schema one whole record tells all there is to know; else a newline inside quotes only makes the sample larger.
    let mut newlines = 0;
    let enough = |bytes: &[u8], seen: usize| match declared {
        Some(_) => index::scan_exact(index::State::FieldStart, bytes, delimiter)
            .cut
            .is_some(),
        None => {
            newlines += crate::formats::lines::count_newlines(&bytes[seen..]);
            newlines > rows as u64 + 1
        }
    };
    let (mut sample, whole) = input
        .sample(options::SAMPLE, enough)
        .map_err(|e| (codes::UNREADABLE, e.to_string()))?;
    let bom = if sample.starts_with(BOM) { BOM.len() } else { 0 };
    if sample.len() == bom && declared.is_none() {
        return Err((
            codes::NO_SCHEMA,
            format!("`{}` is empty; with `schema:` it would have no rows", input.path),
        ));
    }
    let mut records = Records::new(&sample[bom..], delimiter);
    let first = records.next(true);
    if first.is_none() && declared.is_none() {
        return Err((
            codes::NO_SCHEMA,
            format!("`{}` has no header, only empty lines", input.path),
        ));
    }
    let (names, renamed) = match (&first, declared, has_header) {
        (None, Some(schema), _) => (schema.fields().iter().map(|f| f.name.to_string()).collect(), false),
        (None, None, _) => (Vec::new(), false),
        (Some(header), _, true) => infer::names(header),
        (Some(row), Some(schema), false) if schema.width() == row.len() => {
            (schema.fields().iter().map(|f| f.name.to_string()).collect(), false)
        }
        (Some(row), _, false) => ((1..=row.len()).map(|i| format!("column_{i}")).collect(), false),
    };
    let used = bom + if has_header { records.at() } else { 0 };
    let lines = crate::formats::lines::count_newlines(&sample[..used]);
    sample.drain(..used);
    if !whole && let Some(end) = memchr::memrchr(b'\n', &sample) {
        sample.truncate(end + 1);
    }
    Ok(Head {
        names,
        skip: used as u64,
        lines,
        sample,
        renamed,
    })
}

/// Where a file has the schema's columns.
fn layout(
    head: &Head,
    schema: &Schema,
    input: &Input,
    declared: bool,
    missing: bool,
    extra: bool,
) -> Result<FileLayout, (Code, String)> {
    let cells: Vec<Option<usize>> = schema
        .fields()
        .iter()
        .map(|f| head.names.iter().position(|n| **n == *f.name))
        .collect();
    let absent: Vec<String> = schema
        .fields()
        .iter()
        .zip(&cells)
        .filter(|(_, c)| c.is_none())
        .map(|(f, _)| format!("`{}`", f.name))
        .collect();
    if !absent.is_empty() && !missing {
        let message = format!(
            "`{}` has no column {}; `missing: null` makes it null",
            input.path,
            absent.join(", ")
        );
        return Err((
            if declared {
                codes::MISSING_COLUMN
            } else {
                codes::FILES_DIFFER
            },
            message,
        ));
    }
    let more: Vec<String> = head
        .names
        .iter()
        .filter(|n| schema.position(n).is_none())
        .map(|n| format!("`{n}`"))
        .collect();
    if !more.is_empty() && (extra || !declared) {
        let than = if declared {
            "the schema does"
        } else {
            "the files before do"
        };
        let columns = if more.len() == 1 { "a column" } else { "columns" };
        let message = format!(
            "`{}` has {columns} {} that {than} not have",
            input.path,
            more.join(", ")
        );
        return Err((
            if declared {
                codes::EXTRA_COLUMN
            } else {
                codes::FILES_DIFFER
            },
            message,
        ));
    }
    Ok(FileLayout {
        width: head.names.len(),
        cells,
    })
}

fn bind_write(call: &Call<'_>, plan: &Plan<'_>, delimiter: u8) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let delimiter = options::byte(call, "delimiter", delimiter, &mut complaints);
    let has_header = call.option("header").is_none() || call.flag("header");
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let schema: Schema = call.own_fields().iter().cloned().collect();
    let path = options::paths(call)
        .first()
        .map_or_else(|| "-".to_string(), |p| (*p).to_string());
    Ok(Bound::keeps(
        call,
        vec![],
        sink(schema, path, plan.folder, call.flag("append"), has_header, delimiter),
    ))
}

/// A sink that writes rows of `schema` as CSV.
pub fn sink(schema: Schema, path: String, folder: &std::path::Path, append: bool, header: bool, delimiter: u8) -> Make {
    let header = if header {
        CsvEncoder::new(schema.clone(), delimiter).header()
    } else {
        Vec::new()
    };
    let encoder = move || Box::new(CsvEncoder::new(schema.clone(), delimiter)) as Box<dyn RowEncoder>;
    let plan = Arc::new(TextSinkPlan {
        path,
        folder: folder.into(),
        append,
        header,
        encoder: Box::new(encoder),
        notes: Box::new(Vec::new),
    });
    Make::Sink(Box::new(move |setup| TextSink::open(plan.clone(), setup)))
}
