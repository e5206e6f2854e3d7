//! `aggregate` in less memory than its groups take, down to the least that a script may be run with: the same bytes, or the same error of
//! a row.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use standpipe::engine::{Engine, Failure, Pipeline};
use standpipe::runtime::report::{Report, StageReport};
use std::path::Path;

/// Half of the rows are one group's; keys and values may be null, numbers nan.
const ROWS: &str = r#"
  | derive k = if value % 2 == 0 then 7 else if value % 31 == 0 then null else value * 7919 % 1009,
      n = if value % 13 == 0 then null else value * 7919 % 100003,
      f = if value % 17 == 0 then null else if value % 19 == 0 then float("nan") else (value * 31 % 5003) / 7,
      t = if value % 11 == 0 then null else f"a text that is longer than a view, {value * 13 % 7001}",
      b = value % 3 == 0
"#;

/// Every aggregate.
const ALL: &str = r#"
  | aggregate n = count(), some = count(n, where: b), different = count_distinct(t), numbers = count_distinct(f),
      sum = sum(n), sums = sum(f), product = product(1 + n / 100003), mean = avg(f), least = min(n), last_text = max(t), first = first(t),
      last = last(f), middle = median(f), q = quantile(n, 0.9), d = quantile_disc(t, 0.3), s = stddev(n), v = variance(f), c = corr(n, f),
      any = any(b), all = all(b), list = collect(n, where: value % 50 == 1), text = string_join(t, ";", where: value % 70 == 1),
      common = mode(t), often = mode(n % 100), about = approx_distinct(t)
"#;

/// How a script is run.
#[derive(Clone, Copy, Debug)]
struct Run {
    workers: usize,
    chunk_bytes: usize,
    max_record: usize,
    memory_bytes: usize,
}

const PLENTY: Run = Run {
    workers: 2,
    chunk_bytes: 256 << 10,
    max_record: 1 << 20,
    memory_bytes: 4 << 30,
};

impl Run {
    fn try_compile(&self, text: &str, spill: &Path) -> Result<Pipeline, String> {
        let engine = Engine::builder()
            .workers(self.workers)
            .chunk_bytes(self.chunk_bytes)
            .max_record(self.max_record)
            .memory_bytes(self.memory_bytes)
            .spill_dir(spill)
            .folder(spill)
            .sync(false)
            .build();
        engine
            .compile("test.pipe", text)
            .map_err(|problems| problems.render(false))
    }

    /// The least memory that the script may be run with.
    fn at_least(self, text: &str) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let (mut no, mut yes) = (0, 1 << 30);
        while yes - no > 4096 {
            let memory_bytes = no + (yes - no) / 2;
            let run = Run { memory_bytes, ..self };
            match run.try_compile(text, folder.path()) {
                Ok(_) => yes = memory_bytes,
                Err(problems) => {
                    assert!(problems.contains("E0702"), "{problems}");
                    no = memory_bytes;
                }
            }
        }
        Run {
            memory_bytes: yes,
            ..self
        }
    }

    /// What is written, or the error; and what `aggregate` did with the disk.
    fn run(&self, text: &str) -> (Result<String, String>, StageReport) {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{text}\n  | write jsonl \"out.jsonl\"");
        let mut pipeline = self.try_compile(&text, folder.path()).unwrap();
        let outcome = pipeline.run();
        let out = folder.path().join("out.jsonl");
        let seen = match outcome {
            Ok(report) => {
                let rows = std::fs::read_to_string(&out).unwrap();
                std::fs::remove_file(&out).unwrap();
                (Ok(rows), of_aggregate(&report))
            }
            Err(Failure::Run(error)) => (Err(error.render(false)), StageReport::default()),
            Err(Failure::Script(problems)) => panic!("{self:?}: {}", problems.render(false)),
        };
        assert!(
            std::fs::read_dir(folder.path()).unwrap().next().is_none(),
            "something is left behind"
        );
        seen
    }
}

fn of_aggregate(report: &Report) -> StageReport {
    // What is computed before and behind it has its name.
    let stages = report.stages.iter().filter(|stage| stage.name == "aggregate");
    stages.max_by_key(|stage| stage.spilled_bytes).unwrap().clone()
}

fn first_difference(a: &str, b: &str) -> String {
    let differ = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    let cut = |line: &str| line.chars().take(2000).collect::<String>();
    match differ {
        Some((a, b)) => format!("{}\n{}", cut(a), cut(b)),
        None => format!("{} and {} lines", a.lines().count(), b.lines().count()),
    }
}

/// The same bytes as with plenty of memory; what was spilled is what `spills` says.
#[track_caller]
fn assert_same(text: &str, want: &str, run: Run, spills: bool) {
    let (got, report) = run.run(text);
    let got = got.unwrap_or_else(|error| panic!("{run:?}: {error}"));
    assert!(got == want, "{run:?}: {}", first_difference(&got, want));
    if spills {
        assert!(report.spilled_bytes > 0 && report.segments > 1, "{run:?}: {report:?}");
    }
}

fn settings() -> Vec<Run> {
    let mut runs = vec![];
    for workers in [1, 2, 4] {
        for (chunk_bytes, max_record) in [(4 << 10, 64 << 10), (256 << 10, 1 << 20)] {
            runs.push(Run {
                workers,
                chunk_bytes,
                max_record,
                memory_bytes: 0,
            });
        }
    }
    runs
}

#[test]
fn every_aggregate_in_any_memory() {
    for by in [" by k", "", " by t, k"] {
        let text = format!("from range(1, 5000){ROWS}{ALL}{by}");
        let (want, report) = PLENTY.run(&text);
        let want = want.unwrap();
        assert_eq!(report.spilled_bytes, 0);
        for run in settings() {
            let least = run.at_least(&text);
            for memory_bytes in [least.memory_bytes, 2 * least.memory_bytes] {
                assert_same(
                    &text,
                    &want,
                    Run { memory_bytes, ..least },
                    memory_bytes == least.memory_bytes && memory_bytes < 2 << 20,
                );
            }
        }
        let memory_bytes = 64 << 20;
        assert_same(&text, &want, Run { memory_bytes, ..PLENTY }, false);
    }
}

#[test]
fn a_group_ten_times_as_large_as_memory() {
    // Every value of the one group is another one.
    let calls = [
        "middle = median(f), low = quantile(n, 0.001), high = quantile(n, 0.99)",
        "d = quantile_disc(t, 0.7), different = count_distinct(t)",
        "common = mode(t), often = mode(n % 1000), about = approx_distinct(n), product = product(1 + n / 1000000000)",
    ];
    for calls in calls {
        let text = format!(
            "from range(1, 60000) | derive k = if value % 2 == 0 then 0 else value % 7, n = value * 7919 % 60013, f = n / 3,
               t = f\"{{\"some words that make it long, as texts are in files: \"}}{{n}}\"
               | aggregate rows = count(), {calls} by k"
        );
        let (want, _) = PLENTY.run(&text);
        let want = want.unwrap();
        assert!(want.lines().count() == 7);
        for run in settings() {
            let least = run.at_least(&text);
            assert_same(&text, &want, least, least.memory_bytes < 2 << 20);
        }
    }
}

#[test]
fn long_texts_of_many_groups() {
    let text = "from range(1, 8000) | derive k = if value % 2 == 0 then 0 else value % 500, t = repeat(f\"{value * 7919 % 8009},\", 400)
        | aggregate first = first(t), last = last(t), least = min(t), most = max(t, where: value % 3 == 0), n = count() by k";
    let (want, _) = PLENTY.run(text);
    let want = want.unwrap();
    assert_eq!(want.lines().count(), 251);
    for run in settings() {
        let least = run.at_least(text);
        assert_same(text, &want, least, least.memory_bytes < 4 << 20);
    }
}

#[test]
fn a_value_longer_than_a_record_is_the_same_error_in_any_memory() {
    const MAX_RECORD: usize = 64 << 10;
    let rows = "from range(1, 30000) | derive k = if value % 2 == 0 then \"hot\" else f\"{value % 500}\"";
    let list = format!("{rows} | aggregate n = count(), list = collect(value) by k");
    let text = format!("{rows} | aggregate text = string_join(f\"{{value}}\", \", \") by k");
    let says = [
        (
            &list,
            "the list of 15000 values takes 120000 bytes, more than a record may: 65536",
        ),
        (
            &text,
            "the text of 15000 values takes 99447 bytes, more than a record may: 65536",
        ),
    ];
    for (script, says) in says {
        let nulled = format!("{script} on error null");
        let plenty = Run {
            max_record: MAX_RECORD,
            ..PLENTY
        };
        let (want, _) = plenty.run(&nulled);
        let want = want.unwrap();
        assert!(want.contains("null") && want.lines().count() == 251, "{want}");
        for run in settings() {
            let run = Run {
                max_record: MAX_RECORD,
                ..run
            };
            let least = run.at_least(script);
            for memory_bytes in [least.memory_bytes, 64 << 20] {
                let run = Run { memory_bytes, ..least };
                let error = run.run(script).0.unwrap_err();
                assert!(error.contains("E0410") && error.contains(says), "{run:?}: {error}");
                assert!(error.contains("in the group k = \"hot\""), "{error}");
                assert_same(&nulled, &want, run, false);
            }
        }
    }
}

#[test]
fn lanes_that_spill_never_take_the_memory_of_each_other() {
    let text = format!(
        "from range(1, 6000){ROWS}
           | aggregate n = count(), sum = sum(n), different = count_distinct(t), first = first(t), v = variance(f), d = quantile_disc(t, 0.3) by t, k"
    );
    let (want, _) = PLENTY.run(&text);
    let want = want.unwrap();
    for workers in [2, 3, 4] {
        let run = Run {
            workers,
            chunk_bytes: 4 << 10,
            max_record: 64 << 10,
            memory_bytes: 0,
        };
        let least = run.at_least(&text);
        for _ in 0..12 {
            assert_same(&text, &want, least, true);
        }
    }
}

/// A lane that has the groups of one of them at hand and goes on with the other must not be what a third one waits for.
#[test]
fn two_that_spilled_meet_in_one_region() {
    let one = |name: &str, keys: u32| {
        format!(
            "stream {name} = from range(1, 40000) | derive k = value * 7919 % {keys}, t = f\"a text that is longer than a view, {{value}}\"
               | aggregate m = max(t), l = last(t), n = count() by k\n"
        )
    };
    let text = format!("{}{}from a | union b", one("a", 20011), one("b", 9001));
    let (want, _) = PLENTY.run(&text);
    let want = want.unwrap();
    assert_eq!(want.lines().count(), 20011 + 9001);
    for workers in [2, 4] {
        let run = Run {
            workers,
            chunk_bytes: 4 << 10,
            max_record: 64 << 10,
            memory_bytes: 0,
        };
        let least = run.at_least(&text);
        for _ in 0..2 {
            assert_same(&text, &want, least, true);
        }
    }
}
