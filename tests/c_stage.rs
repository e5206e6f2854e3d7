//! Stages written in C, behind the header, in whole scripts: what the traits and the vtable must both be able to say.
#![cfg(unix)]
#![allow(unsafe_code, clippy::unwrap_used)]

use standpipe::engine::{Engine, Failure};
use standpipe::plugin;
use standpipe::runtime::settings::Hooks;
use standpipe::stages::values;
use standpipe_sdk::spec::StageSpec;
use standpipe_sdk::{Arena, Cell, Column, Error, Field, Item, Kept, Schema, Type, Value, ffi};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Runs a compiler, or says how to get one.
fn compile(compiler: &str, arguments: &[&str]) {
    let output = match Command::new(compiler).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("`{compiler}` does not run ({error}); `apt-get install build-essential` installs it"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {arguments:?}\n{text}");
}

const INCLUDE: &str = "plugins/sdk/include";
const HEADER: &str = "plugins/sdk/include/standpipe_plugin.h";
const STRICT: [&str; 4] = ["-std=c99", "-pedantic", "-Wall", "-Werror"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Builds `tests/c_stage/NAME.c`, loads it for good, and gives its stages.
fn stages(name: &str) -> Vec<&'static StageSpec> {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join(format!("lib{name}.so"));
    let source = format!("tests/c_stage/{name}.c");
    let mut arguments = STRICT.to_vec();
    arguments.extend([
        "-Wextra",
        "-shared",
        "-fPIC",
        "-I",
        INCLUDE,
        "-o",
        text(&library),
        &source,
    ]);
    compile("cc", &arguments);
    // SAFETY: the library is ours, and is never unloaded: the handle is leaked.
    unsafe {
        let flags = libloading::os::unix::RTLD_NOW | libloading::os::unix::RTLD_LOCAL;
        let library = libloading::os::unix::Library::open(Some(&library), flags).unwrap();
        let library = Box::leak(Box::new(library));
        let entry = library.get::<ffi::Entry>(ffi::ENTRY_SYMBOL.as_bytes()).unwrap();
        let found = entry();
        assert_eq!(found, entry(), "the same pointer every time");
        plugin::stages_of(found.as_ref().unwrap(), &source).unwrap()
    }
}

#[test]
fn the_header_is_c99_and_cpp11() {
    let mut arguments = vec!["-x", "c", "-fsyntax-only", HEADER];
    arguments.extend(STRICT);
    compile("cc", &arguments);
    if Command::new("c++").arg("--version").output().is_ok() {
        compile(
            "c++",
            &[
                "-x",
                "c++",
                "-std=c++11",
                "-pedantic",
                "-Wall",
                "-Werror",
                "-fsyntax-only",
                HEADER,
            ],
        );
    }
}

/// What Rust thinks of the structs, and a C program that prints what C thinks of them.
macro_rules! layouts {
    ($($rust:ty = $c:literal { $($field:ident),* })*) => {{
        let (mut rust, mut c) = (String::new(), String::new());
        $(
            let _ = writeln!(rust, "{} {}", $c, size_of::<$rust>());
            let _ = writeln!(c, "printf(\"{} %zu\\n\", sizeof({}));", $c, $c);
            $(
                let field = stringify!($field);
                let _ = writeln!(rust, "{}.{field} {}", $c, std::mem::offset_of!($rust, $field));
                let _ = writeln!(c, "printf(\"{}.{field} %zu\\n\", offsetof({}, {field}));", $c, $c);
            )*
        )*
        (rust, c)
    }};
}

#[test]
fn rust_and_c_agree_on_every_layout() {
    let (rust, c) = layouts! {
        ffi::ArrowSchema = "struct ArrowSchema" {
            format, name, metadata, flags, n_children, children, dictionary, release, private_data
        }
        ffi::ArrowArray = "struct ArrowArray" {
            length, null_count, offset, n_buffers, n_children, buffers, children, dictionary, release, private_data
        }
        ffi::Str = "sp_str" { ptr, len }
        ffi::ErrorOut = "sp_error" { struct_size, flags, row, column, retry_ms, param, message }
        ffi::Host = "sp_host" {
            struct_size, abi_major, abi_minor, reserved, name, version, alloc, grow, arena_release, emit, reject, reserve, log,
            cancelled, extension
        }
        ffi::Call = "sp_call" { struct_size, input_port, host, owner, batch_seq, max_rows, folder, run_flags, reserved }
        ffi::BindIn = "sp_bind_in" { struct_size, n_inputs, inputs, config_json, max_workers, flags, n_own, reserved }
        ffi::BindOut = "sp_bind_out" {
            struct_size, flags, schema, bound, parallelism, n_splits, key_columns, n_keys, max_workers, used_columns,
            n_used_columns, memory, from_columns
        }
        ffi::Stage = "sp_stage" {
            struct_size, kind, flags, state_version, name, version, summary, doc_md, params, bind, unbind, create,
            process, finish, snapshot, restore, destroy, extension
        }
        ffi::Aggregate = "sp_aggregate" {
            struct_size, flags, state_size, state_schema, room, room_to_merge, update, merge, state, finalize, clear
        }
        ffi::Published = "sp_published" { struct_size, flags, rows, bytes, name }
        ffi::Sink = "sp_sink" { struct_size, flags, publish }
        ffi::Plugin = "sp_plugin" {
            struct_size, abi_major, abi_minor, n_stages, id, version, license, build_info, stages, init, deinit, extension
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let (source, program): (PathBuf, PathBuf) = (folder.path().join("layout.c"), folder.path().join("layout"));
    let constants = [
        ("SP_ABI_MAJOR", i64::from(ffi::ABI_MAJOR)),
        ("SP_OK", ffi::OK.into()),
        ("SP_MORE", ffi::MORE.into()),
        ("SP_PENDING", ffi::PENDING.into()),
        ("SP_EOS", ffi::EOS.into()),
        ("SP_E_CONFIG", ffi::E_CONFIG.into()),
        ("SP_E_SCHEMA", ffi::E_SCHEMA.into()),
        ("SP_E_DATA", ffi::E_DATA.into()),
        ("SP_E_IO", ffi::E_IO.into()),
        ("SP_E_MEMORY", ffi::E_MEMORY.into()),
        ("SP_E_CANCELLED", ffi::E_CANCELLED.into()),
        ("SP_E_UNSUPPORTED", ffi::E_UNSUPPORTED.into()),
        ("SP_E_INTERNAL", ffi::E_INTERNAL.into()),
        ("SP_E_PANIC", ffi::E_PANIC.into()),
        ("SP_ERR_POISONED", ffi::ERR_POISONED.into()),
        ("SP_SOURCE", ffi::KIND_SOURCE.into()),
        ("SP_TRANSFORM", ffi::KIND_TRANSFORM.into()),
        ("SP_SINK", ffi::KIND_SINK.into()),
        ("SP_SCALAR", ffi::KIND_SCALAR.into()),
        ("SP_AGGREGATE", ffi::KIND_AGGREGATE.into()),
        ("SP_PAR_SERIAL", ffi::PAR_SERIAL.into()),
        ("SP_PAR_STATELESS", ffi::PAR_STATELESS.into()),
        ("SP_PAR_KEYED", ffi::PAR_KEYED.into()),
        ("SP_PAR_SPLITS", ffi::PAR_SPLITS.into()),
        ("SP_MEM_BATCH", ffi::MEM_BATCH.into()),
        ("SP_MEM_CONSTANT", ffi::MEM_CONSTANT.into()),
        ("SP_MEM_GROUPS", ffi::MEM_GROUPS.into()),
        ("SP_MEM_FRAME", ffi::MEM_FRAME.into()),
        ("SP_MEM_SPILL", ffi::MEM_SPILL.into()),
        ("SP_MEM_HELD", ffi::MEM_HELD.into()),
        ("SP_F_PRESERVES_ORDER", ffi::F_PRESERVES_ORDER.into()),
        ("SP_F_NEEDS_ORDER", ffi::F_NEEDS_ORDER.into()),
        ("SP_F_ROW_ALIGNED", ffi::F_ROW_ALIGNED.into()),
        ("SP_F_DETERMINISTIC", ffi::F_DETERMINISTIC.into()),
        ("SP_F_BLOCKING", ffi::F_BLOCKING.into()),
        ("SP_F_SNAPSHOT", ffi::F_SNAPSHOT.into()),
        ("SP_F_NULL_PROPAGATING", ffi::F_NULL_PROPAGATING.into()),
        ("SP_F_REJECTS", ffi::F_REJECTS.into()),
        ("SP_F_RETAINS_INPUT", ffi::F_RETAINS_INPUT.into()),
        ("SP_F_THREAD_AFFINE", ffi::F_THREAD_AFFINE.into()),
        ("SP_F_ROW_OF", ffi::F_ROW_OF.into()),
    ];
    let (mut rust, mut c) = (rust, c);
    for (name, value) in constants {
        let _ = writeln!(rust, "{name} {value}");
        let _ = writeln!(c, "printf(\"{name} %ld\\n\", (long){name});");
    }
    let main = format!("#include <stdio.h>\n#include \"standpipe_plugin.h\"\nint main(void) {{\n{c}return 0;\n}}\n");
    std::fs::write(&source, main).unwrap();
    let mut arguments = STRICT.to_vec();
    arguments.extend(["-I", INCLUDE, "-o", text(&program), text(&source)]);
    compile("cc", &arguments);
    let output = Command::new(&program).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), rust);
}

fn int(value: i64) -> Value {
    Value::Int(value)
}

/// Every type, nested ones too.
fn all_types() -> Schema {
    let record = [Field::new("x", Type::Float, true), Field::new("t", Type::String, false)];
    let record = Type::Record(record.into_iter().collect());
    let types = [
        ("id", Type::Int),
        ("nothing", Type::Null),
        ("bool", Type::Bool),
        ("float", Type::Float),
        (
            "decimal",
            Type::Decimal {
                precision: 20,
                scale: 2,
            },
        ),
        ("date", Type::Date),
        ("timestamp", Type::Timestamp),
        ("duration", Type::Duration),
        ("string", Type::String),
        ("bytes", Type::Bytes),
        ("json", Type::Json),
        ("list", Type::list(Type::String, true)),
        ("lists", Type::list(Type::list(Type::Int, false), true)),
        ("record", record.clone()),
        (
            "records",
            Type::List(
                Item {
                    ty: record,
                    nullable: true,
                }
                .into(),
            ),
        ),
    ];
    types
        .into_iter()
        .map(|(name, ty)| Field::new(name, ty, name != "id"))
        .collect()
}

/// Row `i` of [`all_types`]; each column is null in other rows, all of them in some.
fn row(i: i64) -> Vec<Value> {
    let long = format!("äöü {i} and so on, longer than a view");
    let record = |i: i64| {
        let x = if i % 3 == 0 {
            Value::Null
        } else {
            Value::Float(i as f64 / 2.0)
        };
        Value::Record(vec![
            ("x".into(), x),
            ("t".into(), Value::String("t".repeat((i % 20) as usize))),
        ])
    };
    let words = |n: i64| -> Value {
        let word = |k: i64| {
            if k % 4 == 3 {
                Value::Null
            } else {
                Value::String("w".repeat((k * 5 % 23) as usize))
            }
        };
        Value::List((0..n).map(word).collect())
    };
    let values = [
        int(i - 50),
        Value::Null,
        Value::Bool(i % 3 == 1),
        Value::Float(i as f64 * 0.1),
        Value::Decimal {
            value: i128::from(i) * 10_000_000_000_000_007,
            scale: 2,
        },
        Value::Date(i as i32 - 20_000),
        Value::Timestamp(i * 1_000_003),
        Value::Duration(-i * 77),
        Value::String(if i % 2 == 0 { long.clone() } else { "short".into() }),
        Value::Bytes(vec![0xff; (i % 30) as usize]),
        Value::Json(format!("{{\"i\": [{i}, null, \"{long}\"]}}")),
        words(i % 6),
        Value::List((0..i % 3).map(|n| Value::List((0..n).map(int).collect())).collect()),
        record(i),
        Value::List(
            (0..i % 4)
                .map(|k| if k == 2 { Value::Null } else { record(i + k) })
                .collect(),
        ),
    ];
    let gone = |at: usize| at > 0 && ((i as usize + at).is_multiple_of(5) || i % 17 == 9);
    values
        .into_iter()
        .enumerate()
        .map(|(at, value)| if gone(at) { Value::Null } else { value })
        .collect()
}

fn show(cell: Cell<'_>) -> String {
    match cell {
        Cell::List(list) => format!(
            "[{}]",
            (0..list.len())
                .map(|row| show(list.cell(row)))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Cell::Record(columns, row) => {
            format!(
                "{{{}}}",
                columns
                    .iter()
                    .map(|c: &Column<'_>| show(c.cell(row)))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        other => format!("{other:?}"),
    }
}

/// What stages have logged.
static SAID: Mutex<String> = Mutex::new(String::new());

/// How a script is run.
#[derive(Clone, Copy, Debug)]
struct How {
    workers: usize,
    chunk_rows: Option<usize>,
    refuse_after: Option<usize>,
}

const PLAIN: How = How {
    workers: 1,
    chunk_rows: None,
    refuse_after: None,
};

/// Workers and chunks; for stages that may see rows again also refusals of the arena, which halve the batch. (One row cannot be
/// halved, and a serial stage whose output is refused has seen its rows.)
fn matrix(stage: &str) -> impl Iterator<Item = How> {
    let refusals: &[Option<usize>] = if stage.ends_with("in_order") {
        &[None]
    } else {
        &[None, Some(3), Some(9), Some(40)]
    };
    [1, 3].into_iter().flat_map(move |workers| {
        let small = How {
            workers,
            chunk_rows: Some(1),
            refuse_after: None,
        };
        let large = refusals.iter().map(move |&refuse_after| How {
            workers,
            chunk_rows: None,
            refuse_after,
        });
        large.chain([small])
    })
}

/// The schema and rows of a script over `given`, fed in batches of 13 rows.
fn run(
    script: &str,
    specs: &[&'static StageSpec],
    schema: &Schema,
    rows: &[Vec<Value>],
    how: How,
) -> Result<(String, Vec<String>), Failure> {
    let How {
        workers,
        chunk_rows,
        refuse_after,
    } = how;
    let mut builder = Engine::builder().workers(workers).input("given", schema.clone());
    builder = builder.say(Arc::new(|text: &str| SAID.lock().unwrap().push_str(text)));
    builder = builder.hooks(Hooks {
        chunk_rows,
        poison: true,
        refuse_after,
        ..Hooks::default()
    });
    for spec in specs {
        builder = builder.stage(spec);
    }
    let mut pipeline = builder.build().compile("test.pipe", script)?;
    let kept = |rows: &[Vec<Value>]| {
        let arena = Arena::new(64 << 20);
        let batch = values::batch(schema, rows, &arena).unwrap();
        Kept::copy(&batch, batch.copy_bytes()).unwrap()
    };
    let mut batches: Vec<Kept> = rows.chunks(13).map(kept).collect();
    batches.reverse();
    pipeline.feed("given", Box::new(move || Ok(batches.pop())));
    let (mut out, mut of) = (vec![], String::new());
    pipeline.run_with(|schema, batch| {
        of = schema.to_string();
        for row in 0..batch.rows() {
            let cells: Vec<String> = batch.columns().iter().map(|c| show(c.cell(row))).collect();
            out.push(cells.join(" | "));
        }
        Ok(())
    })?;
    Ok((of, out))
}

#[test]
fn rows_of_every_type_come_through_c_unchanged() {
    let specs = stages("noop");
    let schema = all_types();
    let rows: Vec<Vec<Value>> = (0..100).map(row).collect();
    let want = run("from given", &[], &schema, &rows, PLAIN).unwrap();
    assert_eq!(want.1.len(), 100);
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    assert_eq!(
        names,
        [
            "pass",
            "pass_in_order",
            "pass_columns",
            "rebuild",
            "rebuild_in_order",
            "own_heap"
        ]
    );
    for name in names {
        for how in matrix(name) {
            let got = run(&format!("from given | {name}"), &specs, &schema, &rows, how);
            let got = got.unwrap_or_else(|error| panic!("{name} {how:?}: {error}"));
            assert_eq!(got, want, "{name} {how:?}");
        }
    }
    // Slices that start within a word, behind stages that make them.
    let script = |name: &str| format!("from given | skip 3 | filter id != 5 | {name} | rebuild | sort -id");
    let want = run(&script("pass"), &specs, &schema, &rows, PLAIN).unwrap();
    assert_eq!(want.1.len(), 96);
    for how in matrix("rebuild_in_order") {
        assert_eq!(
            run(&script("rebuild_in_order"), &specs, &schema, &rows, how).unwrap(),
            want,
            "{how:?}"
        );
    }
}

#[test]
fn c_can_compute_and_reject() {
    let specs = stages("double");
    let schema: Schema = [Field::new("n", Type::Int, true), Field::new("s", Type::String, true)]
        .into_iter()
        .collect();
    let value = |i: i64| {
        vec![
            if i % 7 == 3 {
                Value::Null
            } else {
                int(if i % 10 == 8 { -i } else { i })
            },
            Value::String(format!("row {i}")),
        ]
    };
    let rows: Vec<Vec<Value>> = (0..60).map(value).collect();
    let want: Vec<String> = (0..60)
        .filter(|i| i % 7 == 3 || i % 10 != 8)
        .map(|i| {
            format!(
                "{} | String(\"row {i}\")",
                if i % 7 == 3 {
                    "Null".into()
                } else {
                    format!("Int({})", 2 * i)
                }
            )
        })
        .collect();
    for name in ["doubled", "doubled_in_order"] {
        for how in matrix(name) {
            let got = run(
                &format!("from given | {name} on error skip"),
                &specs,
                &schema,
                &rows,
                how,
            )
            .unwrap();
            assert_eq!(got, ("n: int?, s: string?".to_string(), want.clone()), "{name} {how:?}");
            // The first bad row ends the run, whoever finds which one first; what comes before it is enough for `take`.
            let failed = run(&format!("from given | {name}"), &specs, &schema, &rows, how);
            let Err(Failure::Run(failed)) = failed else {
                panic!("{name} {how:?}")
            };
            let Error::Row(row) = failed.error else {
                panic!("{name} {how:?}: {failed}")
            };
            assert_eq!(
                (row.code, row.place.offset, row.column.as_deref()),
                (ffi::PLUGIN_FAILED, 8, Some("n"))
            );
            assert_eq!(row.message, "a number below zero (NEGATIVE)");
            let few = run(&format!("from given | {name} | take 8"), &specs, &schema, &rows, how);
            assert_eq!(few.unwrap_or_else(|e| panic!("{name} {how:?}: {e}")).1, want[..8]);
        }
    }
    let wrong = run("from given | select s | doubled", &specs, &schema, &rows, PLAIN);
    let Err(Failure::Script(problems)) = wrong else {
        panic!("an error of the script")
    };
    let text = problems.to_string();
    assert!(
        text.contains("E0805") && text.contains("`doubled`: the first column must be an int"),
        "{text}"
    );
}

#[test]
fn lies_are_errors_of_the_stage() {
    let specs = stages("liar");
    let schema: Schema = [Field::new("n", Type::Int, false), Field::new("s", Type::String, false)]
        .into_iter()
        .collect();
    let rows: Vec<Vec<Value>> = (0..5).map(|i| vec![int(i), Value::String("x".into())]).collect();
    let said = [
        ("longer", "it gives 6 rows for 5"),
        ("shorter", "it gives 4 rows for 5"),
        ("null_buffer", "column `n`: a buffer is NULL"),
        ("null_list", "column `n`: it has 2 buffers, not 2"),
        ("wrong_type", "column `s`: it has 2 buffers, not 3"),
        ("one_column", "it has 1 children, not 2"),
        ("null_child", "column `s`: the array is NULL"),
        ("released_child", "column `s`: the array is released"),
        ("negative", "column `s`: -5 rows cannot be"),
        ("bad_utf8", "column `s`: row 0: not UTF-8"),
        ("outside", "column `s`: row 0: a view points outside its buffer"),
        ("bad_prefix", "column `s`: row 0: a view's prefix is not its text's"),
        ("no_sizes", "column `s`: the sizes of its buffers are missing"),
        ("false_nulls", "column `n`: 1 nulls cannot be"),
        ("nulls", "column `n`: it is declared without nulls and has some"),
        ("keeps", "it kept input beyond the call"),
        ("late_reject", "it rejects row 0, which is not there or already given"),
        ("silent_reject", "it rejects rows and did not say so"),
        ("far_reject", "it rejects row 5, which is not there or already given"),
        ("stale_call", "was refused"),
        ("ends", "it ends the stream, which only a serial stage can"),
        ("fails", "no luck today"),
        ("mute", "status -77 without a message"),
        ("poisoned", "panic error without a message"),
        ("no_memory", "memory error without a message"),
        ("huge", "has no room for one row"),
    ];
    assert_eq!(
        said.map(|(name, _)| name).to_vec(),
        specs.iter().map(|s| s.name).collect::<Vec<_>>()
    );
    for (name, what) in said {
        let failed = run(&format!("from given | {name}"), &specs, &schema, &rows, PLAIN);
        let Err(Failure::Run(failed)) = failed else {
            panic!("{name} passed")
        };
        let text = failed.to_string();
        assert!(
            text.contains(what) && text.contains(&format!("`{name}`")),
            "{name}: {text}"
        );
    }
    assert_eq!(*SAID.lock().unwrap(), "fails: about to fail\n");
}

#[test]
fn a_panic_behind_c_is_the_panic_of_the_run() {
    let specs = stages("noop");
    let schema: Schema = [Field::new("n", Type::Int, false)].into_iter().collect();
    for at in 0..4 {
        let hooks = Hooks {
            panic_at: Some((at, 0)),
            ..Hooks::default()
        };
        let mut builder = Engine::builder().workers(2).input("given", schema.clone()).hooks(hooks);
        for spec in &specs {
            builder = builder.stage(spec);
        }
        let mut pipeline = builder
            .build()
            .compile("test.pipe", "from given | rebuild | rebuild_in_order")
            .unwrap();
        let rows: Vec<Vec<Value>> = (0..9).map(|i| vec![int(i)]).collect();
        pipeline.feed_rows("given", &rows).unwrap();
        let Err(Failure::Run(failed)) = pipeline.run_with(|_, _| Ok(())) else {
            panic!("no panic in node {at}")
        };
        assert!(matches!(failed.error, Error::Panic(_)), "{failed}");
    }
}
