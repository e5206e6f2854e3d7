//! Joins against nested loops.

use super::super::testing::*;
use super::super::values;
use super::*;
use proptest::prelude::*;
use standpipe_sdk::spec::Item;
use standpipe_sdk::{
    Arena, Batch, Bits, Column, Disk, Downstream, Emitter, Error, Faults, Flow, Judge, Locator, Place, Probe, Spill,
    Waiting,
};
use std::sync::Arc;

/// Left: k, s (keys), n. Right: k, s, m.
fn sides() -> (Schema, Schema) {
    (
        schema(&[("k", Type::Float), ("s", STRING), ("n", INT)]),
        schema(&[("k", Type::Float), ("s", STRING), ("m", INT)]),
    )
}

fn key(name: &str, at: usize) -> Item {
    argument(
        Some(name),
        Arg::Match {
            left: at,
            right: at,
            shared: true,
            compare: Compare::Equal,
        },
    )
}

fn bound(mode: &str, keys: &[usize], record: bool, condition: bool) -> Bound {
    let (left, right) = sides();
    let items = [argument(Some("r"), Arg::Stream(0))];
    let on: Vec<Item> = keys.iter().map(|&at| key(["k", "s"][at], at)).collect();
    let options = [("where", argument(None, Arg::Pairs))];
    let streams = [right.clone()];
    let made = bind(&Call {
        mode: Some(mode),
        on: &on,
        as_name: record.then_some("r"),
        options: if condition { &options } else { &[] },
        streams: &streams,
        beside: Some(&right),
        ..call(&left, 3, &items)
    });
    made.unwrap()
}

/// Whether a pair meets the condition of these tests: m < n. A pair with n = 13 fails.
fn meets(n: &Value, m: &Value) -> Result<bool, ()> {
    match (n, m) {
        (Value::Int(13), Value::Int(_)) => Err(()),
        (Value::Int(n), Value::Int(m)) => Ok(m < n),
        _ => Ok(false),
    }
}

/// The condition on batches: left columns 0..3, then m (or the record).
struct Less {
    record: bool,
    may_fail: bool,
}

impl Judge for Less {
    fn judge<'b>(&mut self, pairs: Batch<'b>, arena: &'b Arena, faults: &Faults<'b>) -> Result<Column<'b>> {
        let last = pairs.columns().len() - 1;
        let m = match (self.record, pairs.column(last).data()) {
            (true, standpipe_sdk::Data::Record(record)) => record.field(2, pairs.rows()),
            _ => pairs.column(last),
        };
        let n = pairs.column(2);
        let value = |column: &Column<'_>, row| match column.cell(row) {
            standpipe_sdk::Cell::Int(v) => int(v),
            _ => NULL,
        };
        for row in 0..pairs.rows() {
            if meets(&value(&n, row), &value(&m, row)).is_err() {
                faults.report(row, codes::ASSERT_FAILED, None, format_args!("thirteen"))?;
            }
        }
        let bits = Bits::collect(arena, pairs.rows(), |row| {
            meets(&value(&n, row), &value(&m, row)).unwrap_or(false)
        })?;
        Ok(Column::bool(bits, None))
    }

    fn may_fail(&self) -> bool {
        self.may_fail
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a == b,
    }
}

/// What comes out, and the left rows that are bad.
fn slow(mode: &str, keys: &[usize], record: bool, condition: bool, left: &Rows, right: &Rows) -> (Rows, Vec<u64>) {
    let (mut out, mut bad, mut matched) = (vec![], vec![], vec![false; right.len()]);
    let (_, schema) = sides();
    let beside = |row: Option<&Vec<Value>>| -> Vec<Value> {
        let row = row.cloned();
        if record {
            let fields = |row: Vec<Value>| {
                schema
                    .fields()
                    .iter()
                    .zip(row)
                    .map(|(f, v)| (f.name.to_string(), v))
                    .collect()
            };
            return vec![row.map_or(NULL, |row| Value::Record(fields(row)))];
        }
        let is_key = |at: &usize| keys.contains(at);
        (0..3)
            .filter(|at| !is_key(at))
            .map(|at| row.as_ref().map_or(NULL, |row| row[at].clone()))
            .collect()
    };
    for (number, l) in left.iter().enumerate() {
        let candidates: Vec<usize> = (0..right.len())
            .filter(|&r| keys.iter().all(|&key| same(&l[key], &right[r][key])))
            .collect();
        let judged: Vec<Result<bool, ()>> = candidates
            .iter()
            .map(|&r| {
                if condition {
                    meets(&l[2], &right[r][2])
                } else {
                    Ok(true)
                }
            })
            .collect();
        if judged.contains(&Err(())) {
            bad.push(number as u64);
            continue;
        }
        let hits: Vec<usize> = candidates
            .into_iter()
            .zip(judged)
            .filter(|(_, ok)| *ok == Ok(true))
            .map(|(r, _)| r)
            .collect();
        hits.iter().for_each(|&r| matched[r] = true);
        match mode {
            "semi" => out.extend((!hits.is_empty()).then(|| l.clone())),
            "anti" => out.extend(hits.is_empty().then(|| l.clone())),
            _ => {
                let row = |r: Option<usize>| [l.clone(), beside(r.map(|r| &right[r]))].concat();
                out.extend(hits.iter().map(|&r| row(Some(r))));
                if hits.is_empty() && matches!(mode, "left" | "full") {
                    out.push(row(None));
                }
            }
        }
    }
    if matches!(mode, "right" | "full") {
        for (row, _) in right.iter().zip(&matched).filter(|(_, matched)| !**matched) {
            let left = (0..3).map(|at| if keys.contains(&at) { row[at].clone() } else { NULL });
            out.push([left.collect(), beside(Some(row))].concat());
        }
    }
    (out, bad)
}

struct Collect<'g> {
    got: &'g mut Got,
    schema: &'g Schema,
}

impl Downstream for Collect<'_> {
    fn push<'b>(&mut self, _: usize, _: &'b Arena, batch: Batch<'b>, _: bool) -> Result<Flow> {
        assert!(batch.rows() > 0, "an empty batch");
        self.got.add(&batch, self.schema);
        Ok(Flow::More)
    }
}

fn places<'a>(batch: Batch<'a>, from: usize, arena: &'a Arena) -> Batch<'a> {
    let place = |row: usize| Place {
        source: 0,
        offset: (from + row) as u64,
        sub: 0,
    };
    let places = arena.collect(batch.rows(), place).unwrap();
    Batch::new(batch.columns(), Some(places), batch.rows())
}

/// How a join is driven.
#[derive(Clone, Copy, Debug)]
struct How {
    /// Rows of a chunk.
    chunk: usize,
    /// Bytes of scratch.
    share: usize,
    /// The right side does not fit if it has so many rows.
    spill_rows: Option<usize>,
    /// Bytes that it may take in all.
    limit: usize,
}

impl How {
    fn new(chunk: usize, share: usize) -> How {
        How {
            chunk: chunk.min(1 << 20),
            share,
            spill_rows: None,
            limit: 64 << 20,
        }
    }

    fn spilling(self, rows: usize) -> How {
        How {
            spill_rows: Some(rows),
            ..self
        }
    }
}

/// Joins with two lanes on each side.
fn fast(bound: &Bound, record: bool, condition: Option<bool>, left: &Rows, right: &Rows, how: How) -> Got {
    let (left_schema, right_schema) = sides();
    let mut setup = setup(how.limit);
    setup.share = how.share;
    setup.spill = Spill::new(Arc::new(
        Disk::new(std::env::temp_dir(), None).spill_rows(how.spill_rows),
    ));
    let chunk = how.chunk;
    let Make::Probe(probing) = &bound.make else {
        panic!("a probe")
    };
    let build = (probing.build)(&setup).unwrap();
    let mut fillers = [build.clone().filler().unwrap(), build.clone().filler().unwrap()];
    for (number, part) in right.chunks(chunk).enumerate() {
        let arena = Arena::new(32 << 20);
        // Later chunks in the first lane too, so that order has to be made.
        fillers[number % 2]
            .push(number as u64, values::batch(&right_schema, part, &arena).unwrap())
            .unwrap();
    }
    fillers.iter_mut().for_each(|filler| filler.done().unwrap());
    drop(fillers);
    build.seal().unwrap();
    let mut got = Got::default();
    let mut probers = [build.clone().prober().unwrap(), build.clone().prober().unwrap()];
    let mut judge = Less {
        record,
        may_fail: condition == Some(true),
    };
    let mut probe = |prober: &mut Box<dyn Probe>, batch: Batch<'_>| {
        let mut arena = Arena::new(32 << 20);
        arena.set_poison(true);
        let faults = Faults::new(&arena, false);
        let mut down = Collect {
            got: &mut got,
            schema: &bound.schema,
        };
        let judge = condition.map(|_| &mut judge as &mut dyn Judge);
        let mut out = Emitter::new(&arena, &faults, &mut down);
        let batch = batch.copy_to(&arena).unwrap();
        prober.push(batch, judge, &mut out).unwrap();
        let place = |row: u32| batch.place(row as usize).offset;
        let bad = faults.by_row().unwrap();
        let bad = bad
            .iter()
            .map(|fault| (place(fault.row), fault.code, fault.message.to_string()));
        got.faults.extend(bad);
    };
    let mut holders = vec![];
    if build.waits() {
        holders = vec![build.clone().holder().unwrap(), build.clone().holder().unwrap()];
    }
    for (number, part) in left.chunks(chunk).enumerate() {
        let data = Arena::new(32 << 20);
        let batch = places(values::batch(&left_schema, part, &data).unwrap(), number * chunk, &data);
        let waiting = Waiting {
            number: number as u64,
            chunk: number as u64,
            locator: Locator {
                chunk: number as u64,
                ..Locator::default()
            },
            texts: false,
        };
        match holders.get_mut(number % 2) {
            Some(holder) => holder.push(&waiting, batch).unwrap(),
            None => probe(&mut probers[number % 2], batch),
        }
    }
    if build.waits() {
        let again = build.clone().again().unwrap();
        let mut readers = [again.clone().reader().unwrap(), again.clone().reader().unwrap()];
        let mut last = 0;
        for at in 0.. {
            let Some(ticket) = again.ticket() else { break };
            let mut more = readers[at % 2].claim(ticket).unwrap();
            while more {
                let data = Arena::new(32 << 20);
                let part = readers[at % 2].decode(&data, 1000, false).unwrap();
                let chunk = part.locator.chunk;
                assert!(chunk >= last, "rows of chunk {chunk} behind those of {last}");
                last = chunk;
                more = !part.last;
                probe(&mut probers[at % 2], part.batch);
            }
        }
        assert!(left.is_empty() || right.is_empty() || setup.spill.done().segments > 0);
    }
    drop((probers, holders));
    let probed = got.places.len();
    assert!(got.places.windows(2).all(|pair| pair[0] < pair[1]), "places ascend");
    assert!(got.places.iter().all(|place| place.source == 0));
    if probing.rest {
        let rest = read_all(&build.clone().drain().unwrap(), &bound.schema, chunk.min(1000));
        got.rows.extend(rest.rows);
        got.places.extend(rest.places);
    }
    assert!(got.places[probed..].is_sorted());
    drop(build);
    assert_eq!(setup.budget.used(), 0, "memory that was not given back");
    got
}

fn text_of(rows: &Rows) -> Vec<String> {
    // NaN is not equal to itself, its text is.
    rows.iter()
        .map(|row| format!("{row:?}").replace("-0.0", "0.0"))
        .collect()
}

fn rows(most: usize) -> impl Strategy<Value = Rows> {
    let number = prop_oneof![
        4 => Just(Value::Float(1.0)),
        3 => (0..6i64).prop_map(|n| Value::Float(n as f64)),
        1 => Just(Value::Float(f64::NAN)),
        1 => prop_oneof![Just(Value::Float(0.0)), Just(Value::Float(-0.0))],
        1 => Just(NULL),
    ];
    let word = prop_oneof![
        Just(text("a")),
        Just(text("a text that is longer than a view")),
        Just(text("a text that is longer than a vieW")),
        Just(text("")),
        Just(NULL),
    ];
    let third = prop_oneof![6 => (0..20i64).prop_map(int), 1 => Just(NULL)];
    prop::collection::vec((number, word, third).prop_map(|(k, s, n)| vec![k, s, n]), 0..most)
}

const MODES: [&str; 6] = ["inner", "left", "right", "full", "semi", "anti"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_mode_is_the_nested_loop(
        left in rows(40), right in rows(40), keys in prop_oneof![Just(vec![0]), Just(vec![1]), Just(vec![0, 1])],
        record: bool, condition: bool,
    ) {
        for mode in MODES {
            // Without a name of its own the right side cannot have a column of the left one's name.
            let record = record || keys.len() == 1;
            let bound = bound(mode, &keys, record, condition);
            let (want, bad) = slow(mode, &keys, record, condition, &left, &right);
            for chunk in CHUNKS {
                for share in [64 << 10, 1 << 20] {
                    let how = How::new(chunk, share);
                    let got = fast(&bound, record, condition.then_some(true), &left, &right, how);
                    prop_assert_eq!(text_of(&got.rows), text_of(&want), "{} in chunks of {}", mode, chunk);
                    let found: Vec<u64> = got.faults.iter().map(|fault| fault.0).collect();
                    prop_assert_eq!(&found, &bad);
                    for rows in [0, 3] {
                        let spilled = fast(&bound, record, condition.then_some(true), &left, &right, how.spilling(rows));
                        prop_assert_eq!(text_of(&spilled.rows), text_of(&want), "{} in chunks of {}, spilling", mode, chunk);
                        prop_assert_eq!(&spilled.places, &got.places);
                        prop_assert_eq!(&spilled.faults, &got.faults);
                    }
                }
            }
        }
    }
}

#[test]
fn a_hot_key_comes_out_in_blocks_and_whole() {
    let row = |n: i64| {
        vec![
            Value::Float(if n % 2 == 0 { 7.0 } else { n as f64 }),
            text("s"),
            int(n % 12),
        ]
    };
    let (left, right): (Rows, Rows) = ((0..30).map(row).collect(), (0..20_000).map(row).collect());
    for mode in MODES {
        for condition in [None, Some(false), Some(true)] {
            let bound = bound(mode, &[0], true, condition.is_some());
            let (want, _) = slow(mode, &[0], true, condition.is_some(), &left, &right);
            for share in [64 << 10, 1 << 20] {
                let how = How::new(7000, share);
                let got = fast(&bound, true, condition, &left, &right, how);
                assert!(
                    got.rows == want,
                    "{mode}, {condition:?}, {share}: {} rows, not {}",
                    got.rows.len(),
                    want.len()
                );
                // Held in memory as runs, or as frames on disk.
                for rows in [0, 1000] {
                    let spilled = fast(&bound, true, condition, &left, &right, how.spilling(rows));
                    assert!(spilled.rows == got.rows, "{mode}, {condition:?}, {share}, spilling");
                    assert!(spilled.places == got.places && spilled.faults == got.faults);
                }
            }
        }
    }
}

#[test]
fn what_does_not_even_have_the_least_room_is_refused_with_the_stages_name() {
    let bound = bound("inner", &[0], true, false);
    let Make::Probe(probing) = &bound.make else {
        panic!("a probe")
    };
    let setup = setup(100 << 10);
    let build = (probing.build)(&setup).unwrap();
    let refused = build.filler().err().unwrap();
    assert!(matches!(&refused, Error::Failed { code, message, .. }
        if *code == codes::HELD_TOO_MUCH && message.starts_with("`join`")));
    assert_eq!(setup.budget.used(), 0);
}

/// Rows whose keys are distributed in a way that matters: null, all different, half of them the same.
fn distributed(kind: &str, count: i64) -> Rows {
    let row = |n: i64| {
        let key = match kind {
            "hot" if n % 2 == 0 => Value::Float(7.0),
            "null" if n % 3 == 0 => NULL,
            "nan" if n % 3 == 0 => Value::Float(f64::NAN),
            "few" => Value::Float((n % 40) as f64),
            _ => Value::Float((n * 7919 % count) as f64),
        };
        vec![key, text(&format!("a text of some length, {}", n % 1000)), int(n % 11)]
    };
    (0..count).map(row).collect()
}

#[test]
fn within_any_memory_the_same_comes_out() {
    // The right side takes some MiB: it fits into the first limit, and not into the others.
    for (left, right, mode, condition) in [
        (distributed("all", 6_000), distributed("all", 40_000), "full", None),
        (distributed("null", 9_000), distributed("nan", 40_000), "left", None),
        (
            distributed("nan", 3_000),
            distributed("null", 40_000),
            "right",
            Some(false),
        ),
        (distributed("hot", 16), distributed("hot", 40_000), "inner", Some(true)),
        (distributed("hot", 16), distributed("hot", 40_000), "full", None),
        (distributed("few", 800), distributed("few", 3_000), "anti", Some(false)),
        (distributed("hot", 3_000), distributed("all", 40_000), "semi", None),
    ] {
        let bound = bound(mode, &[0], true, condition.is_some());
        let how = How::new(1000, 256 << 10);
        let want = fast(&bound, true, condition, &left, &right, how);
        for limit in [6 << 20, 4 << 20] {
            let got = fast(&bound, true, condition, &left, &right, How { limit, ..how });
            assert!(
                text_of(&got.rows) == text_of(&want.rows),
                "{mode} within {limit}: {} rows",
                got.rows.len()
            );
            assert!(
                got.places == want.places && got.faults == want.faults,
                "{mode} within {limit}"
            );
        }
    }
}

/// Left: k, s, at. Right: k, s, t; both sorted by the last.
fn slow_asof(keys: &[usize], within: Option<i64>, left: &Rows, right: &Rows) -> Rows {
    let beside = |row: Option<&Vec<Value>>| -> Vec<Value> {
        let all = (0..3).filter(|at| !keys.contains(at));
        all.map(|at| row.map_or(NULL, |row| row[at].clone())).collect()
    };
    let is_match = |l: &Vec<Value>, r: &Vec<Value>| {
        let near = match (&l[2], &r[2]) {
            (Value::Int(at), Value::Int(t)) => t <= at,
            _ => false,
        };
        near && keys.iter().all(|&key| same(&l[key], &r[key]))
    };
    let age = |l: &Vec<Value>, r: &Vec<Value>| match (&l[2], &r[2]) {
        (Value::Int(at), Value::Int(t)) => at - t,
        _ => 0,
    };
    let row = |l: &Vec<Value>| {
        let last = right.iter().rev().find(|r| is_match(l, r));
        let last = last.filter(|r| within.is_none_or(|within| age(l, r) <= within));
        [l.clone(), beside(last)].concat()
    };
    left.iter().map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn asof_is_the_last_row_not_after(
        left in rows(30), right in rows(40), keys in prop_oneof![Just(vec![]), Just(vec![0]), Just(vec![0, 1])],
        within in prop_oneof![Just(None), (0..6i64).prop_map(Some)],
    ) {
        let in_order = |mut rows: Rows| {
            // Nulls stand anywhere; the others ascend.
            let mut times: Vec<i64> = rows.iter().filter_map(|row| match row[2] { Value::Int(t) => Some(t), _ => None }).collect();
            times.sort_unstable();
            let mut times = times.into_iter();
            for row in &mut rows {
                if row[2] != NULL {
                    row[2] = times.next().map_or(NULL, int);
                }
            }
            rows
        };
        let (left, right) = (in_order(left), in_order(right));
        let at = argument(None, Arg::Match { left: 2, right: 2, shared: false, compare: Compare::NotBefore });
        let on: Vec<Item> = keys.iter().map(|&at| key(["k", "s"][at], at)).chain([at]).collect();
        let options = [("within", constant(int(within.unwrap_or(0))))];
        let (left_schema, right_schema) = sides();
        let right_schema: Schema = right_schema.fields().iter().enumerate()
            .map(|(at, field)| match keys.contains(&at) {
                true => field.clone(),
                false => Field::new(format!("{}_right", field.name), field.ty.clone(), true),
            }).collect();
        let streams = [right_schema.clone()];
        let items = [argument(Some("r"), Arg::Stream(0))];
        let bound = bind(&Call {
            mode: Some("asof"),
            on: &on,
            options: if within.is_some() { &options } else { &[] },
            streams: &streams,
            beside: Some(&right_schema),
            ..call(&left_schema, 3, &items)
        }).unwrap();
        let want = slow_asof(&keys, within, &left, &right);
        for chunk in CHUNKS {
            let how = How::new(chunk, 1 << 20);
            let got = fast(&bound, false, None, &left, &right, how);
            prop_assert_eq!(text_of(&got.rows), text_of(&want));
            for rows in [0, 3] {
                let spilled = fast(&bound, false, None, &left, &right, how.spilling(rows));
                prop_assert_eq!(text_of(&spilled.rows), text_of(&want), "spilling");
                prop_assert_eq!(&spilled.places, &got.places);
            }
        }
    }

    #[test]
    fn cross_is_every_pair(left in rows(12), right in rows(30), condition: bool) {
        let bound = bound("cross", &[], true, condition);
        let (want, bad) = slow("inner", &[], true, condition, &left, &right);
        for chunk in CHUNKS {
            let how = How::new(chunk, 64 << 10);
            for how in [how, how.spilling(0), how.spilling(4)] {
                let got = fast(&bound, true, condition.then_some(true), &left, &right, how);
                prop_assert_eq!(text_of(&got.rows), text_of(&want));
                let found: Vec<u64> = got.faults.iter().map(|fault| fault.0).collect();
                prop_assert_eq!(&found, &bad);
            }
        }
    }
}

#[test]
fn nullability_is_as_the_mode_makes_it() {
    let not_null = |names: [&str; 3]| -> Schema {
        let types = [Type::Float, STRING, INT];
        names
            .iter()
            .zip(types)
            .map(|(name, ty)| Field::new(*name, ty, false))
            .collect()
    };
    let (left, right) = (not_null(["k", "s", "n"]), not_null(["k", "t", "m"]));
    let on = [key("k", 0)];
    let items = [argument(Some("r"), Arg::Stream(0))];
    let streams = [right.clone()];
    for (mode, want) in [
        ("inner", "k: float, s: string, n: int, t: string, m: int"),
        ("left", "k: float, s: string, n: int, t: string?, m: int?"),
        ("right", "k: float, s: string?, n: int?, t: string, m: int"),
        ("full", "k: float, s: string?, n: int?, t: string?, m: int?"),
        ("semi", "k: float, s: string, n: int"),
    ] {
        let bound = bind(&Call {
            mode: Some(mode),
            on: &on,
            streams: &streams,
            beside: Some(&right),
            ..call(&left, 3, &items)
        });
        assert_eq!(bound.unwrap().schema.to_string(), want, "{mode}");
    }
}
