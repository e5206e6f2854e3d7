//! Tests of the tests: stages with mistakes that the matrix of `standpipe test` must find, and the same stages without them.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "a stage that keeps what it must not needs a pointer"
)]

use standpipe::sdk::spec::{Bound, Call, Complaint, Kind, Make, Memory, StageSpec};
use standpipe::sdk::{Arena, Batch, Data, Emitter, Faults, Flow, Result, RowWise, Serial};
use standpipe::testing::Script;
use standpipe::testing::matrix::{Setting, settings};
use standpipe::testing::snapshot::Mode;
use standpipe::{Engine, EngineBuilder};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

fn ints<'a>(batch: &Batch<'a>) -> &'a [i64] {
    match batch.column(0).data() {
        Data::Int(values) => values,
        _ => &[],
    }
}

fn bind_serial<S: Serial + Default + 'static>(call: &Call<'_>) -> std::result::Result<Bound, Vec<Complaint>> {
    let make = |_: &standpipe::sdk::spec::Setup| -> Result<Box<dyn Serial>> { Ok(Box::new(S::default())) };
    Ok(Bound::keeps(call, vec![0], Make::Serial(Box::new(make))))
}

const fn serial(
    name: &'static str,
    bind: &'static (dyn Fn(&Call<'_>) -> std::result::Result<Bound, Vec<Complaint>> + Send + Sync),
) -> StageSpec {
    StageSpec {
        name,
        about: "A stage of a test",
        kind: Kind::Serial,
        memory: Memory::Constant,
        bind,
        ..StageSpec::BASE
    }
}

/// Gives the first row of each batch: what comes out hangs on how the input was cut.
#[derive(Default)]
struct FirstOfChunk;
static FIRST_OF_CHUNK: StageSpec = serial("first_of_chunk", &bind_serial::<FirstOfChunk>);

impl Serial for FirstOfChunk {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let first = arena.fill(1, 0u32)?;
        Ok((Some(batch.gather(first, batch.columns().len(), arena)?), Flow::More))
    }
}

/// Drops a value that follows its equal; the one before is kept as a value or, wrongly, by where it lies.
#[derive(Default)]
struct Changes<const BORROWED: bool> {
    kept: Option<i64>,
    /// Into the arena of the chunk before, which has been reset by now.
    lies: usize,
}
static CHANGES: StageSpec = serial("changes", &bind_serial::<Changes<false>>);
static CHANGES_BORROWED: StageSpec = serial("changes_borrowed", &bind_serial::<Changes<true>>);

impl<const BORROWED: bool> Serial for Changes<BORROWED> {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let values = ints(&batch);
        let mut last = match (BORROWED, self.lies) {
            (true, lies) if lies != 0 => {
                // SAFETY: there is none, that is the mistake. The block is still mapped: `reset` keeps the arena's only block.
                Some(unsafe { std::ptr::read_volatile(lies as *const i64) })
            }
            _ => self.kept,
        };
        let stay = arena.fill(values.len(), 0u32)?;
        let mut count = 0;
        for (row, value) in values.iter().enumerate() {
            stay[count] = row as u32;
            count += usize::from(last != Some(*value));
            last = Some(*value);
        }
        self.kept = last;
        self.lies = values.last().map_or(0, |value| std::ptr::from_ref(value) as usize);
        let rows = match count {
            0 => None,
            _ => Some(batch.gather(&stay[..count], batch.columns().len(), arena)?),
        };
        Ok((rows, Flow::More))
    }
}

/// The same mistake, hidden: what is kept lies where the next chunk writes only after it was read, so the old bytes are still there.
#[derive(Default)]
struct Hidden {
    kept: Option<i64>,
    lies: usize,
    steps: usize,
}
static HIDDEN: StageSpec = serial("changes_hidden", &bind_serial::<Hidden>);

impl Serial for Hidden {
    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        const WARM: usize = 4;
        self.steps += 1;
        // In the first chunks the arena still changes its block; from then on it is one.
        let last = match self.lies {
            lies if self.steps > WARM && lies != 0 => {
                // SAFETY: none, as above.
                Some(unsafe { std::ptr::read_volatile(lies as *const i64) })
            }
            _ => self.kept,
        };
        let mut changes = Changes::<false> { kept: last, lies: 0 };
        // Behind all that the chunks before a step take.
        arena.fill(512, 0u64)?;
        let out = Serial::step(&mut changes, batch, arena, faults)?;
        self.kept = changes.kept;
        let kept: &[i64] = arena.fill(1, changes.kept.unwrap_or_default())?;
        self.lies = kept.as_ptr() as usize;
        Ok(out)
    }
}

/// Lets the first twenty rows through that come to it, in whatever order workers bring them.
struct FirstToCome(Arc<(AtomicU64, AtomicBool)>);
static FIRST_TO_COME: StageSpec = StageSpec {
    name: "first_to_come",
    about: "A stage of a test",
    kind: Kind::RowWise,
    bind: &|call| {
        let count = Arc::<(AtomicU64, AtomicBool)>::default();
        let make = move |_: &standpipe::sdk::spec::Setup| -> Result<Box<dyn RowWise>> {
            Ok(Box::new(FirstToCome(count.clone())))
        };
        Ok(Bound::keeps(call, vec![0], Make::RowWise(Box::new(make))))
    },
    ..StageSpec::BASE
};

impl RowWise for FirstToCome {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let (count, met) = &*self.0;
        // Whoever comes first waits until the others have passed, if there are any.
        if !met.swap(true, SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let before = count.fetch_add(batch.rows() as u64, SeqCst);
        let rows = batch.rows().min(20u64.saturating_sub(before) as usize);
        if rows == 0 {
            return Ok(Flow::More);
        }
        let arena = out.arena();
        out.emit(batch.slice(0, rows, arena)?)
    }
}

fn engine() -> EngineBuilder {
    let stages = [&FIRST_OF_CHUNK, &CHANGES, &CHANGES_BORROWED, &HIDDEN, &FIRST_TO_COME];
    stages.into_iter().fold(Engine::builder(), EngineBuilder::stage)
}

/// A script whose rows go through `stage`, with a test.
fn script(stage: &str) -> Script {
    let rows: String = (0..60).map(|n| format!("    {}\n", n / 3)).collect();
    let text = format!(
        "stream s = read csv \"in.csv\" | {stage}\nfrom s | write none\ntest \"t\" {{\n  given \"in.csv\" = table {{\n    n\n{rows}  }}\n  expect s count > 0\n}}\n"
    );
    let script = Script::new("t.pipe", "t", Path::new(""), text, None);
    assert_eq!(script.mistakes(false), "");
    script
}

/// What the matrix says of it: the settings that made a difference.
fn faults(stage: &str) -> Vec<String> {
    let script = script(stage);
    let tests = script.tests();
    let verdict = script.run(tests[0], &engine, Mode::Frozen, true);
    verdict
        .faults
        .iter()
        .map(|fault| format!("{}\n{}\n", fault.message, fault.detail.join("\n")))
        .collect()
}

#[test]
fn what_is_right_passes() {
    for stage in [
        "changes",
        "dedup",
        "sort -n",
        "distinct",
        "aggregate c = count() by n",
        "take 7",
    ] {
        assert_eq!(faults(stage).concat(), "", "{stage}");
    }
}

#[test]
fn a_stage_that_hangs_on_the_size_of_chunks_is_caught() {
    let faults = faults("first_of_chunk");
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("row 2 of s is another (1 worker, chunks of 1 row)")),
        "{faults:?}"
    );
    assert!(
        faults.iter().any(|fault| fault.contains("chunks of 7 rows")),
        "{faults:?}"
    );
    // In usual chunks all rows are one.
    assert!(!faults.iter().any(|fault| fault.contains("usual chunks")), "{faults:?}");
}

#[test]
fn a_stage_that_keeps_a_borrowed_value_past_a_reset_is_caught() {
    let faults = faults("changes_borrowed");
    assert!(
        faults.iter().any(|fault| fault.contains("1 worker, chunks of 7 rows")),
        "{faults:?}"
    );
}

/// The settings with one worker under which `stage` gives other rows; arenas are overwritten after each reset, or not.
fn differing(stage: &str, poison: bool) -> Vec<String> {
    let script = script(stage);
    let tests = script.tests();
    let rows = |setting: &Setting| {
        let run = script.once(tests[0], engine(), setting).unwrap();
        assert!(run.outcome.is_ok());
        run.rows["s"].rows.clone()
    };
    let usual = rows(&Setting::plain());
    let mut differing = vec![];
    for setting in settings().into_iter().filter(|setting| setting.workers == 1) {
        assert!(setting.poison, "the matrix overwrites arenas under every setting");
        let setting = Setting { poison, ..setting };
        if rows(&setting) != usual {
            differing.push(setting.name);
        }
    }
    differing
}

#[test]
fn a_kept_value_that_nothing_has_overwritten_yet_is_caught_by_poison_alone() {
    assert_eq!(differing("changes_hidden", false), Vec::<String>::new());
    assert_eq!(
        differing("changes_hidden", true),
        ["1 worker, chunks of 1 row", "1 worker, chunks of 7 rows"]
    );
    assert_eq!(differing("changes", true), Vec::<String>::new());
}

#[test]
fn a_stage_that_hangs_on_the_order_of_workers_is_caught() {
    let faults = faults("first_to_come");
    assert!(
        faults.iter().any(|fault| fault.contains("3 workers, chunks of 7 rows")),
        "{faults:?}"
    );
    // One worker brings them in order.
    assert!(!faults.iter().any(|fault| fault.contains("(1 worker")), "{faults:?}");
}
