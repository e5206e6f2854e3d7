//! The first rows against a slow sort that throws the others away.

use super::super::codes;
use super::super::testing::*;
use super::entry::Entry;
use super::*;
use proptest::prelude::*;
use standpipe_sdk::spec::Arg;
use standpipe_sdk::{Arena, Column, Data, Schema, Text, Type, Value, View};
use std::cmp::Ordering;

fn columns() -> Schema {
    schema(&[("id", INT), ("k", STRING), ("f", Type::Float), ("s", STRING)])
}

fn keyed(keys: &[(usize, bool)]) -> Vec<Item> {
    keys.iter()
        .map(|&(at, descending)| Item {
            descending,
            ..column(at)
        })
        .collect()
}

fn bound(n: i64, keys: &[(usize, bool)], by: &[Item], nulls: &str) -> Bound {
    let options = [("nulls", argument(None, Arg::Word(nulls.into())))];
    bind(&Call {
        on: &keyed(keys),
        by,
        options: &options,
        ..call(&columns(), 4, &[constant(int(n))])
    })
    .unwrap()
}

/// Null and NaN at their ends, values in the order of the language.
fn compare(a: &Value, b: &Value, descending: bool, nulls_first: bool) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null if nulls_first => 0,
        Value::Null => 3,
        Value::Float(v) if v.is_nan() => 2,
        _ => 1,
    };
    let order = match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        _ => Ordering::Equal,
    };
    let order = if descending { order.reverse() } else { order };
    rank(a).cmp(&rank(b)).then(order)
}

/// All rows sorted, then the first of each group.
fn slow(rows: &Rows, n: usize, keys: &[(usize, bool)], by: &[usize], nulls_first: bool) -> Rows {
    let mut sorted = rows.clone();
    sorted.sort_by(|a, b| {
        let groups = by.iter().map(|&at| compare(&a[at], &b[at], false, false));
        let keys = keys
            .iter()
            .map(|&(at, down)| compare(&a[at], &b[at], down, nulls_first));
        groups.chain(keys).fold(Ordering::Equal, Ordering::then)
    });
    let same = |a: &Vec<Value>, b: &Vec<Value>| by.iter().all(|&at| compare(&a[at], &b[at], false, false).is_eq());
    sorted
        .chunk_by(same)
        .flat_map(|group| group.iter().take(n))
        .cloned()
        .collect()
}

fn row() -> impl Strategy<Value = Vec<Value>> {
    let float = prop_oneof![
        Just(NULL),
        proptest::sample::select(vec![0.0, -0.0, f64::NAN, 1.5, -3.0, f64::INFINITY]).prop_map(Value::Float),
        any::<f64>().prop_map(Value::Float)
    ];
    let words = [
        "",
        "a",
        "ab",
        "a\0",
        "abc and so on and on, past what an entry holds",
        "abd",
        "\0",
    ];
    let word = proptest::sample::select(words.map(text).to_vec());
    let group = prop_oneof![1 => Just(NULL), 5 => "[a-c]".prop_map(Value::String)];
    (group, float, prop_oneof![1 => Just(NULL), 6 => word]).prop_map(|(k, f, s)| vec![NULL, k, f, s])
}

proptest! {
    #[test]
    fn it_is_a_sort_and_the_first_rows(
        rows in proptest::collection::vec(row(), 0..60),
        n in 0usize..12,
        down in any::<bool>(),
        which in 0usize..3,
        group in any::<bool>(),
        nulls_first in any::<bool>(),
        chunk in 0usize..4,
        every in 0usize..9,
    ) {
        let rows: Rows = rows.into_iter().enumerate().map(|(i, mut row)| {
            row[0] = int(i as i64);
            row
        }).collect();
        let keys = &[vec![(2, down)], vec![(3, down), (2, !down)], vec![(2, down), (3, true)]][which];
        let by = if group { vec![1] } else { vec![] };
        let items: Vec<Item> = by.iter().map(|&at| column(at)).collect();
        let bound = bound(n as i64, keys, &items, if nulls_first { "first" } else { "last" });
        let got = match every {
            0 => run(&bound, &columns(), &rows, CHUNKS[chunk]),
            _ => run_spilling(&bound, &columns(), &rows, CHUNKS[chunk], every),
        };
        prop_assert_eq!(format!("{:?}", got.rows), format!("{:?}", slow(&rows, n, keys, &by, nulls_first)));
        prop_assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
    }
}

/// Every row is better than all before it.
fn rising(count: i64) -> Rows {
    (0..count)
        .map(|i| {
            let name = text(&format!(
                "a name that takes some room, for it is number {i} of all of them"
            ));
            vec![int(i), text(&format!("{}", i % 3)), Value::Float(i as f64), name]
        })
        .collect()
}

#[test]
fn rows_that_were_pushed_out_take_no_memory() {
    let rows = rising(30_000);
    for by in [&[][..], &[column(1)]] {
        let at: Vec<usize> = by.iter().map(|_| 1).collect();
        for keys in [&[(0, true)][..], &[(3, true)], &[(2, true), (3, false)]] {
            let bound = bound(20, keys, by, "last");
            // The rows take 4 MB.
            let got = try_run(&bound, &columns(), &rows, 500, 1_900_000).unwrap();
            assert_eq!(got.rows, slow(&rows, 20, keys, &at, false));
        }
    }
}

#[test]
fn whatever_the_memory_these_are_the_first_rows_or_an_error_that_names_the_stage() {
    let rows = rising(6000);
    for (by, at) in [(&[][..], &[][..]), (&[column(1)], &[1])] {
        for keys in [&[(0, true)][..], &[(3, true)], &[(2, false)]] {
            let bound = bound(2500, keys, by, "last");
            let want = slow(&rows, 2500, keys, at, false);
            let mut refused = 0;
            for limit in (1000..3_000_000).step_by(199_000) {
                match try_run(&bound, &columns(), &rows, 200, limit) {
                    Ok(got) => assert!(got.rows == want, "{limit}"),
                    Err(error) => {
                        refused += 1;
                        assert!(limit < 1_200_000, "{limit}: {error}");
                        assert!(error.to_string().contains("`top` needs "), "{error}");
                    }
                }
            }
            assert!(refused > 2, "{refused}");
        }
    }
}

#[test]
fn rows_of_every_length_are_kept_in_a_small_memory() {
    let lens = [0, 5, 40, 3_000, 30_000, 10, 60_000, 1];
    let name = |i: i64| text(&format!("{:03}", i * 37 % 400).repeat(lens[i as usize % 8]));
    let rows: Rows = (0..400)
        .map(|i| vec![int(i), name(i % 100), Value::Float(i as f64), name(i)])
        .collect();
    for (by, at) in [(&[][..], &[][..]), (&[column(1)], &[1])] {
        for keys in [&[(3, true)][..], &[(2, false)]] {
            let bound = bound(300, keys, by, "last");
            let want = slow(&rows, 300, keys, at, false);
            let got = try_run(&bound, &columns(), &rows, 13, 8 << 20).unwrap();
            assert!(got.rows == want, "{keys:?} {at:?}");
        }
    }
}

#[test]
fn lists_that_take_all_that_is_set_aside_for_them_can_be_written() {
    let wide = text(&"long ".repeat(80));
    let aside = (96 << 10) * 2 / size_of::<Entry>();
    for n in [aside / 2, aside - 10, aside, 2 * aside] {
        let setup = setup(96 << 20);
        let bound = bound(n as i64, &[(0, true)], &[], "last");
        let Make::Breaker(make) = &bound.make else {
            panic!("a breaker")
        };
        let mut filler = make(&setup).unwrap().filler().unwrap();
        let mut push = |ids: std::ops::Range<usize>| {
            let arena = Arena::new(16 << 20);
            let rows: Rows = ids.map(|id| vec![int(id as i64), NULL, NULL, wide.clone()]).collect();
            let batch = super::super::values::batch(&columns(), &rows, &arena).unwrap();
            filler.push(rows.len() as u64, batch)
        };
        push(0..n).unwrap();
        let mut other = setup.budget.reserve();
        other.grow(setup.budget.free()).unwrap();
        push(n..3 * n).unwrap();
        assert!(setup.spill.done().segments > 0, "{n}");
    }
}

#[test]
fn a_lane_that_is_done_can_write_the_long_rows_that_it_holds() {
    let disk = standpipe_sdk::Disk::new(std::env::temp_dir(), None).spill_rows(Some(10));
    let setup = Setup {
        spill: standpipe_sdk::Spill::new(Arc::new(disk)),
        ..setup(64 << 20)
    };
    let bound = bound(20, &[(3, false)], &[], "last");
    let Make::Breaker(make) = &bound.make else {
        panic!("a breaker")
    };
    let top = make(&setup).unwrap();
    let mut fillers = [top.clone().filler().unwrap(), top.clone().filler().unwrap()];
    let mut push = |lane: usize, rows: &Rows| {
        let arena = Arena::new(16 << 20);
        let batch = super::super::values::batch(&columns(), rows, &arena).unwrap();
        fillers[lane].push(lane as u64, batch).unwrap();
        fillers[lane].done().unwrap();
    };
    let long = |at: i64| vec![int(at), NULL, NULL, text(&"a long key".repeat(100_000 + at as usize))];
    push(0, &(0..3).map(long).collect());
    assert_eq!(setup.spill.done().segments, 0);
    push(1, &(3..23).map(|at| vec![int(at), NULL, NULL, text("b")]).collect());
    let written = setup.spill.done().segments;
    assert!(written > 0);
    let mut other = setup.budget.reserve();
    other.grow(setup.budget.free()).unwrap();
    push(0, &vec![]);
    assert_eq!(setup.spill.done().segments, written + 1);
    drop(other);
    drop(fillers);
    let got = read_all(&top.drain().unwrap(), &columns(), 1000);
    assert!(
        got.rows
            .iter()
            .map(|row| &row[0])
            .eq(&(0..20).map(int).collect::<Vec<_>>())
    );
}

#[test]
fn a_lane_sets_aside_what_the_plan_says() {
    for by in [&[][..], &[column(1)]] {
        let setup = setup(64 << 20);
        let bound = bound(3, &[(0, false)], by, "last");
        let Make::Breaker(make) = &bound.make else {
            panic!("a breaker")
        };
        let lane = make(&setup).unwrap().filler().unwrap();
        let (used, floor) = (setup.budget.used(), super::super::spill::lane_floor(64 << 20));
        assert!((floor - (64 << 20) / 256..=floor).contains(&used), "{used} {floor}");
        drop(lane);
        assert_eq!(setup.budget.used(), 0);
    }
}

#[test]
fn what_is_on_disk_rules_out_most_of_what_comes_later() {
    let schema = columns();
    let setup = setup(4 << 20);
    let bound = bound(5000, &[(0, false)], &[], "last");
    let Make::Breaker(make) = &bound.make else {
        panic!("a breaker")
    };
    let top = make(&setup).unwrap();
    let mut fillers = [top.clone().filler().unwrap(), top.clone().filler().unwrap()];
    // LZ4 makes little of these.
    let wide = |at: i64| {
        let word = |i: i64| format!("{:016x}", keys::hash(&(at << 8 | i).to_le_bytes()));
        text(&(0..40).map(word).collect::<String>())
    };
    const ROWS: i64 = 60_000;
    for chunk in 0..ROWS / 100 {
        let arena = Arena::new(1 << 20);
        let row = |at: i64| {
            let id = (chunk * 100 + at) * 7919 % ROWS;
            vec![int(id), NULL, NULL, wide(id)]
        };
        let batch = super::super::values::batch(&schema, &(0..100).map(row).collect::<Rows>(), &arena).unwrap();
        fillers[chunk as usize % 2].push(chunk as u64, batch).unwrap();
    }
    for filler in &mut fillers {
        filler.done().unwrap();
    }
    drop(fillers);
    let got = read_all(&top.drain().unwrap(), &schema, 1000);
    assert!(
        got.rows
            .iter()
            .map(|row| &row[0])
            .eq((0..5000).map(int).collect::<Vec<_>>().iter())
    );
    let bytes = setup.spill.done().written_bytes;
    assert!(setup.spill.done().segments > 2, "nothing was spilled");
    // The rows take 40 MB, those that are wanted 3.
    assert!(bytes < 20 << 20, "{bytes} bytes on disk");
}

#[test]
fn batches_that_store_other_kinds_are_kept_apart_when_they_move_and_on_disk() {
    for spill_rows in [None, Some(120)] {
        let disk = standpipe_sdk::Disk::new(std::env::temp_dir(), None).spill_rows(spill_rows);
        let setup = Setup {
            spill: standpipe_sdk::Spill::new(Arc::new(disk)),
            ..setup(64 << 20)
        };
        other_kinds(&setup);
        assert_eq!(setup.spill.done().segments > 1, spill_rows.is_some());
    }
}

fn other_kinds(setup: &Setup) {
    let schema = schema(&[("id", INT), ("v", STRING)]);
    let items = [constant(int(300))];
    let bound = bind(&Call {
        on: &keyed(&[(0, true)]),
        ..call(&schema, 2, &items)
    })
    .unwrap();
    let Make::Breaker(make) = &bound.make else {
        panic!("a breaker")
    };
    let top = make(setup).unwrap();
    let mut filler = top.clone().filler().unwrap();
    let arena = Arena::new(64 << 20);
    const ROWS: usize = 100;
    for chunk in 0..200u64 {
        let ids = arena.collect(ROWS, |i| chunk as i64 * ROWS as i64 + i as i64).unwrap();
        let views = arena.collect(ROWS, |i| View::inline(format!("{}", ids[i]).as_bytes()).unwrap());
        let texts = Text::inline(views.unwrap());
        let second = match chunk % 3 {
            0 => Column::nulls(ROWS),
            1 => Column::new(Data::Verbatim(texts), None, ROWS),
            _ => Column::string(texts, None),
        };
        let columns = arena.copy(&[Column::int(ids, None), second]).unwrap();
        filler.push(chunk, Batch::new(columns, None, ROWS)).unwrap();
    }
    filler.done().unwrap();
    let got = read_all(&top.drain().unwrap(), &schema, 1000);
    let want: Rows = (0..300)
        .map(|i| {
            let id = 19_999 - i;
            let second = match id / 100 % 3 {
                0 => NULL,
                1 => Value::Bytes(id.to_string().into_bytes()),
                _ => text(&id.to_string()),
            };
            vec![int(id), second]
        })
        .collect();
    assert_eq!(got.rows, want);
}

#[test]
fn what_it_says_of_its_output_and_of_wrong_arguments() {
    let known = bound(3, &[(2, true), (0, false)], &[column(1)], "last");
    assert_eq!(known.sorted_by, [(1, false), (2, true), (0, false)]);
    assert_eq!(known.reads, [1, 2, 0]);
    let schema = schema(&[("id", INT), ("l", Type::list(INT, true))]);
    let wrong = bind(&Call {
        on: &[column(1)],
        ..call(&schema, 2, &[constant(int(-1))])
    });
    assert_eq!(codes_of(wrong), [codes::WRONG_ARGUMENT, codes::NO_KEY]);
    let options = [("nulls", argument(None, Arg::Word("middle".into())))];
    let wrong = bind(&Call {
        on: &[column(0)],
        options: &options,
        ..call(&schema, 2, &[constant(int(1))])
    });
    assert_eq!(codes_of(wrong), [codes::WRONG_ARGUMENT]);
}
