use super::super::testing::*;
use super::*;
use crate::expr::{Expr, aggregate_call};
use crate::stages::values;
use proptest::prelude::*;
use standpipe_sdk::aggregate::{Input, OfRun, RowOrder};
use standpipe_sdk::spec::{Item, WindowArg};
use standpipe_sdk::{Arena, Budget, Code, Schema, Value};

const FIELDS: [(&str, Type); 6] = [
    ("id", INT),
    ("k", STRING),
    ("n", INT),
    ("f", Type::Float),
    ("s", STRING),
    ("b", BOOL),
];

/// Name, columns, `where:`.
type Aggregated = (&'static str, &'static [usize], Option<usize>);

/// Every way of keeping states: fixed ones, texts, and those that keep values.
const AGGREGATES: &[Aggregated] = &[
    ("count", &[], None),
    ("count", &[4], Some(5)),
    ("sum", &[2], None),
    ("sum", &[3], None),
    ("avg", &[2], Some(5)),
    ("stddev", &[3], None),
    ("corr", &[3, 3], None),
    ("min", &[3], None),
    ("max", &[4], None),
    ("min", &[4], Some(5)),
    ("first", &[2], None),
    ("last", &[4], None),
    ("any", &[5], None),
    ("median", &[3], None),
    ("count_distinct", &[4], None),
    ("collect", &[2], Some(5)),
    ("string_join", &[4], None),
    ("mode", &[4], None),
    ("approx_distinct", &[2], None),
];

fn fields() -> Schema {
    schema(&FIELDS)
}

fn aggregate_of(schema: &Schema, (name, columns, filter): &Aggregated) -> AggregateArg {
    let column = |&at: &usize| (None, Expr::column(at, &schema.fields()[at], Span::default()));
    let mut given: Vec<_> = columns.iter().map(column).collect();
    if *name == "string_join" {
        let comma = Expr::constant(Value::String(",".into()), STRING, Span::default());
        given.push((None, comma));
    }
    let made = aggregate_call(name, given, Span::default()).unwrap();
    AggregateArg {
        aggregate: made.aggregate,
        columns: columns.to_vec(),
        filter: *filter,
        nullable: true,
    }
}

fn aggregate(name: &str, at: usize) -> Item {
    argument(Some(name), Arg::Aggregate(aggregate_of(&fields(), &AGGREGATES[at])))
}

fn window(function: WindowFunction, column: Option<usize>, rows: u64) -> Item {
    let arg = WindowArg {
        function,
        column,
        rows,
        nullable: true,
    };
    argument(Some(&format!("{function:?}")), Arg::Window(arg))
}

fn bind_rows(items: &[Item], frame: (Option<i64>, Option<i64>), by: &[Item]) -> Result<Bound, Vec<Complaint>> {
    let fields = fields();
    let options = [("rows", argument(None, Arg::Frame(frame.0, frame.1)))];
    bind(&Call {
        by,
        options: &options,
        ..call(&fields, fields.width(), items)
    })
}

/// An aggregate of some rows, all at once.
fn slow_aggregate(arg: &AggregateArg, rows: &[Vec<Value>]) -> Value {
    let arena = Arena::new(8 << 20);
    let batch = values::batch(&fields(), rows, &arena).unwrap();
    let columns: Vec<_> = arg.columns.iter().map(|&at| batch.column(at)).collect();
    let input = Input {
        columns: &columns,
        rows: rows.len(),
        take: super::super::aggregate::take_of(arg, &batch, &arena).unwrap(),
        order: RowOrder::default(),
    };
    let mut reservation = Budget::new(64 << 20).reserve();
    let mut states = arg.aggregate.states(&OfRun::without_end(usize::MAX));
    states.room(1, &input, &mut reservation).unwrap();
    states.update(&vec![0; rows.len()], &input);
    states.seal(&mut reservation).unwrap();
    let mut fault = |_, code, text: &str| panic!("{code} {text}");
    let column = states.finish(&[0], &arena, &mut fault).unwrap();
    crate::expr::value_of_cell(&column.cell(0), arg.aggregate.ty())
}

/// What the stage should give of these items, row by row.
fn slow(rows: &Rows, items: &[Item], frame: (Option<i64>, Option<i64>), by: Option<usize>) -> Rows {
    let mut out: Rows = vec![];
    for (at, row) in rows.iter().enumerate() {
        let same = |other: &&Vec<Value>| by.is_none_or(|k| other[k] == row[k]);
        let group: Rows = rows.iter().filter(same).cloned().collect();
        let place = rows[..at].iter().filter(same).count() as i64;
        let first = frame.0.map_or(0, |from| place.saturating_add(from));
        let last = frame.1.map_or(i64::MAX, |to| place.saturating_add(to));
        let inside = |(number, _): &(usize, &Vec<Value>)| (first..=last).contains(&(*number as i64));
        let framed: Rows = group
            .iter()
            .enumerate()
            .filter(inside)
            .map(|(_, row)| row.clone())
            .collect();
        let mut made = row.clone();
        for item in items {
            made.push(match &item.arg {
                Arg::Aggregate(arg) => slow_aggregate(arg, &framed),
                Arg::Window(w) => {
                    let away = |by: i64| {
                        let at = usize::try_from(place + by).ok();
                        let row = at.and_then(|at| group.get(at));
                        row.map_or(NULL, |row| row[w.column.unwrap_or(0)].clone())
                    };
                    match w.function {
                        WindowFunction::Lag => away(-(w.rows as i64)),
                        WindowFunction::Lead => away(w.rows as i64),
                        _ => int(place + 1),
                    }
                }
                _ => NULL,
            });
        }
        out.push(made);
    }
    out
}

fn rows(most: usize) -> impl Strategy<Value = Rows> {
    let number = prop_oneof![1 => Just(NULL), 4 => (-3i64..4).prop_map(int)];
    let float = prop_oneof![
        1 => Just(NULL),
        4 => proptest::sample::select(vec![0.1, -2.5, 1e16, -1e16, f64::NAN, 0.3]).prop_map(Value::Float)
    ];
    let word = prop_oneof![
        1 => Just(NULL),
        4 => proptest::sample::select(vec!["", "a", "b", "a text that is longer than a view is"]).prop_map(text)
    ];
    let truth = prop_oneof![Just(NULL), Just(bool(true)), Just(bool(false))];
    // One key has half of the rows.
    let key = prop_oneof![3 => Just(text("hot")), 1 => Just(NULL), 2 => "[a-d]".prop_map(Value::String)];
    proptest::collection::vec((key, number, float, word, truth), 0..most).prop_map(|rows| {
        let row = |(at, (k, n, f, s, b))| vec![int(at as i64), k, n, f, s, b];
        rows.into_iter().enumerate().map(row).collect()
    })
}

const FRAMES: [(Option<i64>, Option<i64>); 16] = [
    (None, Some(0)),
    (None, None),
    (Some(0), Some(0)),
    (Some(-1), Some(0)),
    (Some(-6), Some(0)),
    (Some(-5), Some(-2)),
    (None, Some(-1)),
    (None, Some(2)),
    (Some(-2), Some(3)),
    (Some(1), Some(4)),
    (Some(0), None),
    (Some(-2), None),
    (Some(2), None),
    (Some(-3), Some(i64::MAX)),
    (Some(i64::MIN), Some(0)),
    (Some(i64::MIN), Some(i64::MIN)),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_frame_is_the_aggregate_of_its_rows(
        rows in rows(40),
        frame in 0usize..FRAMES.len(),
        which in proptest::sample::subsequence((0..AGGREGATES.len()).collect::<Vec<_>>(), 1..5),
        shifts in any::<bool>(),
        group in any::<bool>(),
        chunk in 0usize..4,
        spill in proptest::option::of(1usize..20),
    ) {
        let mut items: Vec<Item> = vec![];
        items.extend(which.iter().map(|&at| aggregate(&format!("a{at}"), at)));
        if shifts {
            items.extend([
                window(WindowFunction::Lag, Some(4), 1),
                window(WindowFunction::Lag, Some(2), 3),
                window(WindowFunction::RowNumber, None, 0),
            ]);
            if FRAMES[frame].1 != Some(0) {
                items.push(window(WindowFunction::Lead, Some(4), 2));
            }
        }
        let by = [column(1)];
        let by = if group { &by[..] } else { &[] };
        let bound = bind_rows(&items, FRAMES[frame], by).unwrap();
        let want = format!("{:?}", slow(&rows, &items, FRAMES[frame], group.then_some(1)));
        let got = match spill {
            None => run(&bound, &fields(), &rows, CHUNKS[chunk]),
            Some(every) => run_spilling(&bound, &fields(), &rows, CHUNKS[chunk], every),
        };
        prop_assert_eq!(format!("{:?}", got.rows), want);
        prop_assert!(got.faults.is_empty());
    }
}

#[test]
fn a_list_is_in_the_order_of_the_input_where_frames_are_gone_through_from_the_end() {
    // Groups of many lengths, whose rows the frame takes some batches later than they come.
    let items = [aggregate("list", 15)];
    for rows in 8..40i64 {
        for hot in 2..5 {
            let key = |i: i64| text(if i * hot % 7 < 3 { "hot" } else { "a" });
            let rows: Rows = (0..rows)
                .map(|i| vec![int(i), key(i), int(i), NULL, NULL, bool(true)])
                .collect();
            for frame in [(Some(-2), None), (Some(-3), None), (None, Some(2)), (Some(0), None)] {
                let bound = bind_rows(&items, frame, &[column(1)]).unwrap();
                let want = slow(&rows, &items, frame, Some(1));
                for chunk in [1, 2, 3, 7] {
                    let got = run(&bound, &fields(), &rows, chunk).rows;
                    assert_eq!(got, want, "{frame:?}, {chunk} of {} rows", rows.len());
                }
            }
        }
    }
}

#[test]
fn every_refusal_of_the_arena_can_be_repeated() {
    let row = |i: i64| {
        let key = text(if i % 3 == 0 { "a" } else { "b" });
        let long = text("some text that is long enough");
        vec![
            int(i),
            key,
            int(i % 5),
            Value::Float(0.1 * i as f64),
            long,
            bool(i % 2 == 0),
        ]
    };
    let rows: Rows = (0..40).map(row).collect();
    let mut items: Vec<Item> = [2, 3, 8, 13, 15].map(|at| aggregate(&format!("a{at}"), at)).to_vec();
    items.push(window(WindowFunction::Lag, Some(4), 1));
    items.push(window(WindowFunction::RowNumber, None, 0));
    for frame in [(None, Some(0)), (Some(-3), Some(0))] {
        let bound = bind_rows(&items, frame, &[column(1)]).unwrap();
        every_refusal_can_be_repeated(&bound, &fields(), &rows);
    }
}

#[test]
fn ranks_follow_any_order_and_refuse_rows_that_break_it() {
    let f = Value::Float;
    let items = [
        window(WindowFunction::Rank, Some(3), 0),
        window(WindowFunction::DenseRank, Some(3), 0),
    ];
    let ahead = [
        items[0].clone(),
        items[1].clone(),
        window(WindowFunction::Lead, Some(0), 1),
    ];
    // Values, their ranks, and which rows are bad.
    type Case<'c> = (&'c [Value], &'c [(i64, i64)], &'c [usize]);
    let cases: &[Case<'_>] = &[
        (
            &[f(1.0), f(1.0), f(2.0), f(f64::NAN), NULL, NULL],
            &[(1, 1), (1, 1), (3, 2), (4, 3), (5, 4), (5, 4)],
            &[],
        ),
        (
            &[f(3.0), f(2.0), f(2.0), f(1.0), f(f64::NAN), NULL],
            &[(1, 1), (2, 2), (2, 2), (4, 3), (5, 4), (6, 5)],
            &[],
        ),
        (
            &[NULL, NULL, f(-0.0), f(0.0), f(1.0)],
            &[(1, 1), (1, 1), (3, 2), (3, 2), (5, 3)],
            &[],
        ),
        (&[f(1.0), f(3.0), f(2.0), f(3.0)], &[(1, 1), (2, 2), (2, 2)], &[2]),
        (&[f(3.0), f(1.0), f(2.0), f(0.0)], &[(1, 1), (2, 2), (3, 3)], &[2]),
        (&[f(1.0), NULL, f(2.0)], &[(1, 1), (2, 2)], &[2]),
        (&[f(f64::NAN), f(2.0)], &[(1, 1)], &[1]),
    ];
    for (values, ranks, bad) in cases {
        let row = |(at, value): (usize, &Value)| vec![int(at as i64), NULL, NULL, value.clone(), NULL, NULL];
        let rows: Rows = values.iter().enumerate().map(row).collect();
        let want: Rows = ranks.iter().map(|&(a, b)| vec![int(a), int(b)]).collect();
        for chunk in CHUNKS {
            let bound = bind_rows(&items, (None, Some(0)), &[]).unwrap();
            let got = run(&bound, &fields(), &rows, chunk);
            let given: Rows = got.rows.iter().map(|row| row[6..].to_vec()).collect();
            assert_eq!(given, want, "{values:?}");
            let faults: Vec<usize> = got.faults.iter().map(|(at, ..)| *at as usize).collect();
            assert_eq!(&faults, bad, "{values:?}");
            assert!(
                got.faults.iter().all(|(_, code, text)| *code == codes::NOT_SORTED
                    && text.starts_with("`rank` needs rows in order: f = "))
            );
            // The same, where rows wait for others: bad ones come out with the reason, and null.
            let bound = bind_rows(&ahead, (None, Some(0)), &[]).unwrap();
            let got = run(&bound, &fields(), &rows, chunk);
            let good = got.rows.iter().enumerate().filter(|(at, _)| !bad.contains(at));
            let given: Rows = good.map(|(_, row)| row[6..8].to_vec()).collect();
            assert_eq!(given, want, "{values:?}");
        }
    }
}

#[test]
fn a_wide_frame_takes_no_longer_than_a_narrow_one() {
    // 30 000 rows of a frame of 20 000: by the square it would be 300 million joins.
    let row = |i| vec![int(i), text("k"), int(i % 7), Value::Float(0.1), text("w"), bool(true)];
    let rows: Rows = (0..30_000).map(row).collect();
    let items = [aggregate("s", 2), aggregate("m", 8)];
    let bound = bind_rows(&items, (Some(-19_999), Some(0)), &[column(1)]).unwrap();
    let got = run(&bound, &fields(), &rows, 3000);
    let want: i64 = (10_000..30_000).map(|i| i % 7).sum();
    assert_eq!(got.rows[29_999][6..], [int(want), text("w")]);
}

#[test]
fn what_does_not_fit_names_the_stage() {
    let row = |i| vec![int(i), text(&format!("key number {i}")), int(1), NULL, NULL, NULL];
    let rows: Rows = (0..20_000).map(row).collect();
    let items = [window(WindowFunction::Lag, Some(1), 1)];
    let bound = bind_rows(&items, (None, Some(0)), &[column(1)]).unwrap();
    let error = try_run(&bound, &fields(), &rows, 250, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("`window` needs "), "{error}");
    // What looks ahead goes to disk.
    let items = [window(WindowFunction::Lead, Some(1), 1)];
    let bound = bind_rows(&items, (None, Some(0)), &[column(1)]).unwrap();
    let got = try_run(&bound, &fields(), &rows, 500, 24 << 20).unwrap();
    assert!(got.rows.iter().all(|row| row[6] == NULL));
    assert!(got.rows.iter().enumerate().all(|(at, row)| row[0] == int(at as i64)));
}

fn events() -> Schema {
    schema(&[("k", STRING), ("at", Type::Timestamp), ("n", INT)])
}

/// `window MODE …, count(), sum(n), collect(n), max(k) on at by k`.
fn time(mode: &str, lengths: &[i64], on: Option<usize>, late: Option<i64>) -> Result<Bound, Vec<Complaint>> {
    let schema = events();
    let mut items: Vec<Item> = lengths.iter().map(|&d| constant(Value::Duration(d))).collect();
    let calls: [Aggregated; 4] = [
        ("count", &[], None),
        ("sum", &[2], None),
        ("collect", &[2], None),
        ("max", &[0], None),
    ];
    items.extend(calls.map(|call| argument(Some(call.0), Arg::Aggregate(aggregate_of(&schema, &call)))));
    let options: Vec<_> = late.iter().map(|&d| ("late", constant(Value::Duration(d)))).collect();
    let on: Vec<Item> = on.map(column).into_iter().collect();
    bind(&Call {
        mode: Some(mode),
        on: &on,
        by: &[item("k", 0)],
        options: &options,
        ..call(&schema, 3, &items)
    })
}

#[test]
fn wrong_arguments_say_so() {
    let items = [window(WindowFunction::RowNumber, None, 0)];
    assert_eq!(
        codes_of(bind_rows(&items, (Some(2), Some(1)), &[])),
        [codes::WRONG_ARGUMENT]
    );
    assert!(codes_of(bind_rows(&items, (Some(1), Some(1)), &[])).is_empty());
    let wrong = codes::WRONG_ARGUMENT;
    assert_eq!(codes_of(time("tumble", &[], None, None)), [wrong, codes::NEEDS_ON]);
    assert_eq!(codes_of(time("tumble", &[0], Some(1), None)), [wrong]);
    assert_eq!(codes_of(time("hop", &[5, 6], Some(1), None)), [wrong]);
    assert_eq!(codes_of(time("session", &[5], Some(0), None)), [codes::OTHER_TYPE]);
    assert_eq!(codes_of(time("session", &[5], Some(1), Some(-1))), [wrong]);
}

/// Windows of rows as they come, slowly; late rows are the second part.
fn slow_time(rows: &Rows, length: i64, step: Option<i64>, late: i64) -> (Rows, Vec<u64>) {
    let (mut latest, mut bad, mut good) = (i64::MIN, vec![], vec![]);
    for (number, row) in rows.iter().enumerate() {
        match row[1] {
            Value::Timestamp(at) if at >= latest.saturating_sub(late) => {
                latest = latest.max(at);
                good.push((at, row));
            }
            _ => bad.push(number as u64),
        }
    }
    // Key, start, end, rows.
    let mut windows: Vec<(&Value, i64, i64, Vec<&Vec<Value>>)> = vec![];
    match step {
        Some(step) => {
            for (at, row) in &good {
                for start in (at - length + 1..=*at).filter(|start| start.rem_euclid(step) == 0) {
                    match windows.iter_mut().find(|w| *w.0 == row[0] && w.1 == start) {
                        Some(window) => window.3.push(row),
                        None => windows.push((&row[0], start, start + length, vec![row])),
                    }
                }
            }
        }
        None => {
            let mut sorted = good.clone();
            sorted.sort_by_key(|(at, _)| *at);
            for (at, row) in sorted {
                let last = windows.iter_mut().rev().find(|w| *w.0 == row[0]);
                match last.filter(|w| at < w.2) {
                    Some(window) => {
                        window.2 = at + length;
                        window.3.push(row);
                    }
                    None => windows.push((&row[0], at, at + length, vec![row])),
                }
            }
            // Rows carry their number.
            let number = |row: &&Vec<Value>| if let Value::Int(n) = row[2] { n } else { 0 };
            windows.iter_mut().for_each(|w| w.3.sort_by_key(number));
        }
    }
    let key = |value: &Value| match value {
        Value::String(text) => (0, text.clone()),
        _ => (1, String::new()),
    };
    windows.sort_by_key(|w| (w.2, key(w.0)));
    let row = |(key, start, end, rows): (&Value, i64, i64, Vec<&Vec<Value>>)| {
        let values: Vec<Value> = rows.iter().map(|row| row[2].clone()).collect();
        let sum = values.iter().map(|v| if let Value::Int(v) = v { *v } else { 0 }).sum();
        vec![
            key.clone(),
            Value::Timestamp(start),
            Value::Timestamp(end),
            int(values.len() as i64),
            int(sum),
            Value::List(values),
            key.clone(),
        ]
    };
    (windows.into_iter().map(row).collect(), bad)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn windows_in_time_are_those_of_all_rows(
        steps in proptest::collection::vec((-6i64..9, 0usize..5, 0u8..20), 0..60),
        shape in 0usize..4,
        late in 0i64..12,
        chunk in 0usize..4,
    ) {
        let mut now = -20;
        let rows: Rows = steps.iter().enumerate().map(|(number, &(by, key, null))| {
            now += by;
            let key = if key == 0 { NULL } else { text(["hot", "hot", "a", "b"][key - 1]) };
            let at = if null == 0 { NULL } else { Value::Timestamp(now) };
            vec![key, at, int(number as i64)]
        }).collect();
        let (mode, lengths, length, step) = [
            ("tumble", &[5][..], 5, Some(5)),
            ("hop", &[6, 2], 6, Some(2)),
            ("hop", &[7, 3], 7, Some(3)),
            ("session", &[4], 4, None),
        ][shape];
        let bound = time(mode, lengths, Some(1), Some(late)).unwrap();
        let got = run(&bound, &events(), &rows, CHUNKS[chunk]);
        let (want, bad) = slow_time(&rows, length, step, late);
        prop_assert_eq!(format!("{:?}", got.rows), format!("{want:?}"));
        let faults: Vec<u64> = got.faults.iter().map(|(at, ..)| *at).collect();
        prop_assert_eq!(faults, bad);
        prop_assert!(got.faults.iter().all(|(_, code, _): &(u64, Code, String)| *code == codes::LATE));
    }
}

#[test]
fn windows_in_time_hold_those_that_are_open_only() {
    // Each row is of a window of its own: a limit that does not hold a tenth of them.
    let row = |i| {
        let key = text(&format!("a key that is of some length, {i}"));
        vec![key, Value::Timestamp(i), int(i)]
    };
    let rows: Rows = (0..40_000).map(row).collect();
    for mode in ["tumble", "session"] {
        let bound = time(mode, &[10], Some(1), None).unwrap();
        let got = try_run(&bound, &events(), &rows, 250, 3 << 20).unwrap();
        assert_eq!(got.rows.len(), 40_000);
        let bound = time(mode, &[1 << 40], Some(1), None).unwrap();
        let error = try_run(&bound, &events(), &rows, 250, 3 << 20).unwrap_err();
        assert!(error.to_string().contains("`window` needs "), "{error}");
    }
}

#[test]
fn windows_that_are_open_at_the_end_keep_their_values_however_many_there_are() {
    const WINDOWS: i64 = 12_000;
    let rows: Rows = (0..WINDOWS)
        .map(|i| vec![text("k"), Value::Timestamp(10 * i), int(i)])
        .collect();
    for (mode, lengths) in [("tumble", &[10][..]), ("hop", &[10, 10]), ("session", &[10])] {
        let bound = time(mode, lengths, Some(1), Some(1 << 40)).unwrap();
        let got = run(&bound, &events(), &rows, 1000).rows;
        assert_eq!(got.len(), WINDOWS as usize);
        for (i, row) in (0..).zip(&got) {
            assert_eq!(row[3..6], [int(1), int(i), Value::List(vec![int(i)])]);
        }
    }
}
