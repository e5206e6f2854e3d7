//! The promise of determinism, kept by everything there is: the corpus and the examples give the same bytes, the same rejects and
//! the same error whatever the workers, the chunks, and the memory that is refused.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "harness/script.rs"]
mod script;

use script::{Script, Seen, Setting, corpus, examples, visible};
use standpipe::Engine;
use standpipe::runtime::settings::Hooks;
use standpipe::sdk::spec::{Bound, Kind, Make, Memory, Setup, StageSpec};
use standpipe::sdk::{Arena, Batch, Column, Data, Emitter, Faults, Flow, Place, Result, Serial};

/// The plainest way to run a script, which all others are compared with.
fn plain() -> Setting {
    Setting {
        name: "one worker".into(),
        workers: 1,
        ..Setting::usual()
    }
}

fn settings() -> Vec<Setting> {
    let mut settings = vec![];
    for workers in 1..=3 {
        for (name, chunk_rows, chunk_bytes) in [
            ("1 row", Some(1), 256 << 10),
            ("7 rows", Some(7), 256 << 10),
            ("64 bytes", None, 64),
            ("4 KiB", None, 4 << 10),
            ("64 KiB", None, 64 << 10),
            ("4 MiB", None, 4 << 20),
        ] {
            let hooks = Hooks {
                chunk_rows,
                poison: true,
                ..Hooks::default()
            };
            settings.push(Setting {
                name: format!("{workers} workers, chunks of {name}"),
                workers,
                chunk_bytes,
                hooks,
            });
        }
    }
    for refuse in [1, 3, 8, 21, 55, 144, 377] {
        let hooks = Hooks {
            refuse_after: Some(refuse),
            poison: true,
            ..Hooks::default()
        };
        settings.push(Setting {
            name: format!("refusal after {refuse} allocations"),
            hooks,
            ..Setting::usual()
        });
    }
    for (spill_rows, chunk_rows) in [(1, Some(1)), (1, None), (3, Some(7)), (100, Some(50))] {
        let hooks = Hooks {
            spill_rows: Some(spill_rows),
            chunk_rows,
            poison: true,
            ..Hooks::default()
        };
        settings.push(Setting {
            name: format!("spilling after {spill_rows} rows, chunks of {chunk_rows:?}"),
            workers: 3,
            hooks,
            ..Setting::usual()
        });
    }
    settings
}

/// The first line that is not the same, and where.
fn difference(plain: &Seen, other: &Seen) -> Option<String> {
    let first = |what: &str, a: &str, b: &str| {
        let lines = a.lines().count().max(b.lines().count());
        let at = (0..lines).find(|&i| a.lines().nth(i) != b.lines().nth(i));
        let show = |text: &str| at.and_then(|i| text.lines().nth(i)).unwrap_or("(nothing)").to_owned();
        (a != b).then(|| {
            format!(
                "{what}, line {}:\n    {}\n    {}",
                at.map_or(0, |i| i + 1),
                show(a),
                show(b)
            )
        })
    };
    if let Some(text) = first("the error", &plain.failed, &other.failed) {
        return Some(text);
    }
    for name in plain.outputs.keys().chain(other.outputs.keys()) {
        let (a, b) = (plain.outputs.get(name), other.outputs.get(name));
        let text = |bytes: Option<&Vec<u8>>| bytes.map_or("(no file)".into(), |bytes| visible(name, bytes));
        if a != b {
            return first(name, &text(a), &text(b)).or_else(|| Some(format!("{name}: the same once unpacked")));
        }
    }
    first("what is said", &plain.said, &other.said)
}

/// Bad rows and notes of the report.
fn counts(plain: &Seen, other: &Seen) -> Option<String> {
    let (plain, other) = (plain.counts.join("; "), other.counts.join("; "));
    (plain != other).then(|| format!("the counts: {plain} / {other}"))
}

fn compare(scripts: &[Script]) {
    let mut wrong = vec![];
    let settings = settings();
    // To look at some of them only.
    let only = std::env::var("INVARIANCE_CASE").ok();
    for script in scripts {
        if only.as_ref().is_some_and(|only| !script.name.contains(only)) {
            continue;
        }
        if script.check().explained.is_empty() {
            continue;
        }
        let want = script.run(&plain());
        for setting in &settings {
            let got = script.run(setting);
            if let Some(text) = difference(&want, &got).or_else(|| counts(&want, &got)) {
                wrong.push(format!("{}, {}: {text}", script.name, setting.name));
                // One example of a difference says enough.
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} scripts differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_is_the_same_in_every_setting() {
    let root = tempfile::tempdir().unwrap();
    compare(&corpus(root.path()));
}

#[test]
fn the_examples_are_the_same_in_every_setting() {
    let root = tempfile::tempdir().unwrap();
    let scripts: Vec<_> = examples(root.path())
        .into_iter()
        .filter(|script| !script.text.contains("csv \"-\""))
        .collect();
    compare(&scripts);
}

#[test]
fn what_stands_behind_the_end_is_never_an_error() {
    // Whether the chunk with the bad row or the one in which `take` ends comes first is left to chance: it is tried often.
    let root = tempfile::tempdir().unwrap();
    let script = corpus(root.path())
        .into_iter()
        .find(|script| script.name == "stages/early_end")
        .unwrap();
    let setting = Setting {
        name: "3 workers, chunks of 8 bytes".into(),
        workers: 3,
        chunk_bytes: 8,
        hooks: Hooks::default(),
    };
    for _ in 0..200 {
        assert_eq!(script.run(&setting).failed, "");
    }
}

#[test]
fn where_too_many_rows_were_bad_is_said_whatever_the_chunks() {
    let root = tempfile::tempdir().unwrap();
    // 12 of the first 10,000 are more than a tenth of a percent; the last of them came chunks before that is judged.
    let rows: String = (1..=12_000)
        .map(|row| {
            if (9_500..9_512).contains(&row) {
                "x\n".into()
            } else {
                format!("{row}\n")
            }
        })
        .collect();
    std::fs::write(root.path().join("share.csv"), format!("id\n{rows}")).unwrap();
    let read = "read csv \"share.csv\" schema: {id: int} on error skip limit: 0.1%";
    // What fails before the row at which that is judged comes first, whatever bad row is told of.
    for (rest, wanted) in [
        ("", ["too many bad rows: 12 of 10000", "line 9512"]),
        (" | derive n = 1 // (id - 9800)", ["division by zero", "line 9801"]),
        (
            " | derive n = 1 // (id - 10100)",
            ["too many bad rows: 12 of 10000", "line 9512"],
        ),
    ] {
        let text = format!("{read}{rest} | write csv \"out/rows.csv\"\n");
        let script = Script::new("share", text, root.path());
        for chunk_bytes in [64, 1 << 10, 16 << 10, 1 << 20] {
            let setting = Setting {
                chunk_bytes,
                ..Setting::usual()
            };
            let failed = script.run(&setting).failed;
            assert!(wanted.iter().all(|part| failed.contains(part)), "{failed}");
        }
    }
}

/// Gives the first rows at once and holds the others to its end.
#[derive(Default)]
struct Holds {
    given: usize,
    held: Vec<i64>,
}

static HOLDS: StageSpec = StageSpec {
    name: "holds",
    about: "A stage of a test",
    kind: Kind::Serial,
    memory: Memory::Spill,
    holds_back: true,
    bind: &|call| {
        let make = |_: &Setup| -> Result<Box<dyn Serial>> { Ok(Box::new(Holds::default())) };
        Ok(Bound::keeps(call, vec![0], Make::Serial(Box::new(make))))
    },
    ..StageSpec::BASE
};

impl Serial for Holds {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        const AT_ONCE: usize = 500;
        let Data::Int(values) = batch.column(0).data() else {
            panic!("ints")
        };
        let gives = values.len().min(AT_ONCE - self.given);
        self.given += gives;
        self.held.extend(&values[gives..]);
        Ok((Some(batch.slice(0, gives, arena)?), Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let arena = Arena::new(1 << 20);
        let column = [Column::int(&self.held, None)];
        let places = arena.collect(self.held.len(), |row| Place {
            offset: self.held[row] as u64,
            ..Place::default()
        })?;
        let rows = Batch::new(&column, Some(places), self.held.len());
        out.emit_in(&arena, rows).map(|_| ())
    }
}

#[test]
fn what_is_held_behind_the_last_wanted_row_is_not_given_whichever_lane_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::builder().stage(&HOLDS).folder(folder.path()).workers(2).build();
    let script = "from range(1, 1000) | holds | derive bad = 7 // (value % 50) on error to rejects | take 400 | write csv \"rows.csv\"\nfrom rejects | write jsonl \"rejects.jsonl\"\n";
    for _ in 0..50 {
        engine.compile("held.pipe", script).unwrap().run().unwrap();
        let lines = |name: &str| {
            std::fs::read_to_string(folder.path().join(name))
                .unwrap()
                .lines()
                .count()
        };
        assert_eq!((lines("rows.csv"), lines("rejects.jsonl")), (401, 8));
    }
}
