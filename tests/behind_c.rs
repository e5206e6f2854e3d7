//! Built-in stages behind the C interface give what they give without it: nothing is privileged.
#![allow(unsafe_code, clippy::unwrap_used)]

use standpipe::runtime::settings::Hooks;
use standpipe::{Engine, Failure, plugin};
use standpipe_sdk::guest::{self, Guest, describe};
use standpipe_sdk::origin::{Next, OriginSpec, Split, Splits};
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, FormatSide, FormatSpec, Items, Kind, Make, Memory, Plan, Request, StageSpec,
    Want, Wanted,
};
use standpipe_sdk::{Arena, Batch, Column, Columns, Error, Reader, Result, Schema, Source, Value, ffi, values};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Text of a table, for good.
fn text(text: &str) -> &'static [u8] {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Vec::leak(bytes)
}

fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn stage(spec: &'static StageSpec, name: &str) -> &'static Guest {
    let params = describe::stage_params::<8192>(spec);
    forever(Guest::stage(
        spec,
        text(name),
        text(spec.about),
        Vec::leak(params.to_vec()),
    ))
}

fn contents(guests: Vec<&'static Guest>, prefix: &str) -> standpipe::plugin::Contents {
    let table = guest::plugin(text("test"), text("1.0.0"), text(""), text(""), Vec::leak(guests));
    // The hook for panics would be the test's own.
    let table = ffi::Plugin { init: None, ..table };
    // SAFETY: the table and everything in it is leaked; the SDK keeps to the header.
    unsafe { plugin::contents_of(forever(table), "", prefix) }.unwrap_or_else(|error| panic!("{error}"))
}

/// The stages that run behind the C interface. Others are of kinds that do not cross it, or take what does not: streams, aggregates,
/// conditions on pairs of rows; places beyond the batch; or say what they do to people.
const BEHIND_C: &[&str] = &[
    "cast", "dedup", "derive", "drop", "each", "fill", "filter", "flatten", "number", "rename", "select", "set",
    "skip", "take", "unnest", "unpivot",
];

fn rows(
    script: &str,
    stages: &[&'static StageSpec],
    workers: usize,
    chunk_rows: Option<usize>,
) -> std::result::Result<Vec<String>, Failure> {
    run(script, stages, &[], workers, chunk_rows)
}

fn run(
    script: &str,
    stages: &[&'static StageSpec],
    formats: &[&'static FormatSpec],
    workers: usize,
    chunk_rows: Option<usize>,
) -> std::result::Result<Vec<String>, Failure> {
    let hooks = Hooks {
        chunk_rows,
        poison: true,
        ..Hooks::default()
    };
    let mut builder = Engine::builder().workers(workers).hooks(hooks);
    for spec in stages {
        builder = builder.stage(spec);
    }
    for spec in formats {
        builder = builder.format(spec);
    }
    let mut pipeline = builder.build().compile("test.pipe", script)?;
    let mut out = vec![];
    pipeline.run_with(|schema, batch| {
        if out.is_empty() {
            out.push(schema.to_string());
        }
        for row in 0..batch.rows() {
            let cells = batch.columns().iter().map(|column| shown(*column, row));
            out.push(cells.collect::<Vec<_>>().join(" | "));
        }
        Ok(())
    })?;
    Ok(out)
}

fn shown(column: Column<'_>, row: usize) -> String {
    match column.cell(row) {
        standpipe::Cell::List(list) => {
            let cells: Vec<String> = (0..list.len()).map(|row| shown(list, row)).collect();
            format!("[{}]", cells.join(", "))
        }
        standpipe::Cell::Record(columns, row) => {
            let cells: Vec<String> = columns.iter().map(|column| shown(*column, row)).collect();
            format!("{{{}}}", cells.join(", "))
        }
        cell => format!("{cell:?}"),
    }
}

#[test]
fn built_in_stages_give_the_same_behind_the_c_interface() {
    let built_in = |name: &&str| {
        let found = standpipe::stages::list::list().iter().find(|spec| spec.name == *name);
        *found.unwrap_or_else(|| panic!("no stage {name}"))
    };
    let specs: Vec<&'static StageSpec> = BEHIND_C.iter().map(built_in).collect();
    let guests = specs
        .iter()
        .map(|spec| stage(spec, &format!("c_{}", spec.name)))
        .collect();
    let behind = contents(guests, "").stages;
    let mut tried = 0;
    for spec in &specs {
        for example in spec
            .examples
            .iter()
            .filter(|example| !example.script.contains("on error"))
        {
            let with_c = example
                .script
                .replace(&format!("| {}", spec.name), &format!("| c_{}", spec.name));
            assert_ne!(with_c, example.script);
            for (workers, chunk_rows) in [(1, None), (3, Some(1)), (1, Some(2))] {
                let want = rows(example.script, &[], workers, chunk_rows);
                let got = rows(&with_c, &behind, workers, chunk_rows);
                match (want, got) {
                    (Ok(want), Ok(got)) => assert_eq!(got, want, "{with_c}"),
                    (Err(_), Err(_)) => {}
                    (Ok(_), Err(error)) => panic!("{with_c}\n{error}"),
                    (Err(_), Ok(_)) => panic!("{with_c}\nno error"),
                }
            }
            tried += 1;
        }
    }
    assert!(tried > BEHIND_C.len(), "{tried} examples only");
    for name in ["sort", "aggregate", "join", "tee", "read"] {
        let spec = built_in(&name);
        assert!(!matches!(spec.kind, Kind::RowWise), "`{name}` could be in the list");
    }
}

#[test]
fn long_inputs_go_through_several_calls() {
    let specs: Vec<&'static StageSpec> = standpipe::stages::list::list().to_vec();
    let pick = |name: &str| *specs.iter().find(|spec| spec.name == name).unwrap();
    let guests = ["filter", "derive", "number", "take"].map(|name| stage(pick(name), &format!("d_{name}")));
    let behind = contents(guests.to_vec(), "").stages;
    let plain = "from range(1, 30000) | derive t = f\"text number {value}, long enough\" | filter value % 3 == 1 | number as n | take 9000";
    let with_c = plain
        .replace("| derive", "| d_derive")
        .replace("| filter", "| d_filter")
        .replace("| number", "| d_number")
        .replace("| take", "| d_take");
    let want = rows(plain, &[], 1, None).unwrap();
    assert_eq!(want.len(), 9001);
    for workers in [1, 4] {
        assert!(
            rows(&with_c, &behind, workers, None).unwrap() == want,
            "{workers} workers"
        );
    }
}

/// A format's way out as a sink of a plugin, bound to paths in `folder`.
fn sink(format: &'static str, folder: &'static std::path::Path) -> &'static Guest {
    let found = standpipe::formats::list().iter().find(|it| it.name == format);
    let side = found.and_then(|it| it.write.as_ref()).unwrap();
    let bind = forever(move |call: &Call<'_>| {
        (side.bind)(
            call,
            &Plan {
                folder,
                look: true,
                warn: &|_| {},
            },
        )
    });
    let spec = forever(StageSpec {
        name: "to",
        about: "Writes a file",
        kind: Kind::Sink,
        modes: Vec::leak(vec![format]),
        items: Items::some(ArgKind::Const(Want::String), 1, 1, "the path"),
        options: side.options,
        memory: Memory::Batch,
        bind,
        ..StageSpec::BASE
    });
    let params = describe::stage_params::<8192>(spec);
    forever(Guest::sink(
        spec,
        text("to"),
        text(spec.about),
        Vec::leak(params.to_vec()),
    ))
}

#[test]
fn built_in_formats_write_the_same_bytes_behind_the_c_interface() {
    let folder = tempfile::tempdir().unwrap();
    let path: &'static std::path::Path = forever(folder.path().to_owned());
    let rows = "from range(1, 20000) | derive t = f\"text, number {value}\", h = if value % 3 == 0 then null else value / 2, \
        l = [value, null] | filter value % 7 != 1";
    for format in ["csv", "tsv", "jsonl"] {
        let behind = contents(vec![sink(format, path)], "").sinks[0];
        let run = |script: &str, workers: usize| {
            let engine = Engine::builder().workers(workers).folder(path).chunk_bytes(16 << 10);
            let report = engine.stage(behind).build().compile("test.pipe", script)?.run()?;
            let output = report.outputs[0].clone();
            Ok::<_, Failure>((output.path, output.rows, output.bytes))
        };
        let read = |name: &str| std::fs::read(path.join(name)).unwrap();
        for name in ["out", "out.gz", "out.zst"] {
            let want = run(&format!("{rows} | write {format} \"{name}\""), 1).unwrap();
            let bytes = read(name);
            for workers in [1, 3] {
                std::fs::remove_file(path.join(name)).unwrap();
                let got = run(&format!("{rows} | to {format} \"{name}\""), workers);
                assert_eq!(got.unwrap_or_else(|error| panic!("{error}")), want, "{format}");
                assert!(read(name) == bytes, "{format}, {name}, {workers} workers");
            }
        }
        let fails = format!("from range(1, 9000) | derive x = 1 / (value - 8999) | to {format} \"never\"");
        assert!(run(&fails, 2).is_err());
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 3, "something is left");
    }
}

/// A built-in source as the splits of a plugin's. A split may be asked for the same rows again, so it keeps those that have not arrived.
struct Claims {
    reader: Box<dyn Reader>,
    schema: Schema,
    /// The claims that are still to be read.
    claims: Box<dyn Iterator<Item = u64> + Send>,
    kept: VecDeque<Vec<Value>>,
}

impl Split for Claims {
    fn next<'a>(&mut self, arena: &'a Arena, max_rows: usize) -> Result<Next<'a>> {
        while self.kept.is_empty() {
            let Some(claim) = self.claims.next() else {
                return Ok(Next::End);
            };
            let mut last = !self.reader.claim(claim)?;
            while !last {
                let own = Arena::new(64 << 20);
                let part = self.reader.decode(&own, 1000, false)?;
                if let Some(fault) = part.faults.by_row()?.first() {
                    return Err(Error::failed(fault.code, fault.message));
                }
                self.kept.extend(values::rows(&part.batch, &self.schema));
                last = part.last;
            }
            self.reader.let_go();
        }
        let rows = self.kept.len().min(max_rows);
        let rows = &self.kept.make_contiguous()[..rows];
        let mut columns = Columns::new(arena, self.schema.width())?;
        for (at, field) in self.schema.fields().iter().enumerate() {
            columns.push(values::cells(&field.ty, rows, at, arena)?);
        }
        Ok(Next::Rows(Batch::new(columns.finish(), None, rows.len())))
    }

    fn advance(&mut self, rows: usize) {
        self.kept.drain(..rows);
    }
}

/// The splits of a built-in source: one per claim if they are known before anything is read, or one with all of them.
fn splits(bound: Bound, known: bool) -> Splits {
    let Make::Source(make) = bound.make else {
        panic!("a source")
    };
    let schema = bound.schema;
    let request = Request {
        columns: vec![Wanted::Yes; schema.width()],
        places: false,
    };
    let tickets = |source: &Arc<dyn Source>| std::iter::from_fn(|| source.ticket()).count() as u32;
    let count = match known {
        true => tickets(&make(&standpipe_sdk::testing::setup(64 << 20), &request).unwrap()).max(1),
        false => 1,
    };
    Splits {
        schema: schema.clone(),
        count,
        open: Box::new(move |setup, split| {
            let source = make(setup, &request)?;
            let from = source.clone();
            let all = std::iter::from_fn(move || from.ticket());
            Ok(Box::new(Claims {
                reader: source.reader()?,
                schema: schema.clone(),
                claims: match known {
                    true => Box::new(all.skip(split as usize).take(1)),
                    false => Box::new(all),
                },
                kept: VecDeque::new(),
            }))
        }),
    }
}

/// The sources that run behind the C interface: the formats, and the numbers from 1 on.
const SOURCES: [&str; 4] = ["csv", "tsv", "jsonl", "range"];

fn side(format: &str) -> &'static FormatSide {
    let found = standpipe::formats::list().iter().find(|it| it.name == format);
    found.and_then(|it| it.read.as_ref()).unwrap()
}

/// A built-in source as one of a plugin.
fn source(name: &'static str) -> &'static Guest {
    let is_format = name != "range";
    let bind = forever(move |call: &Call<'_>| {
        if !is_format {
            let Arg::Const(Value::String(last)) = &call.items[0].arg else {
                panic!("a number")
            };
            let last = last.parse().unwrap();
            return Ok(splits(standpipe::stages::from::range(1, last), true));
        }
        let plan = Plan {
            folder: std::path::Path::new(""),
            look: true,
            warn: &|_| {},
        };
        (side(name).bind)(call, &plan).map(|bound| splits(bound, false))
    });
    let spec = forever(OriginSpec {
        stage: StageSpec {
            name,
            about: "Rows of a file",
            kind: Kind::Source,
            modes: Vec::leak(vec![forever(format!("c_{name}")).as_str()]),
            items: Items::some(ArgKind::Const(Want::String), 1, 1, "the path"),
            options: if is_format { side(name).options } else { &[] },
            memory: Memory::Batch,
            ..StageSpec::BASE
        },
        snapshots: false,
        bind,
    });
    let params = describe::stage_params::<8192>(&spec.stage);
    forever(Guest::source(
        spec,
        text(name),
        text("Rows of a file"),
        Vec::leak(params.to_vec()),
    ))
}

/// Formats whose way in is a source behind the C interface.
fn formats_behind() -> Vec<&'static FormatSpec> {
    static BEHIND: OnceLock<Vec<&'static StageSpec>> = OnceLock::new();
    fn behind<const AT: usize>(call: &Call<'_>, _: &Plan<'_>) -> std::result::Result<Bound, Vec<Complaint>> {
        let all = BEHIND.get_or_init(|| contents(SOURCES.iter().map(|name| source(name)).collect(), "").sources);
        (all[AT].bind)(call)
    }
    let binds = [behind::<0>, behind::<1>, behind::<2>, behind::<3>];
    let format = |(name, bind): (&&'static str, _)| -> &'static FormatSpec {
        forever(FormatSpec {
            name: forever(format!("c_{name}")),
            about: "",
            extensions: &[],
            read: Some(FormatSide {
                options: if *name == "range" { &[] } else { side(name).options },
                bind,
            }),
            write: None,
        })
    };
    SOURCES.iter().zip(binds).map(format).collect()
}

#[test]
fn built_in_sources_give_the_same_rows_behind_the_c_interface() {
    let formats = formats_behind();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let rows = "from range(1, 20000) | derive t = f\"text, number {value}\", h = if value % 3 == 0 then null else value / 2, \
        d = date(\"2024-01-01\") | filter value % 7 != 1";
    for format in ["csv", "tsv", "jsonl"] {
        for name in ["in", "in.gz"] {
            let path = path(&format!("{name}.{format}"));
            let engine = Engine::builder().build();
            let write = format!("{rows} | write {format} \"{path}\"");
            engine.compile("test.pipe", &write).unwrap().run().unwrap();
            // All columns are looked at: others may come as they stand in the file.
            let read = |format: &str| {
                format!(
                    "read {format} \"{path}\" | derive x = h ?? 0 \
                     | filter value % 5 < 3 and t != \"\" and string(d) != \"\""
                )
            };
            let want = run(&read(format), &[], &[], 1, None).unwrap();
            assert!(want.len() > 10_000, "{}", want.len());
            let c = format!("c_{format}");
            for (workers, chunk_rows) in [(1, None), (3, None), (2, Some(777))] {
                let got = run(&read(&c), &[], &formats, workers, chunk_rows).unwrap_or_else(|error| panic!("{error}"));
                assert!(got == want, "{format}, {name}, {workers} workers");
            }
        }
    }
    // Options come through, and what cannot be read is an error.
    let odd = path("odd.csv");
    std::fs::write(&odd, "a;b\n1;x\n-;y\n").unwrap();
    for tail in ["delimiter: \";\", null: [\"-\"]", "delimiter: \";\", header: false"] {
        let read = |format: &str| {
            run(
                &format!("read {format} \"{odd}\" {tail} | distinct"),
                &[],
                &formats,
                1,
                None,
            )
        };
        assert_eq!(read("c_csv").unwrap(), read("csv").unwrap(), "{tail}");
    }
    let bad = path("bad.jsonl");
    std::fs::write(&bad, "{\"a\": 1}\n{\"a\": \n").unwrap();
    for format in ["jsonl", "c_jsonl"] {
        assert!(
            run(&format!("read {format} \"{bad}\""), &[], &formats, 1, None).is_err(),
            "{format}"
        );
    }
    // Many splits at once.
    let want = run("from range(1, 100000) | filter value % 3 == 0", &[], &[], 1, None).unwrap();
    for (workers, chunk_rows) in [(1, None), (4, None), (3, Some(777))] {
        let script = "read c_range \"100000\" | filter value % 3 == 0";
        let got = run(script, &[], &formats, workers, chunk_rows).unwrap_or_else(|error| panic!("{error}"));
        assert!(got == want, "{workers} workers");
    }
}
