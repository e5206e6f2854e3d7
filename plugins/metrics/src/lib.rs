//! `metrics.lines`: rows as line protocol, the text that time-series databases read: `load,host=a busy=0.5,jobs=3i 1700000000000000000`.
//!
//! Laws
//! - What is written is read back as it was: what the format cannot say (no field at all, NaN, a line break in a tag) is a bad row, and
//!   never another value.
//! - A value that is null, and a tag that is empty, is left out: the format has no word for it.

mod text;

use standpipe_sdk::outlet::NewFile;
use standpipe_sdk::prelude::*;
use standpipe_sdk::{Cell, Code, Published};
use std::fmt::Write;
use std::sync::Arc;
use text::Bad;

/// Writes line protocol, which time-series databases read.
#[derive(Params)]
pub struct Lines {
    /// the file
    #[param(item)]
    path: String,
    /// the column with the time
    at: ColumnArg,
    /// what is measured, at the beginning of each line
    measurement: String,
    /// names of columns that are tags, with commas between; the others are fields
    #[param(default = "")]
    tags: String,
}

/// A value of an argument that cannot be.
const WRONG_VALUE: Code = Code(501);
/// A column has a type that the format has no word for.
const WRONG_TYPE: Code = Code(301);
/// A row that cannot be written.
const BAD_ROW: Code = Code(805);

/// A column and what stands before its values: `,host=` of a tag, `busy=` of a field.
struct Named {
    at: usize,
    before: String,
    /// Of a decimal.
    scale: u8,
}

impl Outlet for Lines {
    const NAME: &'static str = "lines";
    const EXAMPLES: &'static [Example] = &[Example {
        script: "use plugin metrics\nfrom rows [{at: @2026-01-31T00:00:00Z, host: \"a\", busy: 0.5}]\n  | write metrics.lines \"load.lp\", at measurement: \"load\", tags: \"host\"",
        output: "",
    }];

    fn bind(self, call: &Call<'_>) -> Result<Opening, Vec<Complaint>> {
        self.at.must_be(call, &Type::Timestamp)?;
        let span = |option: &str| call.option(option).map_or(call.span, |item| item.span);
        let wrong = |option: &str, message: String| vec![Complaint::new(WRONG_VALUE, span(option), message, "here")];
        let mut start = String::new();
        if self.measurement.is_empty() {
            return Err(wrong("measurement", "a measurement has a name".into()));
        }
        text::name(&self.measurement, &mut start).map_err(|what| wrong("measurement", format!("the name {what}")))?;
        let fields = &call.input.fields()[..call.own];
        let (mut tags, mut values): (Vec<Named>, Vec<Named>) = (vec![], vec![]);
        for tag in self.tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let found = fields.iter().position(|field| &*field.name == tag);
            let Some(at) = found.filter(|&at| at != self.at.at) else {
                return Err(wrong(
                    "tags",
                    format!("`{tag}` is none of the columns that can be a tag"),
                ));
            };
            if fields[at].ty != Type::String {
                return Err(wrong(
                    "tags",
                    format!("`{tag}` is {}, and a tag is string", fields[at].ty),
                ));
            }
            let before = named(",", tag).map_err(|what| wrong("tags", format!("the name `{tag}` {what}")))?;
            tags.push(Named { at, before, scale: 0 });
        }
        for (at, field) in fields.iter().enumerate() {
            if at == self.at.at || tags.iter().any(|tag| tag.at == at) {
                continue;
            }
            let scale = match field.ty {
                Type::Bool | Type::Int | Type::Float | Type::String => 0,
                Type::Decimal { scale, .. } => scale,
                ref other => {
                    let message = format!("`{}` is {other}, which no field can be", field.name);
                    let complaint = Complaint::new(WRONG_TYPE, call.span, message, "this writes all columns");
                    let help = match other {
                        Type::List(_) | Type::Record(_) | Type::Bytes => format!("`drop {}`", field.name),
                        _ => format!("`set {0} = string({0})`, or `drop {0}`", field.name),
                    };
                    return Err(vec![complaint.help(help)]);
                }
            };
            let before = named("", &field.name);
            let before = before.map_err(|what| {
                let message = format!("the name of the column `{}` {what}", field.name);
                vec![Complaint::new(
                    WRONG_VALUE,
                    call.span,
                    message,
                    "this writes all columns",
                )]
            })?;
            values.push(Named { at, before, scale });
        }
        if values.is_empty() {
            let message = "no column is left to be a field, and a line has at least one";
            return Err(vec![Complaint::new(WRONG_VALUE, call.span, message, "here")]);
        }
        let mut reads: Vec<usize> = tags.iter().chain(&values).map(|named| named.at).collect();
        reads.push(self.at.at);
        let shape = Arc::new(Shape {
            start,
            time: self.at.at,
            tags,
            values,
        });
        let path = self.path;
        let opening = Opening::new(reads, move |setup| {
            Ok(Box::new(Writing {
                shape: shape.clone(),
                file: NewFile::beside(&setup.folder, &path)?.sync(setup.sync),
                lines: String::new(),
                rows: 0,
            }))
        });
        Ok(opening.rejecting())
    }
}

/// `,host=`
fn named(before: &str, name: &str) -> Result<String, Bad> {
    let mut out = before.to_owned();
    text::key(name, &mut out)?;
    out.push('=');
    Ok(out)
}

/// What a line is made of.
struct Shape {
    start: String,
    time: usize,
    tags: Vec<Named>,
    values: Vec<Named>,
}

struct Writing {
    shape: Arc<Shape>,
    file: NewFile,
    /// Those of one batch: the file gets them once no row of it can come again.
    lines: String,
    rows: u64,
}

impl Shape {
    /// Writes one row.
    fn line(&self, batch: &Batch<'_>, row: usize, line: &mut String) -> Result<(), String> {
        line.push_str(&self.start);
        for tag in &self.tags {
            let Cell::String(value) = batch.column(tag.at).cell(row) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            line.push_str(&tag.before);
            text::key(value, line).map_err(|what| format!("the tag {value:?} {what}"))?;
        }
        let mut between = ' ';
        for value in &self.values {
            let cell = batch.column(value.at).cell(row);
            if matches!(cell, Cell::Null) {
                continue;
            }
            line.push(between);
            line.push_str(&value.before);
            text::field(cell, value.scale, line).map_err(|what| format!("the field `{}` {what}", value.before))?;
            between = ',';
        }
        if between == ' ' {
            return Err("it has no field: all are null".into());
        }
        match batch.column(self.time).cell(row) {
            Cell::Timestamp(micros) => match micros.checked_mul(1000) {
                // Writing to a string cannot fail.
                Some(nanos) => writeln!(line, " {nanos}").map_err(|error| error.to_string()),
                None => Err("its time does not fit into 64 bits of nanoseconds".into()),
            },
            _ => Err("it has no time".into()),
        }
    }
}

impl Output for Writing {
    fn write(&mut self, batch: Batch<'_>, faults: &Faults<'_>) -> Result<()> {
        let Writing {
            shape,
            file,
            lines,
            rows,
        } = self;
        lines.clear();
        let mut good = 0;
        for row in 0..batch.rows() {
            let start = lines.len();
            match shape.line(&batch, row, lines) {
                Ok(()) => good += 1,
                Err(what) => {
                    lines.truncate(start);
                    faults.report(row, BAD_ROW, None, format_args!("{what}"))?;
                }
            }
        }
        file.write_bytes(lines.as_bytes())?;
        *rows += good;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.file.finish()
    }

    fn publish(&mut self) -> Result<Vec<Published>> {
        Ok(vec![self.file.publish(self.rows)?])
    }

    fn discard(&mut self) {
        self.file.discard();
    }
}

standpipe_sdk::export! {
    id: "org.standpipe.metrics",
    sinks: [Lines],
}
