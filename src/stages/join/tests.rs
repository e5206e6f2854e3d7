//! Joins against nested loops.

use super::super::testing::*;
use super::super::values;
use super::*;
use proptest::prelude::*;
use standpipe_sdk::spec::Item;
use standpipe_sdk::{Arena, Batch, Bits, Column, Downstream, Emitter, Error, Faults, Flow, Judge, Place};

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

/// Joins in chunks of `chunk` rows, two lanes on each side, within `share` bytes of scratch.
fn fast(
    bound: &Bound,
    record: bool,
    condition: Option<bool>,
    left: &Rows,
    right: &Rows,
    chunk: usize,
    share: usize,
) -> Got {
    let (left_schema, right_schema) = sides();
    let mut setup = setup(64 << 20);
    setup.share = share;
    let Make::Probe(probing) = &bound.make else {
        panic!("a probe")
    };
    let build = (probing.build)(&setup).unwrap();
    let mut fillers = [build.clone().filler().unwrap(), build.clone().filler().unwrap()];
    for (number, part) in right.chunks(chunk.min(1 << 20)).enumerate() {
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
    for (number, part) in left.chunks(chunk.min(1 << 20)).enumerate() {
        let from = number * chunk.min(1 << 20);
        let (data, mut arena) = (Arena::new(32 << 20), Arena::new(32 << 20));
        arena.set_poison(true);
        let batch = places(values::batch(&left_schema, part, &data).unwrap(), from, &data);
        let faults = Faults::new(&arena, false);
        let mut down = Collect {
            got: &mut got,
            schema: &bound.schema,
        };
        let judge = condition.map(|_| &mut judge as &mut dyn Judge);
        let mut out = Emitter::new(&arena, &faults, &mut down);
        probers[number % 2].push(batch, judge, &mut out).unwrap();
        let bad: Vec<_> = (faults.by_row().unwrap().iter())
            .map(|fault| {
                (
                    from as u64 + u64::from(fault.row),
                    fault.code,
                    fault.message.to_string(),
                )
            })
            .collect();
        got.faults.extend(bad);
    }
    drop(probers);
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
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

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
                    let got = fast(&bound, record, condition.then_some(true), &left, &right, chunk, share);
                    prop_assert_eq!(text_of(&got.rows), text_of(&want), "{} in chunks of {}", mode, chunk);
                    let found: Vec<u64> = got.faults.iter().map(|fault| fault.0).collect();
                    prop_assert_eq!(&found, &bad);
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
                let got = fast(&bound, true, condition, &left, &right, 7000, share);
                assert!(
                    got.rows == want,
                    "{mode}, {condition:?}, {share}: {} rows, not {}",
                    got.rows.len(),
                    want.len()
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_stages_name() {
    let bound = bound("inner", &[0], true, false);
    let Make::Probe(probing) = &bound.make else {
        panic!("a probe")
    };
    let setup = setup(1 << 20);
    let build = (probing.build)(&setup).unwrap();
    let mut filler = build.filler().unwrap();
    let (_, schema) = sides();
    let rows: Rows = (0..1000)
        .map(|n| vec![Value::Float(n as f64), text("s"), int(n)])
        .collect();
    let arena = Arena::new(32 << 20);
    let batch = values::batch(&schema, &rows, &arena).unwrap();
    let refused = (0..100).find_map(|chunk| filler.push(chunk, batch).err()).unwrap();
    assert!(matches!(&refused, Error::Failed { code, message, .. }
        if *code == codes::HELD_TOO_MUCH && message.starts_with("`join`")));
    drop(filler);
    assert_eq!(setup.budget.used(), 0);
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
