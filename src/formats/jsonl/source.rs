//! `read jsonl`.

use super::decode::LinesOf;
use super::{Decoder, Reading, infer, merge};
use crate::formats::blocks::{BlockReader, Blocks, Framing, Known, Start};
use crate::formats::{codes, lines, options};
use standpipe_sdk::build::format_in;
use standpipe_sdk::spec::{Bound, Call, Complaint, Lineage, Make, Plan, Request};
use standpipe_sdk::{
    Arena, Batch, Column, Columns, Error, Fault, Faults, Field, Locator, Part, Place, Reader, Result, Schema, Source,
    Text, Type,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) fn bind_read(call: &Call<'_>, plan: &Plan<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let nulls = options::texts(call, "null", &mut complaints);
    let rows = options::infer_rows(call, &mut complaints);
    let declared = options::schema(call, &mut complaints).cloned();
    let extra_is_error = options::word(call, "extra", &["error"], &mut complaints).is_some();
    let check_all = options::check_all(call, &mut complaints);
    let inputs = options::inputs(call, plan, &mut complaints);
    let nulls = nulls
        .into_iter()
        .filter_map(|text| String::from_utf8(text).ok())
        .collect();
    let reading = Reading {
        nulls,
        extra_is_error,
        check_all,
    };
    let (mut schema, mut left) = (declared.clone(), rows);
    for input in &inputs {
        if declared.is_some() || left == 0 {
            break;
        }
        let mut newlines = 0;
        let enough = |bytes: &[u8], seen: usize| {
            newlines += lines::count_newlines(&bytes[seen..]);
            newlines >= left as u64
        };
        let inferred = input.sample(options::SAMPLE, enough).and_then(|(mut sample, whole)| {
            if sample.is_empty() {
                let message = format!("`{}` is empty; with `schema:` it would have no rows", input.path);
                return Err(Error::failed(codes::NO_SCHEMA, message));
            }
            if !whole && let Some(end) = memchr::memrchr(b'\n', &sample) {
                sample.truncate(end + 1);
            }
            if let Some((end, _)) = memchr::memchr_iter(b'\n', &sample)
                .enumerate()
                .map(|(i, at)| (at, i))
                .nth(left - 1)
            {
                sample.truncate(end + 1);
            }
            infer(&sample, &reading)
        });
        match inferred {
            Ok(found) => {
                left = left.saturating_sub(found.rows.max(1));
                schema = Some(schema.map_or_else(|| found.schema.clone(), |before| merge(&before, &found.schema)));
            }
            Err(Error::Failed { code, message, .. }) => {
                let message = if message.contains(&*input.path) {
                    message
                } else {
                    format!("`{}`: {message}", input.path)
                };
                complaints.push(options::about(call, code, message));
            }
            Err(error) => complaints.push(options::about(call, codes::UNREADABLE, error.to_string())),
        }
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let records = schema.unwrap_or_default();
    let mut fields: Vec<Field> = records.fields().to_vec();
    let has_path = call
        .text("file_column")
        .map(|name| fields.push(Field::new(name, Type::String, false)))
        .is_some();
    let schema = Schema::new(fields);
    let starts: Vec<Start> = inputs
        .into_iter()
        .map(|input| Start {
            input,
            skip: 0,
            lines: 0,
        })
        .collect();
    let ignored = Arc::new(AtomicU64::new(0));
    Ok(Bound {
        lineage: vec![Lineage::New; schema.width()],
        schema,
        reads: vec![],
        sorted_by: vec![],
        needs_places: false,
        make: Make::Source(Box::new(move |setup, request| {
            Ok(Arc::new(JsonSource {
                blocks: Blocks::new(starts.clone(), Framing::Lines, setup),
                schema: records.clone(),
                request: request.clone(),
                reading: reading.clone(),
                has_path,
                ignored: ignored.clone(),
                told: declared.is_some(),
            }) as Arc<dyn Source>)
        })),
    })
}

struct JsonSource {
    blocks: Arc<Blocks>,
    schema: Schema,
    request: Request,
    reading: Reading,
    /// The last column is the file's path.
    has_path: bool,
    ignored: Arc<AtomicU64>,
    /// Fields outside the schema are what the script asked for: nothing to tell.
    told: bool,
}

impl Source for JsonSource {
    fn ticket(&self) -> Option<u64> {
        self.blocks.ticket()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(JsonReader {
            decoder: Decoder::new(&self.schema, &self.request.columns, &self.reading),
            blocks: self.blocks.clone().reader(),
            source: self,
            at: 0,
            overlong: None,
        }))
    }

    fn total_bytes(&self) -> Option<u64> {
        self.blocks.total_bytes()
    }

    fn claimed_bytes(&self) -> u64 {
        self.blocks.claimed_bytes()
    }

    fn notes(&self) -> Vec<String> {
        match self.ignored.swap(0, Relaxed) {
            n if n > 0 && !self.told => vec![format!(
                "{n} values of fields that the sample did not have were ignored"
            )],
            _ => vec![],
        }
    }
}

struct JsonReader {
    source: Arc<JsonSource>,
    decoder: Decoder,
    blocks: BlockReader,
    /// Everything before this position of the buffer is decoded.
    at: usize,
    /// Offset and line of a record that is too long.
    overlong: Option<(u64, u64)>,
}

impl Reader for JsonReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        let some = self.blocks.claim(ticket)?;
        self.at = self.blocks.piece().from;
        self.overlong = self.blocks.take_overlong();
        Ok(some)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let JsonReader {
            source,
            decoder,
            blocks,
            at,
            overlong,
        } = self;
        let blocks: &'a BlockReader = blocks;
        let piece = blocks.piece();
        let faults = Faults::new(arena, stop_at_first);
        let locator = blocks.locator();
        let number = piece.file as u32;
        if let Some((offset, line)) = *overlong {
            let columns = arena.collect(source.schema.width() + usize::from(source.has_path), |_| {
                Column::nulls(1)
            })?;
            let places = arena.fill(
                1,
                Place {
                    source: number,
                    offset,
                    sub: 0,
                },
            )?;
            let message = format_in(
                arena,
                format_args!("the record is longer than {} bytes", blocks.max_record()),
            )?;
            faults.push(Fault {
                row: 0,
                code: codes::OVERLONG,
                span: None,
                column: None,
                message,
                help: None,
                byte: None,
                record: true,
            })?;
            *overlong = None;
            let locator = Locator {
                block: &[],
                offset,
                line,
                ..locator
            };
            return Ok(Part {
                batch: Batch::new(columns, Some(places), 1),
                faults,
                last: *at >= piece.to,
                locator,
            });
        }
        let text = &blocks.bytes()[*at..];
        let offset = piece.offset + (*at - piece.from) as u64;
        let places = source.request.places;
        let len = piece.to - *at;
        let known = piece.known.filter(|known| *at == piece.from && known.lines <= max_rows);
        let lines = match known {
            Some(Known { lines, ascii }) => LinesOf { lines, len, ascii },
            None => LinesOf::measure(&text[..len], max_rows),
        };
        // What a refused attempt ignored comes again.
        let ignored_before = decoder.ignored();
        let (batch, used) =
            decoder.decode_lines(text, lines, offset, number, arena, &faults, places || stop_at_first)?;
        let batch = if source.has_path {
            with_path(batch, blocks.path(), arena)?
        } else {
            batch
        };
        *at += used;
        source.ignored.fetch_add(decoder.ignored() - ignored_before, Relaxed);
        let last = *at >= piece.to || (stop_at_first && !faults.is_empty());
        Ok(Part {
            batch,
            faults,
            last,
            locator,
        })
    }
}

/// The batch with its file's path as one more column.
fn with_path<'a>(batch: Batch<'a>, path: &'a str, arena: &'a Arena) -> Result<Batch<'a>> {
    let mut columns = Columns::new(arena, batch.columns().len() + 1)?;
    for &column in batch.columns() {
        columns.push(column);
    }
    columns.push(Column::string(Text::repeat(path, batch.rows(), arena)?, None));
    Ok(batch.with_columns(columns.finish()))
}
