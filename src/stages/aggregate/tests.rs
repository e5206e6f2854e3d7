use super::super::testing::*;
use super::*;
use crate::expr::{Expr, aggregate_call};
use proptest::prelude::*;
use standpipe_sdk::aggregate::OfRun;
use standpipe_sdk::spec::Item;
use standpipe_sdk::{Arena, Schema, Value};
use std::cmp::Ordering;

/// `aggregate … by k…` over columns of `schema`: each call is a name, its columns and a `where:` column.
fn bound(schema: &Schema, calls: &[(&str, &[usize], Option<usize>)], by: &[usize]) -> Bound {
    bound_to(schema, calls, by, false)
}

/// With `sorted`, what runs where the input is sorted by the keys.
fn bound_to(schema: &Schema, calls: &[(&str, &[usize], Option<usize>)], by: &[usize], sorted: bool) -> Bound {
    let items: Vec<Item> = calls
        .iter()
        .enumerate()
        .map(|(number, (name, columns, filter))| {
            let column = |&at: &usize| (None, Expr::column(at, &schema.fields()[at], Span::default()));
            let made = aggregate_call(name, columns.iter().map(column).collect(), Span::default()).unwrap();
            assert!(
                made.columns
                    .iter()
                    .zip(*columns)
                    .all(|(e, at)| e.ty == schema.fields()[*at].ty)
            );
            let arg = AggregateArg {
                aggregate: made.aggregate,
                columns: columns.to_vec(),
                filter: *filter,
                nullable: true,
            };
            argument(Some(&format!("c{number}")), Arg::Aggregate(arg))
        })
        .collect();
    let by: Vec<Item> = by.iter().map(|&at| item(&schema.fields()[at].name, at)).collect();
    let call = Call {
        by: &by,
        ..call(schema, schema.width(), &items)
    };
    let bound = bind_as("aggregate", &call).unwrap();
    if !sorted {
        return bound;
    }
    let streaming = streaming(&call).unwrap();
    assert!(streaming.verdicts.is_none());
    Bound {
        make: Make::Serial(streaming.serial),
        ..bound
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 2,
        Value::Float(f) if f.is_nan() => 1,
        _ => 0,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        _ => Ordering::Equal,
    })
}

fn orders(a: &[Value], b: &[Value]) -> Ordering {
    a.iter()
        .zip(b)
        .fold(Ordering::Equal, |sum, (a, b)| sum.then_with(|| order(a, b)))
}

/// What one aggregate makes of a group's values, slowly. Floats are summed in ascending order: only whole ones are used here.
fn slow(name: &str, values: &[Value]) -> Value {
    let mut sorted = values.to_vec();
    sorted.sort_by(order);
    let ints = || values.iter().map(|v| if let Value::Int(v) = v { *v } else { 0 });
    let floats = || values.iter().map(|v| if let Value::Float(v) = v { *v } else { 0.0 });
    let int_type = matches!(values.first(), Some(Value::Int(_)));
    let mut unique = sorted.clone();
    unique.dedup_by(|a, b| order(a, b) == Ordering::Equal);
    let or_null = |value: Value| if values.is_empty() { Value::Null } else { value };
    match name {
        "count" => int(values.len() as i64),
        "count_distinct" => int(unique.len() as i64),
        "any" => bool(values.contains(&bool(true))),
        "all" => bool(!values.contains(&bool(false))),
        "sum" if int_type => int(ints().sum()),
        "sum" => or_null(Value::Float(floats().sum())),
        "avg" if int_type => Value::Float(ints().sum::<i64>() as f64 / values.len() as f64),
        "avg" => or_null(Value::Float(floats().sum::<f64>() / values.len() as f64)),
        "min" => sorted.first().cloned().unwrap_or(NULL),
        "max" => sorted.last().cloned().unwrap_or(NULL),
        "first" => values.first().cloned().unwrap_or(NULL),
        "last" => values.last().cloned().unwrap_or(NULL),
        "collect" => or_null(Value::List(values.to_vec())),
        "string_join" => {
            let text = |v: &Value| {
                if let Value::String(v) = v {
                    v.clone()
                } else {
                    String::new()
                }
            };
            or_null(Value::String(values.iter().map(text).collect()))
        }
        "mode" => {
            let times = |value: &Value| values.iter().filter(|v| order(v, value) == Ordering::Equal).count();
            let most = unique.iter().map(times).max();
            unique.iter().find(|v| Some(times(v)) == most).cloned().unwrap_or(NULL)
        }
        other => panic!("{other}"),
    }
}

/// All of it, slowly: rows in input order, groups found by looking at all before.
fn oracle(rows: &Rows, calls: &[(&str, &[usize], Option<usize>)], by: &[usize]) -> Rows {
    let mut groups: Vec<(Vec<Value>, Vec<&Vec<Value>>)> = vec![];
    if by.is_empty() {
        groups.push((vec![], vec![]));
    }
    for row in rows {
        let key: Vec<Value> = by.iter().map(|&at| row[at].clone()).collect();
        match groups.iter_mut().find(|(k, _)| orders(k, &key) == Ordering::Equal) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups.sort_by(|a, b| orders(&a.0, &b.0));
    let values = |(key, rows): (Vec<Value>, Vec<&Vec<Value>>)| {
        let made = calls.iter().map(|(name, columns, filter)| {
            let counts = |row: &&&Vec<Value>| {
                filter.is_none_or(|at| row[at] == bool(true)) && columns.iter().all(|&at| row[at] != NULL)
            };
            let taken = rows.iter().filter(counts);
            let value = |row: &&Vec<Value>| columns.first().map_or(NULL, |&at| row[at].clone());
            slow(name, &taken.map(value).collect::<Vec<_>>())
        });
        key.iter().cloned().chain(made).collect()
    };
    groups.into_iter().map(values).collect()
}

/// Equal as keys are, and bit by bit where both are numbers.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

fn assert_same(got: &Rows, want: &Rows) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!(got.iter().zip(want).all(|(a, b)| same(a, b)), "{got:?}\n{want:?}");
    }
}

// k: int key, s: text key, n: int, f: float, t: text, b: bool
const FIELDS: [(&str, Type); 6] = [
    ("k", INT),
    ("s", STRING),
    ("n", INT),
    ("f", Type::Float),
    ("t", STRING),
    ("b", BOOL),
];

const CALLS: &[(&str, &[usize], Option<usize>)] = &[
    ("count", &[], None),
    ("count", &[2], Some(5)),
    ("sum", &[2], None),
    ("sum", &[3], Some(5)),
    ("avg", &[2], None),
    ("avg", &[3], None),
    ("min", &[2], None),
    ("max", &[3], None),
    ("min", &[4], None),
    ("max", &[4], Some(5)),
    ("first", &[4], None),
    ("last", &[2], None),
    ("first", &[3], Some(5)),
    ("collect", &[3], None),
    ("collect", &[4], Some(5)),
    ("string_join", &[4], None),
    ("count_distinct", &[3], None),
    ("count_distinct", &[4], None),
    ("mode", &[2], None),
    ("mode", &[4], None),
    ("any", &[5], None),
    ("all", &[5], None),
];

fn value_of(at: usize, pick: u64) -> Value {
    let small = (pick % 13) as i64 - 6;
    match (at, pick % 17) {
        (_, 0) => NULL,
        (0, _) => int(small),
        (1, 1) => text(""),
        (1, 2) => text("a\0b"),
        (1, n) if n % 2 == 1 => text(&format!("a key of more than sixteen bytes {small}")),
        (1, _) => text(&format!("key {small}")),
        (2, _) => int(small * 1_000_000_007),
        (3, 1) => Value::Float(f64::NAN),
        (3, 2) => Value::Float(-0.0),
        (3, 3) => Value::Float(f64::INFINITY),
        (3, _) => Value::Float(small as f64),
        (4, n) if n % 3 == 0 => text(&format!("a longer text, the one with number {small}")),
        (4, _) => text(&format!("{small}")),
        _ => bool(pick.is_multiple_of(3)),
    }
}

fn rows() -> impl Strategy<Value = Rows> {
    // Few keys, one hot key, or as many keys as rows.
    (0..3u8, proptest::collection::vec(any::<[u64; 6]>(), 0..120)).prop_map(|(kind, picks)| {
        let row = |(number, picks): (usize, &[u64; 6])| {
            let mut row: Vec<Value> = (0..6).map(|at| value_of(at, picks[at])).collect();
            match kind {
                1 if picks[0] % 2 == 0 => (row[0], row[1]) = (int(1), text("hot")),
                2 => row[0] = int(number as i64 * 7919 % 1009),
                _ => {}
            }
            row
        };
        picks.iter().enumerate().map(row).collect()
    })
}

proptest! {
    #[test]
    fn as_slowly_made_at_any_chunk_size(rows in rows(), by in 0..5usize) {
        let by: &[usize] = [&[][..], &[0], &[1], &[3], &[1, 0]][by];
        let schema = schema(&FIELDS);
        let bound = bound(&schema, CALLS, by);
        let want = oracle(&rows, CALLS, by);
        let mut first: Option<Rows> = None;
        for chunk in CHUNKS {
            let got = run(&bound, &schema, &rows, chunk);
            assert_same(&got.rows, &want);
            // Bit by bit the same as with other chunks.
            let first = first.get_or_insert_with(|| got.rows.clone());
            prop_assert_eq!(format!("{:?}", got.rows), format!("{first:?}"));
            prop_assert!(got.places.iter().enumerate().all(|(row, place)| place.offset == row as u64));
        }
    }
}

/// Those that never fail and whose states stay small.
const SMALL: &[(&str, &[usize], Option<usize>)] = &[
    ("count", &[], Some(5)),
    ("sum", &[3], None),
    ("avg", &[2], Some(5)),
    ("min", &[4], None),
    ("max", &[3], None),
    ("first", &[4], Some(5)),
    ("last", &[2], None),
    ("any", &[5], None),
];

proptest! {
    #[test]
    fn sorted_rows_need_no_table(rows in rows(), by in 0..4usize) {
        let by: &[usize] = [&[0][..], &[1], &[3], &[1, 0]][by];
        let schema = schema(&FIELDS);
        let mut rows = rows;
        let key = |row: &Vec<Value>| by.iter().map(|&at| row[at].clone()).collect::<Vec<_>>();
        rows.sort_by(|a, b| orders(&key(a), &key(b)));
        let want = run(&bound(&schema, SMALL, by), &schema, &rows, 7).rows;
        let streamed = bound_to(&schema, SMALL, by, true);
        for chunk in CHUNKS {
            let got = run(&streamed, &schema, &rows, chunk);
            prop_assert_eq!(format!("{:?}", got.rows), format!("{want:?}"));
            // The place of each group's last row.
            let last = |at: usize| at + 1 == rows.len() || orders(&key(&rows[at]), &key(&rows[at + 1])) != Ordering::Equal;
            let places: Vec<u64> = (0..rows.len()).filter(|&at| last(at)).map(|at| at as u64).collect();
            prop_assert_eq!(got.places.iter().map(|place| place.offset).collect::<Vec<_>>(), places);
        }
    }
}

#[test]
fn sorted_rows_that_are_refused_can_come_again() {
    let schema = schema(&FIELDS);
    let mut rows = many(60);
    rows.sort_by(|a, b| order(&a[0], &b[0]));
    every_refusal_can_be_repeated(&bound_to(&schema, SMALL, &[0], true), &schema, &rows);
}

#[test]
fn many_groups_leave_the_lane_and_meet_in_the_shards() {
    let schema = schema(&[("k", INT), ("n", INT), ("f", Type::Float), ("t", STRING)]);
    let calls: &[(&str, &[usize], Option<usize>)] = &[
        ("count", &[], None),
        ("sum", &[1], None),
        ("sum", &[2], None),
        ("last", &[3], None),
        ("collect", &[1], None),
    ];
    let bound = bound(&schema, calls, &[0]);
    for groups in [5_000i64, 40_000] {
        let rows: Rows = (0..40_000i64)
            .map(|i| {
                let k = i * 7919 % groups;
                vec![int(k), int(i), Value::Float(i as f64 / 3.0), text(&format!("{i}"))]
            })
            .collect();
        let got = run(&bound, &schema, &rows, 3_000).rows;
        assert_eq!(got.len(), groups as usize);
        assert!(
            got.windows(2)
                .all(|pair| order(&pair[0][0], &pair[1][0]) == Ordering::Less)
        );
        let total: i64 = got
            .iter()
            .map(|row| if let Value::Int(n) = row[2] { n } else { 0 })
            .sum();
        assert_eq!(total, (0..40_000).sum::<i64>());
        let again = run(&bound, &schema, &rows, 40_000).rows;
        assert_eq!(format!("{got:?}"), format!("{again:?}"));
    }
}

/// Rows of many groups, one of which has half of the rows.
fn many(rows: i64) -> Rows {
    (0..rows)
        .map(|i| {
            let k = if i % 2 == 0 { 7 } else { i * 7919 % 5003 };
            let long = format!("a key of more than sixteen bytes, number {k}");
            let values = [
                int(i % 1000),
                Value::Float((i % 300) as f64 / 7.0),
                text(&format!("{}", i % 97)),
            ];
            let key = [int(k), if k % 11 == 3 { NULL } else { text(&long) }];
            key.into_iter().chain(values).chain([bool(i % 3 == 0)]).collect()
        })
        .collect()
}

#[test]
fn what_does_not_fit_goes_to_disk_and_comes_back_the_same() {
    let schema = schema(&FIELDS);
    let rows = many(8_000);
    for by in [&[0][..], &[1], &[1, 0], &[]] {
        let bound = bound(&schema, CALLS, by);
        let want = format!("{:?}", run(&bound, &schema, &rows, 500).rows);
        for limit in [1 << 20, 2 << 20, 6 << 20, 12 << 20] {
            let got = try_run(&bound, &schema, &rows, 500, limit).unwrap();
            assert!(format!("{:?}", got.rows) == want, "{by:?} in {limit} bytes");
            assert!(
                got.places
                    .iter()
                    .enumerate()
                    .all(|(row, place)| place.offset == row as u64)
            );
        }
    }
}

#[test]
fn a_lane_without_a_claim_keeps_no_memory_from_others() {
    let schema = schema(&FIELDS);
    let bound = bound(&schema, CALLS, &[0]);
    let Make::Breaker(make) = &bound.make else {
        panic!("it keeps groups")
    };
    let setup = Setup {
        chunk_bytes: 256 << 10,
        ..setup(2 << 20)
    };
    let breaker = make(&setup).unwrap();
    let mut fill = breaker.clone().filler().unwrap();
    for (chunk, rows) in many(20_000).chunks(500).enumerate() {
        let arena = Arena::new(16 << 20);
        let batch = input(&bound, &schema, rows, chunk * 500, &arena);
        fill.push(chunk as u64, batch).unwrap();
    }
    fill.done().unwrap();
    drop(fill);
    let source = breaker.drain().unwrap();
    let mut readers: Vec<_> = (0..40).map(|_| source.clone().reader().unwrap()).collect();
    let mut claims = 0;
    while let Some(ticket) = source.ticket() {
        let reader = &mut readers[claims % 40];
        claims += 1;
        let mut more = reader.claim(ticket).unwrap();
        while more {
            let arena = Arena::new(16 << 20);
            more = !reader.decode(&arena, 1000, true).unwrap().last;
        }
        reader.let_go();
    }
    let used = setup.budget.used();
    assert!(claims > 10 && used > 0, "{claims} claims of {used} bytes");
    drop(readers);
    assert_eq!(setup.budget.used(), used);
}

#[test]
fn spilling_after_any_number_of_rows_changes_nothing() {
    let schema = schema(&FIELDS);
    let rows = many(600);
    let bound = bound(&schema, CALLS, &[1, 0]);
    let want = format!("{:?}", run(&bound, &schema, &rows, 100).rows);
    for every in [1, 7, 100, 599] {
        let got = run_spilling(&bound, &schema, &rows, 20, every);
        assert!(format!("{:?}", got.rows) == want, "every {every} rows");
    }
}

#[test]
fn partial_states_have_the_columns_that_they_say() {
    let schema = schema(&FIELDS);
    let rows = many(200);
    let setup = setup(64 << 20);
    let mut reservation = setup.budget.reserve();
    let arena = Arena::new(8 << 20);
    let batch = super::super::values::batch(&schema, &rows, &arena).unwrap();
    for (name, columns, _) in CALLS {
        let bound = bound(&schema, &[(name, columns, None)], &[0]);
        let column = |&at: &usize| (None, Expr::column(at, &schema.fields()[at], Span::default()));
        let made = aggregate_call(name, columns.iter().map(column).collect(), Span::default()).unwrap();
        let (aggregate, says) = (&made.aggregate, made.aggregate.partial());
        let columns: Vec<_> = columns.iter().map(|&at| batch.column(at)).collect();
        let valid = columns.iter().find_map(|column| column.valid());
        let input = standpipe_sdk::aggregate::Input {
            columns: &columns,
            rows: rows.len(),
            take: valid,
            order: standpipe_sdk::aggregate::RowOrder::default(),
        };
        let groups: Vec<u32> = (0..rows.len() as u32).map(|row| row % 3).collect();
        let mut whole = aggregate.states(&OfRun::without_end(1 << 20));
        whole.room(3, &input, &mut reservation).unwrap();
        whole.update(&groups, &input);
        whole.seal(&mut reservation).unwrap();
        let partial = whole.partial(&[2, 0, 1], &arena).unwrap();
        assert_eq!(partial.len(), says.width(), "{name}");
        for (column, field) in partial.iter().zip(says.fields()) {
            assert!(column.fits(&field.ty) && column.len() == 3, "{name}: {field}");
        }
        // And back: the values of the same groups, of the type that the stage says.
        let mut back = aggregate.states(&OfRun::without_end(1 << 20));
        back.room_to_merge(3, partial, &mut reservation).unwrap();
        back.merge(&[2, 0, 1], partial);
        back.seal(&mut reservation).unwrap();
        let mut fault = |_: usize, _: Code, text: &str| panic!("{text}");
        let one = whole.finish(&[0, 1, 2], &arena, &mut fault).unwrap();
        let other = back.finish(&[0, 1, 2], &arena, &mut fault).unwrap();
        assert!(
            one.fits(aggregate.ty()) && one.fits(&bound.schema.fields()[1].ty),
            "{name}"
        );
        for row in 0..3 {
            assert_eq!(
                format!("{:?}", one.cell(row)),
                format!("{:?}", other.cell(row)),
                "{name}"
            );
        }
        whole.release(&mut reservation);
        back.release(&mut reservation);
    }
    assert_eq!(reservation.bytes(), 0);
}

#[test]
fn keys_come_back_from_their_bytes() {
    let schema = schema(&[
        ("a", Type::Float),
        ("b", STRING),
        ("c", Type::list(STRING, true)),
        ("d", Type::Record(Schema::new(vec![Field::new("x", INT, true)]))),
    ]);
    let record = |x: Value| Value::Record(vec![("x".into(), x)]);
    let rows: Rows = vec![
        vec![Value::Float(-1.5), text("a\0\0b"), Value::List(vec![]), record(NULL)],
        vec![
            Value::Float(f64::NAN),
            text(""),
            Value::List(vec![text("x"), NULL, text("")]),
            record(int(-7)),
        ],
        vec![NULL, text("\0"), NULL, NULL],
    ];
    let bound = bound(&schema, &[("count", &[], None)], &[0, 1, 2, 3]);
    let got = run(&bound, &schema, &rows, 2).rows;
    let want: Rows = rows
        .iter()
        .map(|row| row.iter().cloned().chain([int(1)]).collect())
        .collect();
    assert_same(&got, &want);
}

#[test]
fn no_lane_takes_what_another_cannot_do_without() {
    const LIMIT: usize = 4 << 20;
    let schema = schema(&[("k", INT), ("g", INT), ("n", INT)]);
    let Make::Breaker(make) = bound(&schema, &[("sum", &[2], None)], &[0, 1]).make else {
        panic!("a breaker")
    };
    let setup = Setup {
        workers: 8,
        ..setup(LIMIT)
    };
    let own = setup.with_floor(least_of(LIMIT, setup.workers).takes).unwrap();
    let mut others = setup.budget.reserve();
    others.grow(setup.budget.free()).unwrap();
    let breaker = make(&own).unwrap();
    let lanes: Result<Vec<_>> = (0..setup.workers).map(|_| breaker.clone().filler()).collect();
    assert_eq!(lanes.unwrap().len(), setup.workers);
}
