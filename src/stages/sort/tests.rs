//! Sorts against slow ones, in memory and over the disk.

use super::super::codes;
use super::super::testing::*;
use super::*;
use standpipe_sdk::spec::{Arg, Item};
use standpipe_sdk::{Arena, Column, Data, Disk, Schema, Spill, Type, Value};
use std::cmp::Ordering;

fn rows() -> (Schema, Rows) {
    let schema = schema(&[
        ("id", INT),
        ("f", Type::Float),
        ("s", STRING),
        ("l", Type::list(INT, true)),
    ]);
    let floats = [1.5, -0.0, f64::NAN, 0.0, -3.0];
    let rows = (0..500)
        .map(|i: i64| {
            let float = if i % 11 == 4 {
                NULL
            } else {
                Value::Float(floats[(i * 7 % 5) as usize])
            };
            let name = if i % 13 == 2 {
                NULL
            } else {
                text(&format!("a rather long name, number {}", i * 31 % 17))
            };
            vec![int(i), float, name, Value::List((0..i % 3).map(int).collect())]
        })
        .collect();
    (schema, rows)
}

fn rank(value: &Value, nulls_first: bool) -> u8 {
    match value {
        Value::Null if nulls_first => 0,
        Value::Null => 3,
        Value::Float(v) if v.is_nan() => 2,
        _ => 1,
    }
}

fn slow(rows: &Rows, keys: &[(usize, bool)], nulls_first: bool) -> Vec<i64> {
    let mut sorted = rows.clone();
    sorted.sort_by(|a, b| {
        keys.iter().fold(Ordering::Equal, |order, &(at, descending)| {
            order.then_with(|| {
                let (a, b) = (&a[at], &b[at]);
                let order = match (a, b) {
                    (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
                    (Value::String(a), Value::String(b)) => a.cmp(b),
                    (Value::Int(a), Value::Int(b)) => a.cmp(b),
                    _ => Ordering::Equal,
                };
                let order = if descending { order.reverse() } else { order };
                rank(a, nulls_first).cmp(&rank(b, nulls_first)).then(order)
            })
        })
    });
    ids(&sorted)
}

fn ids(rows: &Rows) -> Vec<i64> {
    rows.iter()
        .map(|row| {
            if let Value::Int(id) = row[0] {
                id
            } else {
                panic!("an int")
            }
        })
        .collect()
}

fn keyed(keys: &[(usize, bool)]) -> Vec<Item> {
    keys.iter()
        .map(|&(at, descending)| Item {
            descending,
            ..column(at)
        })
        .collect()
}

#[test]
fn the_order_is_the_languages_and_stable_whatever_the_lanes_and_chunks() {
    let (schema, rows) = rows();
    for keys in [
        &[(1, false)][..],
        &[(1, true)],
        &[(2, false)],
        &[(2, true), (1, false)],
        &[(1, true), (2, true)],
    ] {
        for first in [false, true] {
            let options = [(
                "nulls",
                argument(None, Arg::Word(if first { "first" } else { "last" }.into())),
            )];
            let items = keyed(keys);
            let bound = bind(&Call {
                options: &options,
                ..call(&schema, 4, &items)
            })
            .unwrap();
            assert_eq!(bound.sorted_by, if first { &[] } else { keys });
            let want = slow(&rows, keys, first);
            for chunk in CHUNKS {
                let got = run(&bound, &schema, &rows, chunk);
                assert_eq!(ids(&got.rows), want);
                assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
                for row in got.rows.iter().take(50) {
                    let Value::Int(id) = row[0] else { panic!("an int") };
                    assert_eq!(format!("{row:?}"), format!("{:?}", rows[id as usize]));
                }
            }
        }
    }
}

#[test]
fn whatever_the_memory_it_is_the_same_order_or_an_error_that_names_the_stage() {
    let (schema, rows) = rows();
    let items = keyed(&[(2, false)]);
    let bound = bind(&call(&schema, 4, &items)).unwrap();
    let want = slow(&rows, &[(2, false)], false);
    let mut refused = 0;
    for limit in (100_000..3_000_000).step_by(90_000) {
        match try_run(&bound, &schema, &rows, 50, limit) {
            Ok(got) => assert_eq!(ids(&got.rows), want),
            Err(error) => {
                refused += 1;
                assert!(
                    limit < 1_500_000 && error.to_string().contains("`sort` needs "),
                    "{limit}: {error}"
                );
            }
        }
    }
    assert!(refused > 1, "{refused}");
}

#[test]
fn rows_of_every_length_are_spilled_in_a_small_memory() {
    let schema = schema(&[("id", INT), ("s", STRING)]);
    let lens = [0, 5, 40, 3_000, 30_000, 10, 60_000, 1];
    let rows: Rows = (0..400)
        .map(|i| {
            vec![
                int(i),
                text(&format!("{:03}", i * 37 % 400).repeat(lens[i as usize % 8])),
            ]
        })
        .collect();
    let items = keyed(&[(1, true)]);
    let bound = bind(&call(&schema, 2, &items)).unwrap();
    let got = try_run(&bound, &schema, &rows, 13, 8 << 20).unwrap();
    assert_eq!(ids(&got.rows), slow(&rows, &[(1, true)], false));
}

#[test]
fn what_is_spilled_in_pieces_needs_nothing_of_what_others_took() {
    let setup = setup(64 << 20);
    let schema = schema(&[("id", INT), ("s", STRING)]);
    let wide = text(&"a text that makes the row long ".repeat(60));
    let rows: Rows = (0..500).map(|i| vec![int(i * 7919 % 500), wide.clone()]).collect();
    let bound = bind(&call(&schema, 2, &keyed(&[(0, false)]))).unwrap();
    let Make::Breaker(make) = &bound.make else {
        panic!("a breaker")
    };
    let breaker = make(&setup).unwrap();
    let mut filler = breaker.clone().filler().unwrap();
    let arena = Arena::new(4 << 20);
    let batch = super::super::values::batch(&schema, &rows, &arena).unwrap();
    let mut other = setup.budget.reserve();
    for chunk in 0..44 {
        if chunk == 42 {
            // Somebody takes all there is, down to the last byte.
            other.grow(setup.budget.free()).unwrap();
        }
        filler.push(chunk, batch).unwrap();
    }
    assert!(setup.spill.done().segments > 1, "in one piece");
    drop(other);
    filler.done().unwrap();
    drop(filler);
    let got = ids(&read_all(&breaker.drain().unwrap(), &schema, 1000).rows);
    assert!(got.len() == 44 * 500 && got.is_sorted());
}

#[test]
fn a_spill_that_was_refused_can_be_tried_again_and_loses_and_doubles_nothing() {
    let setup = setup(64 << 20);
    let schema = schema(&[("id", INT), ("s", STRING)]);
    let sort = Sort {
        stage: "sort",
        keys: Keys::grouping([0]),
        head: 9,
        short: true,
        own: 2,
        most: usize::MAX,
        merges: 1,
        setup: setup.clone(),
        store: Store::new("sort", &setup),
        refusals: AtomicU64::new(0),
        lanes: Lanes::default(),
    };
    let mut lane = Lane::new(&sort).unwrap();
    let wide = text(&"so long ".repeat(220));
    // Twenty thousand rows make two segments; the one row that is much longer, for which the writer has no room, is in the second.
    let rows: Rows = (0..19_999)
        .map(|i| vec![int(i * 7919 % 19_999), wide.clone()])
        .collect();
    for (chunk, rows) in rows.chunks(500).enumerate() {
        let arena = Arena::new(4 << 20);
        let batch = super::super::values::batch(&schema, rows, &arena).unwrap();
        lane.push(&sort, chunk as u64, &batch, &mut 0).unwrap();
    }
    let arena = Arena::new(4 << 20);
    let longest = vec![vec![int(19_999), text(&"so long ".repeat(80_000))]];
    let batch = super::super::values::batch(&schema, &longest, &arena).unwrap();
    let keys = sort.keys.block(&batch, &arena).unwrap();
    lane.rows.take(&batch, &keys, true, 40, 0).unwrap();
    let mut other = setup.budget.reserve();
    other.grow(setup.budget.free()).unwrap();
    for _ in 0..2 {
        assert!(matches!(lane.spill(&sort), Err(Error::Memory { .. })));
        assert!(
            setup.spill.done().segments > 0 && lane.rows.entries.len() < 20_000,
            "some of it"
        );
        assert!(!lane.rows.entries.is_empty());
    }
    drop(other);
    lane.spill(&sort).unwrap();
    let sorted = Arc::new(Merged::new(Merge::new(&sort.store, &setup.budget).unwrap(), &setup));
    let sorted: Arc<dyn Source> = sorted;
    assert_eq!(
        ids(&read_all(&sorted, &schema, 1000).rows),
        (0..20_000).collect::<Vec<i64>>()
    );
}

#[test]
fn a_lane_sets_aside_what_the_plan_says() {
    let setup = setup(64 << 20);
    let (schema, _) = rows();
    let bound = bind(&call(&schema, 4, &keyed(&[(2, false)]))).unwrap();
    let Make::Breaker(make) = &bound.make else {
        panic!("a breaker")
    };
    let lane = make(&setup).unwrap().filler().unwrap();
    assert_eq!(setup.budget.used(), super::super::spill::lane_floor(64 << 20));
    drop(lane);
    assert_eq!(setup.budget.used(), 0);
}

#[test]
fn lists_are_no_keys() {
    let (schema, _) = rows();
    assert_eq!(codes_of(bind(&call(&schema, 4, &[column(3)]))), [codes::NO_KEY]);
    let options = [("nulls", argument(None, Arg::Word("middle".into())))];
    let items = keyed(&[(0, false)]);
    let wrong = Call {
        options: &options,
        ..call(&schema, 4, &items)
    };
    assert_eq!(codes_of(bind(&wrong)), [codes::WRONG_ARGUMENT]);
}

#[test]
fn batches_that_store_other_kinds_are_kept_apart() {
    for spill_rows in [None, Some(3)] {
        let disk = Disk::new(std::env::temp_dir(), None).spill_rows(spill_rows);
        let setup = Setup {
            spill: Spill::new(Arc::new(disk)),
            ..setup(4 << 20)
        };
        other_kinds(&setup);
    }
}

fn other_kinds(setup: &Setup) {
    let sort = Arc::new(Sort {
        stage: "sort",
        keys: Keys::grouping([0]),
        head: 9,
        short: true,
        own: 2,
        most: usize::MAX,
        merges: 1,
        setup: setup.clone(),
        store: Store::new("sort", setup),
        refusals: AtomicU64::new(0),
        lanes: Lanes::default(),
    });
    let arena = Arena::new(1 << 16);
    let views = [standpipe_sdk::View::inline(b"007").unwrap(); 2];
    let texts = standpipe_sdk::Text::inline(&views);
    let verbatim = Column::new(Data::Verbatim(texts), None, 2);
    let mut filler = sort.clone().filler().unwrap();
    for (chunk, second) in [Column::nulls(2), verbatim, Column::int(&[8, 9], None)]
        .into_iter()
        .enumerate()
    {
        let columns = [Column::int(&[1, 2], None), second];
        let columns = arena.copy(&columns).unwrap();
        filler.push(chunk as u64, Batch::new(columns, None, 2)).unwrap();
    }
    filler.done().unwrap();
    let schema = schema(&[("k", INT), ("v", STRING)]);
    let got = read_all(&sort.drain().unwrap(), &schema, 100);
    let seven = Value::Bytes(b"007".to_vec());
    assert_eq!(
        got.rows,
        [
            vec![int(1), NULL],
            vec![int(1), seven.clone()],
            vec![int(1), int(8)],
            vec![int(2), NULL],
            vec![int(2), seven],
            vec![int(2), int(9)],
        ]
    );
}
