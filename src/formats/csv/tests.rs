//! The reader against csv-core and against itself under every cut of the text.

use super::*;
use proptest::prelude::*;
use standpipe_sdk::spec::{Arg, Item, Request, Setup, Wanted};
use standpipe_sdk::value::Cell;
use standpipe_sdk::{Arena, Budget, Error, Place, Result, Span, Value};
use std::sync::Mutex;

/// What came out: rows of cells as text, faults, places.
#[derive(Debug, PartialEq, Clone, Default)]
struct Seen {
    rows: Vec<Vec<Option<String>>>,
    faults: Vec<(usize, u16, String)>,
    places: Vec<(Place, Option<u64>)>,
}

struct Read<'a> {
    text: &'a [u8],
    options: Vec<(&'static str, Arg)>,
    wanted: Wanted,
    block: usize,
    rows: usize,
}

impl Default for Read<'_> {
    fn default() -> Self {
        Read {
            text: b"",
            options: vec![],
            wanted: Wanted::Yes,
            block: 1 << 16,
            rows: usize::MAX,
        }
    }
}

fn item(arg: Arg) -> Item {
    Item {
        name: None,
        arg,
        descending: false,
        span: Span::default(),
    }
}

fn strings(names: &[&str]) -> Arg {
    Arg::Type(Type::Record(
        names.iter().map(|n| Field::new(*n, Type::String, true)).collect(),
    ))
}

fn show(cell: Cell<'_>) -> Option<String> {
    Some(match cell {
        Cell::Null => return None,
        Cell::String(text) => text.to_string(),
        Cell::Verbatim(text) => String::from_utf8_lossy(text).into_owned(),
        Cell::Int(v) => v.to_string(),
        Cell::Float(v) => format!("{v:?}"),
        Cell::Bool(v) => v.to_string(),
        Cell::Date(v) => format!("day {v}"),
        Cell::Timestamp(v) => format!("us {v}"),
        Cell::Decimal(v) => format!("dec {v}"),
        other => format!("{other:?}"),
    })
}

fn bind(read: &Read<'_>, folder: &std::path::Path) -> Result<Bound, Vec<String>> {
    std::fs::write(folder.join("t.csv"), read.text).unwrap();
    let options: Vec<(&'static str, Item)> = read.options.iter().map(|(n, a)| (*n, item(a.clone()))).collect();
    let items = [item(Arg::Const(Value::String("t.csv".into())))];
    let input = Schema::default();
    let call = Call {
        input: &input,
        own: 0,
        streams: &[],
        beside: None,
        mode: Some("csv"),
        items: &items,
        by: &[],
        on: &[],
        as_name: None,
        options: &options,
        columns: &[],
        span: Span::default(),
    };
    let plan = Plan {
        folder,
        look: true,
        warn: &|_| {},
    };
    bind_read(&call, &plan, b',').map_err(|all| all.into_iter().map(|c| format!("{} {}", c.code, c.message)).collect())
}

fn read(read: &Read<'_>) -> Result<Seen, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let bound = bind(read, folder.path())?;
    let Make::Source(make) = bound.make else {
        panic!("a source")
    };
    let setup = Setup {
        budget: Budget::new(1 << 30),
        spill: standpipe_sdk::Spill::anywhere(),
        share: 1 << 24,
        workers: 1,
        chunk_bytes: read.block,
        max_record: 1 << 20,
        sync: false,
        folder: std::path::Path::new("").into(),
        cancelled: Arc::default(),
        say: Arc::new(|_| {}),
        asked: standpipe_sdk::spec::Asked::default(),
    };
    let request = Request {
        columns: vec![read.wanted.clone(); bound.schema.width()],
        places: true,
    };
    let source = make(&setup, &request).unwrap();
    let mut reader = source.clone().reader().unwrap();
    let mut arena = Arena::new(1 << 24);
    arena.set_poison(true);
    let mut seen = Seen::default();
    while let Some(ticket) = source.ticket() {
        let mut more = reader.claim(ticket).unwrap();
        while more {
            let part = reader.decode(&arena, read.rows, false).unwrap();
            let before = seen.rows.len();
            for row in 0..part.batch.rows() {
                seen.rows
                    .push(part.batch.columns().iter().map(|c| show(c.cell(row))).collect());
                let place = part.batch.place(row);
                seen.places.push((place, part.locator.line_of(place)));
            }
            for fault in part.faults.by_row().unwrap() {
                seen.faults
                    .push((before + fault.row as usize, fault.code.0, fault.message.to_string()));
            }
            more = !part.last;
            arena.reset();
        }
    }
    Ok(seen)
}

/// The records csv-core finds, each with its cells.
fn oracle(text: &[u8]) -> Vec<Vec<String>> {
    let mut core = csv_core::ReaderBuilder::new()
        .terminator(csv_core::Terminator::Any(b'\n'))
        .build();
    let mut text = text.to_vec();
    if !text.is_empty() && text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    let (mut rows, mut out, mut ends) = (vec![], vec![0; text.len() + 64], vec![0; text.len() + 64]);
    let mut rest = text.as_slice();
    loop {
        let (result, used, _, cells) = core.read_record(rest, &mut out, &mut ends);
        rest = &rest[used..];
        if matches!(result, csv_core::ReadRecordResult::End) {
            return rows;
        }
        if matches!(result, csv_core::ReadRecordResult::InputEmpty) {
            return rows;
        }
        rows.push(cells_of(&out, &ends[..cells]));
    }
}

fn cells_of(out: &[u8], ends: &[usize]) -> Vec<String> {
    let mut start = 0;
    ends.iter()
        .map(|&end| String::from_utf8_lossy(&out[std::mem::replace(&mut start, end)..end]).into_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cells_are_those_of_csv_core(text in "([ab5,]|\"|\"\"|\"a,b\"|\n|\"x\ny\",){0,40}", block in 1usize..60, rows in 1usize..5) {
        let mut whole = b"a,b\n".to_vec();
        whole.extend_from_slice(text.as_bytes());
        let seen = read(&Read {
            text: &whole, options: vec![("schema", strings(&["a", "b"]))], block, rows, ..Read::default()
        }).unwrap();
        let open = index::scan_exact(index::State::FieldStart, &whole, b',').end == index::State::Quoted;
        let want = oracle(&whole[4..]);
        let good: Vec<Vec<String>> = seen.rows.iter().enumerate()
            .filter(|(i, _)| !seen.faults.iter().any(|f| f.0 == *i))
            .map(|(_, r)| r.iter().map(|c| c.clone().unwrap_or_default()).collect())
            .collect();
        let even: Vec<Vec<String>> = want.iter().filter(|r| r.len() == 2).cloned().collect();
        prop_assert_eq!(&good, &even);
        let ragged = want.len() - even.len();
        prop_assert_eq!(seen.faults.iter().filter(|f| f.1 == codes::RAGGED.0).count(), ragged);
        prop_assert_eq!(seen.faults.len(), ragged + usize::from(open));
    }

    #[test]
    fn no_cut_changes_rows_faults_or_places(
        text in prop::collection::vec(prop::sample::select(&b"a1,\"\n\r\xff\xc3\xa9"[..]), 0..80),
        block in 1usize..90, rows in 1usize..6, wanted in prop::sample::select(vec![Wanted::Yes, Wanted::Text]),
        pad in any::<bool>(),
    ) {
        let mut whole = b"a,b,c\n".to_vec();
        whole.extend_from_slice(&text);
        let schema = Arg::Type(Type::Record(Schema::new(vec![
            Field::new("a", Type::Int, true), Field::new("b", Type::String, false), Field::new("c", Type::Float, true),
        ])));
        let mut options = vec![("schema", schema)];
        if pad {
            options.push(("ragged", Arg::Word("pad".into())));
        }
        let once = Read { text: &whole, options, wanted, ..Read::default() };
        let want = read(&once).unwrap();
        let got = read(&Read { block, rows, ..once }).unwrap();
        prop_assert_eq!(got, want);
    }
}

fn rows(text: &str, options: Vec<(&'static str, Arg)>) -> String {
    match read(&Read {
        text: text.as_bytes(),
        options,
        ..Read::default()
    }) {
        Err(complaints) => complaints.join("\n"),
        Ok(seen) => {
            let cell = |c: &Option<String>| c.clone().unwrap_or_else(|| "null".into());
            let mut lines: Vec<String> = seen
                .rows
                .iter()
                .map(|r| r.iter().map(cell).collect::<Vec<_>>().join("|"))
                .collect();
            lines.extend(
                seen.faults
                    .iter()
                    .map(|(row, code, text)| format!("row {row}: E{code:04} {text}")),
            );
            lines.join("\n")
        }
    }
}

#[test]
fn each_kind_of_text_has_an_outcome() {
    let word = |name: &'static str, value: &str| (name, Arg::Word(value.into()));
    assert_eq!(rows("a,b\r\n1,\"x\"\"y\"\r\n,\"\"\r\n", vec![]), "1|x\"y\nnull|");
    assert_eq!(rows("\u{FEFF}a,b\n1,2", vec![]), "1|2");
    assert_eq!(
        rows("a,b\n1,2\n1\n1,2,3\n\n3,4\n", vec![]),
        "1|2\nnull|null\nnull|null\n3|4\nrow 1: E0407 the row has 1 cell, the header has 2\nrow 2: E0407 the row has 3 cells, the header has 2"
    );
    assert_eq!(
        rows("a,b,c\n1\r\n1,2\r\n", vec![word("ragged", "pad")]),
        "1|null|null\n1|2|null"
    );
    assert_eq!(rows("a,b\n", vec![]), "");
    assert_eq!(rows("a,b", vec![]), "");
    assert_eq!(
        rows("", vec![]),
        "E0604 `t.csv` is empty; with `schema:` it would have no rows"
    );
    assert_eq!(rows("", vec![("schema", strings(&["a"]))]), "");
    let json = Arg::Type(Type::Record([Field::new("j", Type::Json, true)].into_iter().collect()));
    assert_eq!(
        rows(
            "j\n\"{\"\"a\"\": [1,\n2]}\"\n\"\"\"x\"\"\"\n\n7\n{x}\n[1\n",
            vec![("schema", json)]
        ),
        concat!(
            "Json(\"{\\\"a\\\": [1,\\n2]}\")\nJson(\"\\\"x\\\"\")\nnull\nJson(\"7\")\nnull\nnull\n",
            "row 4: E0412 cannot parse json from \"{x}\"\nrow 5: E0412 cannot parse json from \"[1\""
        )
    );
    assert_eq!(rows("a\n\n1\n", vec![]), "null\n1");
    assert_eq!(
        rows("a,b\n1,\"open\n2,3\n", vec![]),
        "null|null\nrow 0: E0409 the quotes are not closed"
    );
    assert_eq!(rows("a,b\n1,5\" pipe\n2,x\n", vec![]), "1|5\" pipe\n2|x");
    assert_eq!(
        rows("1,2\n3,4\n", vec![("header", Arg::Const(Value::Bool(false)))]),
        "1|2\n3|4"
    );
    assert_eq!(
        rows(
            "a,b\nNA,x\n1,NA\n",
            vec![("null", Arg::Const(Value::List(vec![Value::String("NA".into())])))]
        ),
        "null|x\n1|null"
    );
    assert_eq!(
        rows("a\n1\n", vec![("schema", strings(&["b"]))]),
        "E0605 `t.csv` has no column `b`; `missing: null` makes it null"
    );
    assert_eq!(
        rows(
            "a\n1\n",
            vec![("schema", strings(&["b", "a"])), word("missing", "null")]
        ),
        "null|1"
    );
    assert_eq!(
        rows("a,b\n1,2\n", vec![("schema", strings(&["b"])), word("extra", "error")]),
        "E0606 `t.csv` has a column `a` that the schema does not have"
    );
    assert_eq!(rows("a,a,\n1,2,3\n", vec![word("file_column", "src")]), "1|2|3|t.csv");
    let typed = |ty: Type, nullable: bool| {
        (
            "schema",
            Arg::Type(Type::Record(Schema::new(vec![Field::new("a", ty, nullable)]))),
        )
    };
    assert_eq!(
        rows("a\n12,5\n", vec![typed(Type::Int, true)]),
        "null\nrow 0: E0407 the row has 2 cells, the header has 1"
    );
    assert_eq!(
        rows("a\n\"12,5O\"\n7\n\"8\"\n", vec![typed(Type::Int, true)]),
        "null\n7\n8\nrow 0: E0412 cannot parse int from \"\"12,5O\"\""
    );
    assert_eq!(
        rows(
            "a\n1.50\n1.555\n",
            vec![typed(
                Type::Decimal {
                    precision: 10,
                    scale: 2
                },
                true
            )]
        ),
        "dec 150\nnull\nrow 1: E0412 cannot parse decimal(10,2) from \"1.555\""
    );
    assert_eq!(
        rows(
            "a,b\n,1\n",
            vec![(
                "schema",
                Arg::Type(Type::Record(Schema::new(vec![Field::new("a", Type::Int, false)])))
            )]
        ),
        "null\nrow 0: E0406 `a` is null and must not be"
    );
    assert_eq!(
        rows("a\n2026-01-31 10:00:00.5\n1969-12-31T23:59:59Z\n", vec![]),
        "us 1769853600500000\nus -1000000"
    );
}

#[test]
fn every_refused_allocation_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"a,b,c\n1,\"x\"\"yyyyyyyyyyyyyyy\",2\n2\n3,\"zz\",x\n".as_slice();
    let plan = Read {
        text,
        ..Read::default()
    };
    let want = read(&plan).unwrap();
    let bound = bind(&plan, folder.path()).unwrap();
    let Make::Source(make) = bound.make else {
        panic!("a source")
    };
    for refused in 0..60 {
        let setup = Setup {
            budget: Budget::new(1 << 30),
            spill: standpipe_sdk::Spill::anywhere(),
            share: 1 << 24,
            workers: 1,
            chunk_bytes: 1 << 16,
            max_record: 1 << 20,
            sync: false,
            folder: std::path::Path::new("").into(),
            cancelled: Arc::default(),
            say: Arc::new(|_| {}),
            asked: standpipe_sdk::spec::Asked::default(),
        };
        let request = Request {
            columns: vec![Wanted::Yes; bound.schema.width()],
            places: true,
        };
        let source = make(&setup, &request).unwrap();
        let mut reader = source.clone().reader().unwrap();
        let mut arena = Arena::new(1 << 24);
        let rows = Mutex::new(Vec::new());
        while let Some(ticket) = source.ticket() {
            let mut more = reader.claim(ticket).unwrap();
            arena.refuse_after(refused);
            while more {
                match reader.decode(&arena, usize::MAX, false) {
                    Ok(part) => {
                        more = !part.last;
                        for row in 0..part.batch.rows() {
                            rows.lock().unwrap().push(
                                part.batch
                                    .columns()
                                    .iter()
                                    .map(|c| show(c.cell(row)))
                                    .collect::<Vec<_>>(),
                            );
                        }
                    }
                    Err(Error::Memory { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                arena.reset();
            }
        }
        assert_eq!(rows.into_inner().unwrap(), want.rows, "after {refused}");
    }
}
