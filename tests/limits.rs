//! Memory limits change nothing: every stage that sees more than one chunk gives the same bytes, bad rows included, without a limit, with
//! a common one and with the least one that the check lets pass, with one worker, two and three, with small chunks and large ones.
//!
//! A script in `tests/limits` is all there is to a case. Its first comment says what it shows; if that ends with `spills`, the least limit
//! must make it spill, and if it ends with `spills where it is told to`, being told to must.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use standpipe::engine::{Engine, Failure, Pipeline};
use standpipe::runtime::settings::Hooks;
use standpipe::sdk::spec::{Kind, Memory};
use standpipe::stages;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const MIB: usize = 1 << 20;
const UNLIMITED: usize = 4096 * MIB;
const USUAL: usize = 64 * MIB;
/// The longest record: little, so that the least limit is near to what the stages take.
const RECORD: usize = 64 << 10;
const ROWS: u64 = 12_000;
const OTHER_ROWS: u64 = 1_500;

/// What does not spill, or not yet, needs a limit in which its state fits, in MiB.
const HELD: &[(&str, usize)] = &[];

/// Stages that see more than one chunk and have no script.
const GAPS: &[&str] = &["tap"];

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// What nobody reads, so that there are some hundred chunks of 4 KiB: numbers of claims must not end at 255.
const PAD: &str = "nothing but bytes that make a line longer";

/// Nulls, NaN, both zeros, duplicates, one key with half of the rows, keys that are all distinct, texts of all lengths.
fn rows(folder: &Path) {
    let mut state = 7;
    let mut text = String::from("id,hot,uniq,f,s,t,pad\n");
    for id in 0..ROWS {
        let dice = random(&mut state);
        let hot = match dice % 20 {
            0..=9 => "0".to_owned(),
            10 => String::new(),
            _ => (dice / 20 % 97).to_string(),
        };
        let f = match random(&mut state) % 8 {
            0 => "nan".to_owned(),
            1 => "-0.0".to_owned(),
            2 => "0.0".to_owned(),
            3 => String::new(),
            n => format!("{}.{}", dice % 50, n),
        };
        let s = match random(&mut state) % 6 {
            0 => String::new(),
            1 => "\"\"".to_owned(),
            2 => format!("\"a \"\"quoted\"\" text, number {}\"", dice % 500),
            3 => format!("ü{}", "ß".repeat(dice as usize % 40)),
            _ => format!("one of many texts that are longer than a view holds: {}", dice % 4000),
        };
        let (seconds, uniq) = (id / 3, id * 7919 % 1_000_003);
        let t = format!(
            "2026-01-01T{:02}:{:02}:{:02}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        let _ = writeln!(text, "{id},{hot},{uniq},{f},{s},{t},{PAD}");
    }
    std::fs::write(folder.join("rows.csv"), text).unwrap();
    let mut text = String::from("id2,hot,s2,t2\n");
    for row in 0..OTHER_ROWS {
        let dice = random(&mut state);
        let hot = match row % 700 {
            3 => "0".to_owned(),
            4 => String::new(),
            _ => (dice % 60 + 50).to_string(),
        };
        let seconds = row * 2;
        let t = format!(
            "2026-01-01T{:02}:{:02}:{:02}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        let _ = writeln!(text, "{},{hot},text {},{t}", row * 7919 % 1_000_003, dice % 5);
    }
    std::fs::write(folder.join("other.csv"), text).unwrap();
}

#[derive(Clone)]
struct Setting {
    memory: usize,
    workers: usize,
    chunk: usize,
    spill_rows: Option<usize>,
}

struct Case {
    name: String,
    text: String,
    record: usize,
    spills: bool,
    told: bool,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/limits");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let case = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            spills: text.lines().next().unwrap().ends_with("spills."),
            told: text.lines().next().unwrap().ends_with("spills where it is told to."),
            text,
            record: RECORD,
        }
    };
    paths.iter().map(case).collect()
}

/// A folder for one case, with the data.
struct Place {
    folder: tempfile::TempDir,
    spill: tempfile::TempDir,
}

impl Place {
    fn new(data: &Path) -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            spill: tempfile::tempdir().unwrap(),
        };
        for name in ["rows.csv", "other.csv"] {
            std::os::unix::fs::symlink(data.join(name), place.folder.path().join(name)).unwrap();
        }
        place
    }

    fn pipeline(&self, case: &Case, setting: &Setting) -> Pipeline {
        let hooks = Hooks {
            spill_rows: setting.spill_rows,
            ..Hooks::default()
        };
        Engine::builder()
            .folder(self.folder.path())
            .spill_dir(self.spill.path())
            .memory_bytes(setting.memory)
            .workers(setting.workers)
            .chunk_bytes(setting.chunk)
            .max_record(case.record)
            .sync(false)
            .hooks(hooks)
            .build()
            .open(&format!("{}.pipe", case.name), &case.text)
    }

    /// What it wrote, and how many segments went to disk.
    fn run(&self, case: &Case, setting: &Setting) -> Result<(BTreeMap<String, Vec<u8>>, u64), String> {
        let out = self.folder.path().join("out");
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        let report = self
            .pipeline(case, setting)
            .run()
            .map_err(|failure: Failure| failure.render(false))?;
        assert!(
            std::fs::read_dir(self.spill.path()).unwrap().next().is_none(),
            "{}: something is left of what was spilled",
            case.name
        );
        let files = std::fs::read_dir(&out).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().to_string_lossy().into_owned(),
                std::fs::read(entry.path()).unwrap(),
            )
        });
        Ok((files.collect(), report.stages.iter().map(|stage| stage.segments).sum()))
    }

    /// What is wrong with a case.
    fn check(&self, case: &Case) -> Result<(), String> {
        let plain = Setting {
            memory: UNLIMITED,
            workers: 1,
            chunk: 256 << 10,
            spill_rows: None,
        };
        let (want, _) = self.run(case, &plain)?;
        if want.is_empty() || want.iter().any(|(_, bytes)| bytes.len() < 20) {
            return Err("it hardly gives anything".into());
        }
        let held = HELD.iter().find(|(name, _)| *name == case.name);
        for (workers, chunk) in [(1, 256 << 10), (1, 4 << 10), (2, 256 << 10), (2, 4 << 10), (3, 4 << 10)] {
            let usual = Setting {
                memory: USUAL,
                workers,
                chunk,
                spill_rows: None,
            };
            let least = self
                .pipeline(case, &usual)
                .explain_memory()
                .map_err(|e| e.render(false))?
                .least_bytes;
            if std::env::var("LIMITS_SHOW").is_ok() {
                eprintln!("LEAST {} {workers} {} {}", case.name, chunk >> 10, least >> 10);
            }
            let below = Setting {
                memory: least - (64 << 10),
                ..usual
            };
            if self.pipeline(case, &below).check().is_ok() {
                return Err(format!("less than {least} bytes are let pass"));
            }
            let least = Setting {
                memory: held.map_or(least, |(_, mib)| least.max(mib * MIB)),
                ..usual
            };
            let spilling = Setting {
                // Little enough for what one of two lanes has of the smaller side.
                spill_rows: Some(if case.told { 200 } else { 1000 }),
                ..usual
            };
            let unlimited = Setting {
                memory: UNLIMITED,
                ..usual
            };
            for (what, setting) in [
                ("unlimited", &unlimited),
                ("usual", &usual),
                ("spilling", &spilling),
                ("least", &least),
            ] {
                let about = format!(
                    "{what} ({} KiB), {workers} workers, chunks of {chunk}",
                    setting.memory >> 10
                );
                let (got, segments) = self.run(case, setting).map_err(|error| format!("{about}: {error}"))?;
                if what == "least" && case.spills && held.is_none() && segments == 0 {
                    return Err(format!("{about}: nothing was spilled"));
                }
                if what == "spilling" && case.told && segments == 0 {
                    return Err(format!("{about}: nothing was spilled, though it was told to"));
                }
                for (name, bytes) in &want {
                    if got.get(name) != Some(bytes) {
                        return Err(format!("{about}: {name} differs\n{}", difference(bytes, got.get(name))));
                    }
                }
            }
        }
        Ok(())
    }
}

fn difference(want: &[u8], got: Option<&Vec<u8>>) -> String {
    let got = got.map_or(&[][..], Vec::as_slice);
    let (mut a, mut b) = (want.split(|&c| c == b'\n'), got.split(|&c| c == b'\n'));
    for line in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x == y => {}
            (x, y) => {
                let show =
                    |line: Option<&[u8]>| line.map_or("(nothing)".into(), |l| String::from_utf8_lossy(l).into_owned());
                return format!("  line {line}:\n    {}\n    {}", show(x), show(y));
            }
        }
    }
    "  the same lines".into()
}

#[test]
fn no_limit_changes_a_byte() {
    let data = tempfile::tempdir().unwrap();
    rows(data.path());
    let only = std::env::var("LIMITS_CASE").ok();
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.name.contains(only)))
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let place = Place::new(data.path());
                    if let Err(text) = place.check(case) {
                        wrong.lock().unwrap().push(format!("{}: {text}", case.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {}\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Values of some megabytes: longer than a lane's arena, and than what is set aside for the ways of a row.
#[test]
fn half_of_the_rows_in_one_value() {
    const ROWS: usize = 120_000;
    let data = tempfile::tempdir().unwrap();
    rows(data.path());
    let mut text = String::from("id,k,s\n");
    for id in 0..ROWS {
        let k = if id % 2 == 0 { 1 } else { id };
        let _ = writeln!(text, "{id},{k},{id:030}");
    }
    std::fs::write(data.path().join("rows.csv"), text).unwrap();
    let scripts = [
        "read csv \"rows.csv\" | nest id, s as l by k | write csv \"out/o.csv\"",
        "read csv \"rows.csv\" | aggregate l = collect(s) by k | write csv \"out/o.csv\"",
        "read csv \"rows.csv\" | aggregate l = collect(id) | write csv \"out/o.csv\"",
        "read csv \"rows.csv\" | pivot key: k % 2 value: string_join(s, \"\") columns: [0, 1] by k | write csv \"out/o.csv\"",
    ];
    for (number, script) in scripts.into_iter().enumerate() {
        let case = Case {
            name: format!("long_{number}"),
            text: script.into(),
            record: 8 * MIB,
            spills: false,
            told: false,
        };
        let place = Place::new(data.path());
        let setting = |memory: usize, workers: usize| Setting {
            memory: memory * MIB,
            workers,
            chunk: 256 << 10,
            spill_rows: None,
        };
        let (want, _) = place.run(&case, &setting(4096, 1)).unwrap();
        for (memory, workers) in [(USUAL / MIB, 1), (USUAL / MIB, 2), (32, 2)] {
            let got = place.run(&case, &setting(memory, workers));
            let (got, _) = got.unwrap_or_else(|error| panic!("{script}, {memory} MiB, {workers} workers: {error}"));
            assert!(got == want, "{script}, {memory} MiB, {workers} workers");
        }
    }
}

#[test]
fn every_stage_that_sees_more_than_a_chunk_has_a_script() {
    let scripts: Vec<String> = cases().into_iter().map(|case| case.text).collect();
    let has = |name: &str| {
        scripts
            .iter()
            .any(|text| text.contains(&format!("| {name} ")) || text.contains(&format!("{{ {name} ")))
    };
    let missing: Vec<&str> = stages::list::list()
        .iter()
        .filter(|spec| {
            matches!(spec.kind, Kind::Breaker | Kind::Probe | Kind::Serial)
                || spec.memory != Memory::Batch
                || spec.name == "union"
        })
        .map(|spec| spec.name)
        .filter(|name| !has(name))
        .collect();
    assert_eq!(
        missing, GAPS,
        "a script in `tests/limits` for each, and none of what has one is a gap"
    );
    let modes = stages::list::list()
        .iter()
        .find(|spec| spec.name == "join")
        .unwrap()
        .modes;
    for mode in modes {
        let name = if *mode == "inner" {
            "join other"
        } else {
            &format!("join {mode}")
        };
        assert!(has(name), "`{name}` has no script");
    }
    for (name, _) in HELD {
        assert!(cases().iter().any(|case| case.name == *name), "{name} is no script");
    }
}

#[test]
fn no_lane_takes_the_memory_that_another_spills_with() {
    let data = tempfile::tempdir().unwrap();
    rows(data.path());
    for name in ["sort", "distinct", "union_of_itself"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let place = Place::new(data.path());
        let mut want = None;
        for workers in [2, 3, 4] {
            let usual = Setting {
                memory: USUAL,
                workers,
                chunk: 4 << 10,
                spill_rows: None,
            };
            let least = place.pipeline(&case, &usual).explain_memory().unwrap().least_bytes;
            let setting = Setting { memory: least, ..usual };
            for turn in 0..8 {
                let got = place.run(&case, &setting);
                let (got, segments) =
                    got.unwrap_or_else(|error| panic!("{name}, {workers} workers, turn {turn}: {error}"));
                assert!(segments > 0, "{name}: nothing was spilled");
                assert!(
                    *want.get_or_insert_with(|| got.clone()) == got,
                    "{name}, {workers} workers, turn {turn}"
                );
            }
        }
    }
}

#[test]
fn rejects_that_waited_have_room_whatever_their_chunks_are_read_in() {
    let data = tempfile::tempdir().unwrap();
    rows(data.path());
    let script = "stream a = read csv \"rows.csv\" schema: {id: int, uniq: int}\n\
        from a | derive n = 100 // (id % 2) on error to bad | join a as r on id == id, uniq == uniq | drop r \
        | derive m = 100 // (id % 3) on error to bad | write csv \"out/rows.csv\"\n\
        from bad | write csv \"out/bad.csv\"\n";
    let case = Case {
        name: "rejects_that_waited".into(),
        text: script.into(),
        record: RECORD,
        spills: false,
        told: false,
    };
    let place = Place::new(data.path());
    let usual = Setting {
        memory: USUAL,
        workers: 8,
        chunk: 256 << 10,
        spill_rows: None,
    };
    let (want, _) = place.run(&case, &Setting { workers: 1, ..usual }).unwrap();
    let least = place.pipeline(&case, &usual).explain_memory().unwrap().least_bytes;
    for more in 0..24 {
        let memory = least + more * (64 << 10);
        let (got, _) = place
            .run(&case, &Setting { memory, ..usual })
            .unwrap_or_else(|error| panic!("{memory}: {error}"));
        assert!(got == want, "{memory}");
    }
}
