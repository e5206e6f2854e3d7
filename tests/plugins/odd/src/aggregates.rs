//! Aggregates that do what they should not. All add up ints, as long as they behave; `adds` does.

use standpipe_sdk::prelude::*;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

const ADDS: usize = 0;
const BINDS: usize = 1;
const UPDATES: usize = 2;
const MERGES: usize = 3;
const WRITES: usize = 4;
const VALUES: usize = 5;
const DROPS: usize = 6;
const NULLS: usize = 7;
const TYPES: usize = 8;
const FAILS: usize = 9;
const LIES: usize = 10;
const LASTS: usize = 11;
const HALVES: usize = 12;
const CHANGES: usize = 13;
const SWELLS: usize = 14;

/// One of them, by its number.
pub struct Adds<const HOW: usize>;

pub type Plain = Adds<ADDS>;
pub type PanicsInBind = Adds<BINDS>;
pub type PanicsInUpdate = Adds<UPDATES>;
pub type PanicsInMerge = Adds<MERGES>;
pub type PanicsInWrite = Adds<WRITES>;
pub type PanicsInValue = Adds<VALUES>;
pub type PanicsInDrop = Adds<DROPS>;
/// Says that it is never null, and is.
pub type Nulls = Adds<NULLS>;
/// Gives text.
pub type Types = Adds<TYPES>;
/// A sum below zero is none.
pub type Fails = Adds<FAILS>;
/// The same, and did not say so.
pub type Lies = Adds<LIES>;
/// The value that came last.
pub type Lasts = Adds<LASTS>;
/// Writes half of what it is.
pub type Halves = Adds<HALVES>;
/// Gives another value each time.
pub type Changes = Adds<CHANGES>;
/// Has a megabyte for each group, and says so.
pub type Swells = Adds<SWELLS>;

static TIMES: AtomicI64 = AtomicI64::new(0);

/// The sum, and what is only there.
pub struct State {
    sum: i64,
    bulk: Vec<u8>,
    bomb: bool,
}

impl Drop for State {
    fn drop(&mut self) {
        assert!(!self.bomb, "no end");
    }
}

impl<const HOW: usize> Combine for Adds<HOW> {
    const NAME: &'static str = [
        "adds",
        "panics_in_bind",
        "panics_in_update",
        "panics_in_merge",
        "panics_in_write",
        "panics_in_value",
        "panics_in_drop",
        "nulls",
        "types",
        "fails",
        "lies",
        "lasts",
        "halves",
        "changes",
        "swells",
    ][HOW];
    const ABOUT: &'static str = "Adds up";
    const PARAMS: &'static [CombineParam] = &[CombineParam::column("x", "int")];
    const RETURNS: &'static str = "int";
    const ROW_BYTES: usize = if HOW == SWELLS { 1 << 20 } else { 0 };
    const FALLIBLE: bool = HOW == FAILS;
    type State = State;

    fn bind(_: &Arguments<'_>) -> Result<Self, Wrong> {
        assert!(HOW != BINDS, "no binding");
        Ok(Adds)
    }

    fn ty(&self) -> Type {
        Type::Int
    }

    fn start(&self) -> State {
        State {
            sum: 0,
            bulk: vec![],
            bomb: HOW == DROPS,
        }
    }

    fn update(&self, states: &mut [State], rows: &Values<'_>) -> Result<()> {
        assert!(HOW != UPDATES, "no update");
        for (&x, &group) in rows.get::<i64>(0)?.iter().zip(rows.groups) {
            let state = &mut states[group as usize];
            state.sum = if HOW == LASTS { x } else { state.sum.wrapping_add(x) };
            if HOW == SWELLS && state.bulk.is_empty() {
                state.bulk = vec![1; 1 << 20];
            }
        }
        Ok(())
    }

    fn merge(&self, state: &mut State, mut other: State) {
        assert!(HOW != MERGES, "no merge");
        state.sum = state.sum.wrapping_add(other.sum);
        if state.bulk.is_empty() {
            state.bulk = std::mem::take(&mut other.bulk);
        }
        other.bomb = false;
    }

    fn write(&self, state: &State, out: &mut Vec<u8>) {
        assert!(HOW != WRITES, "no state");
        let sum = if HOW == HALVES { state.sum / 2 } else { state.sum };
        out.extend(sum.to_le_bytes());
    }

    fn read(&self, bytes: &[u8]) -> Result<State, String> {
        let sum = bytes.try_into().map_err(|_| "not eight bytes")?;
        Ok(State {
            sum: i64::from_le_bytes(sum),
            bulk: vec![1; if HOW == SWELLS { 1 << 20 } else { 0 }],
            bomb: false,
        })
    }

    fn room_of(&self, _: &[u8]) -> usize {
        Self::ROW_BYTES
    }

    fn value(&self, state: &State) -> Result<Option<Value>, String> {
        match HOW {
            VALUES => panic!("no value"),
            NULLS => Ok(None),
            TYPES => Ok(Some(Value::String("text".into()))),
            FAILS | LIES if state.sum < 0 => Err(format!("{} is below zero", state.sum)),
            CHANGES => Ok(Some(Value::Int(TIMES.fetch_add(1, Relaxed)))),
            _ => Ok(Some(Value::Int(state.sum))),
        }
    }
}
