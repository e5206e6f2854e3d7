//! What the oracle does not say: messages and places of failures, lambdas, json, refusals, the operator.

use super::*;
use standpipe_sdk::{Arena, Batch, Bits, Column, Columns, Downstream, Emitter, Faults, Flow, RowWise};
use std::sync::atomic::{AtomicU64, Ordering};

const AT: Span = Span { start: 3, end: 9 };

fn int(n: i64) -> Expr {
    Expr::constant(Value::Int(n), Type::Int, AT)
}

fn text(t: &str) -> Expr {
    Expr::constant(Value::String(t.into()), Type::String, AT)
}

fn column(name: &str, index: usize, ty: Type) -> Expr {
    Expr::column(index, &Field::new(name, ty, true), AT)
}

/// Row, code, message, help.
type Failed = (u32, u16, String, Option<String>);

/// The values of `e` over one column, and the rows that failed with code and message.
fn run(e: &Expr, cells: &[Value], ty: &Type) -> (Vec<Value>, Vec<Failed>) {
    let arena = Arena::new(1 << 24);
    let cells: Vec<&Value> = cells.iter().collect();
    let columns = [values::column(&arena, &cells, ty).unwrap()];
    let batch = Batch::new(&columns, None, cells.len());
    let faults = Faults::new(&arena, false);
    let out = Evaluator::default().eval(e, &batch, &arena, &faults, None).unwrap();
    let values = (0..cells.len())
        .map(|row| values::of_cell(&out.cell(row), &e.ty))
        .collect();
    let failed = faults.by_row().unwrap().iter();
    let failed = failed.map(|f| (f.row, f.code.0, f.message.to_string(), f.help.map(str::to_string)));
    (values, failed.collect())
}

fn strings(cells: &[&str]) -> Vec<Value> {
    cells.iter().map(|t| Value::String(t.to_string())).collect()
}

#[test]
fn a_bad_number_says_what_and_how_to_go_on() {
    let e = Expr::cast(column("raw", 0, Type::String), Type::Int, AT).unwrap();
    let (values, failed) = run(&e, &strings(&["7", "12,5O", "8"]), &Type::String);
    assert_eq!(values, [Value::Int(7), Value::Null, Value::Int(8)]);
    let help = "`int(raw) catch 0`, or `on error to rejects`";
    assert_eq!(
        failed,
        [(1, 412, "cannot parse int from \"12,5O\"".into(), Some(help.into()))]
    );
    let e = Expr::catch(e, int(0), AT).unwrap();
    assert!(!e.fallible);
    let (values, failed) = run(&e, &strings(&["7", "x"]), &Type::String);
    assert_eq!((values, failed.len()), (vec![Value::Int(7), Value::Int(0)], 0));
}

#[test]
fn a_branch_not_taken_cannot_fail() {
    let x = || column("x", 0, Type::Int);
    let inverse = || Expr::arith(Arith::FloorDiv, int(10), x(), AT).unwrap();
    let zero = || Expr::compare(Cmp::Eq, x(), int(0), AT).unwrap();
    let cells = [Value::Int(0), Value::Int(5), Value::Null];
    let guarded = Expr::if_(zero(), int(-1), Some(inverse()), AT).unwrap();
    let (values, failed) = run(&guarded, &cells, &Type::Int);
    assert_eq!(
        (values, failed.len()),
        (vec![Value::Int(-1), Value::Int(2), Value::Null], 0)
    );
    let large = Expr::compare(Cmp::Gt, inverse(), int(1), AT).unwrap();
    let both = Expr::and(Expr::not(zero(), AT).unwrap(), large, AT).unwrap();
    let (values, failed) = run(&both, &cells, &Type::Int);
    assert_eq!(
        (values, failed.len()),
        (vec![Value::Bool(false), Value::Bool(true), Value::Null], 0)
    );
    let (_, failed) = run(&inverse(), &cells, &Type::Int);
    assert_eq!((failed[0].0, failed[0].1, failed.len()), (0, 402, 1));
    // A failing constant fails in every row that needs it, and only there.
    let constant = Expr::arith(Arith::FloorDiv, int(1), int(0), AT).unwrap();
    assert_eq!(constant.failing_constant().unwrap().code, DIVISION);
    let e = Expr::if_(zero(), int(1), Some(constant), AT).unwrap();
    assert!(e.failing_constant().is_none());
    let (_, failed) = run(&e, &cells, &Type::Int);
    assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn constants_fold_and_literals_adapt_to_decimals() {
    let sum = Expr::arith(Arith::Add, int(1), int(2), AT).unwrap();
    assert_eq!(sum.as_value(), Some(Value::Int(3)));
    let money = Type::Decimal {
        precision: 10,
        scale: 2,
    };
    let price = column("price", 0, money.clone());
    let gross = Expr::arith(Arith::Mul, price.clone(), Expr::literal_decimal("1.19", AT), AT).unwrap();
    assert_eq!(
        gross.ty,
        Type::Decimal {
            precision: 38,
            scale: 4
        }
    );
    let cells = [Value::Decimal { value: 1000, scale: 2 }];
    assert_eq!(
        run(&gross, &cells, &money).0,
        [Value::Decimal {
            value: 119_000,
            scale: 4
        }]
    );
    let refused = Expr::arith(Arith::Add, price, column("x", 1, Type::Float), AT).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (DECIMAL_WITH_FLOAT, "`+` does not take decimal(10,2) and float")
    );
    let refused = Expr::compare(Cmp::Eq, column("s", 0, Type::String), int(5), AT).unwrap_err();
    assert_eq!((refused.code, refused.helps), (COMPARE, vec!["`int(s)`".to_string()]));
}

#[test]
fn json_is_looked_into_lazily() {
    let j = || column("j", 0, Type::Json);
    let cells: Vec<Value> = [r#"{"a": {"b": [1, "x\n"]}}"#, r#"{"a": null}"#, r#"{}"#, "3"]
        .iter()
        .map(|t| Value::Json(t.to_string()))
        .collect();
    let a = |optional| Expr::field(j(), "a", optional, AT).unwrap();
    let (values, failed) = run(&a(false), &cells, &Type::Json);
    assert_eq!(values[0], Value::Json(r#"{"b": [1, "x\n"]}"#.into()));
    assert_eq!(
        failed.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(),
        [(2, MISSING.0), (3, JSON_KIND.0)]
    );
    let part = Expr::index(Expr::field(a(true), "b", true, AT).unwrap(), int(-1), true, AT).unwrap();
    let (values, failed) = run(&Expr::cast(part, Type::String, AT).unwrap(), &cells, &Type::Json);
    assert_eq!(
        (values, failed.len()),
        (
            vec![Value::String("x\n".into()), Value::Null, Value::Null, Value::Null],
            0
        )
    );
    let list = Type::list(Type::Int, true);
    let cells: Vec<Value> = ["[1, null, 2.0]", "[]", "null", "[\"x\"]", "{}"]
        .iter()
        .map(|t| Value::Json(t.to_string()))
        .collect();
    let (values, failed) = run(&Expr::cast(j(), list, AT).unwrap(), &cells, &Type::Json);
    assert_eq!(values[0], Value::List(vec![Value::Int(1), Value::Null, Value::Int(2)]));
    assert_eq!((&values[1], &values[2]), (&Value::List(vec![]), &Value::Null));
    assert_eq!(
        failed.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(),
        [(3, PARSE.0), (4, JSON_KIND.0)]
    );
}

fn call(name: &str, list: Expr, body: impl FnOnce(Expr) -> Expr + 'static) -> Expr {
    let lambda = LambdaArg {
        params: vec!["x".into()],
        build: Box::new(|fields| {
            let body = body(Expr::lambda_param(0, &fields[0], AT));
            Ok(Lambda {
                names: vec!["x".into()],
                body: Box::new(body),
            })
        }),
    };
    let arg = |value| CallArg {
        name: None,
        value,
        span: AT,
    };
    Expr::call(name, vec![arg(ArgValue::Expr(list)), arg(ArgValue::Lambda(lambda))], AT).unwrap()
}

#[test]
fn lambdas_see_elements_and_the_row_around_them() {
    let ty = Type::list(Type::Int, true);
    let list = |items: &[i64]| Value::List(items.iter().map(|&n| Value::Int(n)).collect());
    let cells = [list(&[1, 2]), Value::Null, list(&[]), list(&[4, 0])];
    let l = || column("l", 0, ty.clone());
    let inverse = call("map", l(), |x| Expr::arith(Arith::FloorDiv, int(8), x, AT).unwrap());
    let (values, failed) = run(&inverse, &cells, &ty);
    assert_eq!(
        (&values[0], &values[1], &values[2]),
        (&list(&[8, 4]), &Value::Null, &list(&[]))
    );
    assert_eq!(failed.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(), [(3, DIVISION.0)]);
    // The body reads the row's own list as well.
    let ends = call("filter", l(), move |x| {
        let ty = Type::list(Type::Int, true);
        let last = Expr::index(column("l", 0, ty), int(-1), false, AT).unwrap();
        Expr::compare(Cmp::Eq, x, last, AT).unwrap()
    });
    assert_eq!(run(&ends, &cells, &ty).0[0], list(&[2]));
    let any = call("any", l(), |x| Expr::compare(Cmp::Gt, x, int(1), AT).unwrap());
    assert_eq!(
        run(&any, &cells, &ty).0,
        [Value::Bool(true), Value::Null, Value::Bool(false), Value::Bool(true)]
    );
    let constant = Expr::list(vec![int(1), int(2)], AT).unwrap();
    assert_eq!(
        run_example(&call("map", constant, |x| Expr::arith(Arith::Div, x, int(2), AT).unwrap())),
        "[0.5, 1.0]"
    );
}

#[test]
fn functions_are_found_by_their_arguments() {
    let arg = |e: Expr| CallArg {
        name: None,
        value: ArgValue::Expr(e),
        span: AT,
    };
    let list = || Expr::list(vec![text("a"), text("b")], AT).unwrap();
    let joined = Expr::call("join", vec![arg(list()), arg(text(", "))], AT).unwrap();
    assert_eq!(run_example(&joined), "\"a, b\"");
    let named = CallArg {
        name: Some("separator".into()),
        ..arg(text("-"))
    };
    assert_eq!(
        run_example(&Expr::call("join", vec![arg(list()), named], AT).unwrap()),
        "\"a-b\""
    );
    let refused = Expr::call("revers", vec![arg(list())], AT).unwrap_err();
    assert_eq!(
        (refused.code, refused.helps),
        (FUNCTION, vec!["`reverse` is close".to_string()])
    );
    let refused = Expr::call("join", vec![arg(int(1))], AT).unwrap_err();
    assert_eq!(refused.message, "`list` of `join` is list<string>, not int");
    assert_eq!(
        run_example(&Expr::arith(Arith::Div, int(1), int(0), AT).unwrap()),
        "E0402: division by zero"
    );
}

#[test]
fn what_an_expression_reads_can_be_asked_and_renumbered() {
    let ty = Type::Record([Field::new("ip", Type::String, true)].into_iter().collect());
    let ip = Expr::field(column("client", 2, ty), "ip", false, AT).unwrap();
    let mut e = Expr::compare(Cmp::Eq, ip, column("other", 5, Type::String), AT).unwrap();
    assert_eq!(e.to_string(), "client.ip == other");
    let mut paths = vec![];
    e.record_paths(&mut |index, path| paths.push((index, path.iter().map(ToString::to_string).collect::<Vec<_>>())));
    assert_eq!(paths, [(2, vec!["ip".to_string()]), (5, vec![])]);
    e.remap(&|index| index + 1);
    let mut read = vec![];
    e.columns(&mut |index| read.push(index));
    assert_eq!(read, [3, 6]);
}

/// Keeps the ints of the last column of what is pushed.
struct Take(Vec<Option<i64>>, usize);

impl Downstream for Take {
    fn push<'b>(&mut self, _: usize, _: &'b Arena, batch: Batch<'b>, _: bool) -> standpipe_sdk::Result<Flow> {
        let last = batch.column(batch.columns().len() - 1);
        self.1 = batch.columns().iter().filter(|c| c.is_absent()).count();
        self.0.extend((0..batch.rows()).map(|row| match last.cell(row) {
            standpipe_sdk::Cell::Int(n) => Some(n),
            _ => None,
        }));
        Ok(Flow::More)
    }
}

#[test]
fn the_operator_follows_the_policy() {
    let e = Expr::cast(column("raw", 0, Type::String), Type::Int, AT).unwrap();
    let push = |stop: bool, null: bool| {
        let arena = Arena::new(1 << 20);
        let cells = strings(&["1", "x", "3", "y"]);
        let cells: Vec<&Value> = cells.iter().collect();
        let columns = [values::column(&arena, &cells, &Type::String).unwrap()];
        let faults = Faults::new(&arena, stop);
        let mut take = Take(vec![], 0);
        let nulled = Arc::new(AtomicU64::new(0));
        let exprs: Arc<[Expr]> = Arc::new([e.clone()]);
        let mut compute = Compute::new(&exprs, Arc::new([false]), null, Fixed::default()).count_into(nulled.clone());
        let mut out = Emitter::new(&arena, &faults, &mut take);
        compute.push(Batch::new(&columns, None, 4), &mut out).unwrap();
        assert_eq!(take.1, 1, "the column nobody keeps is absent");
        (take.0, faults.len(), nulled.load(Ordering::Relaxed))
    };
    assert_eq!(push(false, false), (vec![Some(1), Some(3)], 2, 0));
    assert_eq!(push(true, false), (vec![Some(1)], 1, 0));
    assert_eq!(push(false, true), (vec![Some(1), None, Some(3), None], 0, 2));
}

#[test]
fn packed_comparisons_agree_with_single_ones_at_every_length() {
    let arena = Arena::new(1 << 22);
    for len in [0, 1, 63, 64, 65, 127, 128, 1000] {
        let numbers = arena.collect(len, |i| (i as f64 * 7.7) % 13.0).unwrap();
        let mut columns = Columns::new(&arena, 1).unwrap();
        columns.push(Column::float(numbers, None));
        let batch = Batch::new(columns.finish(), None, len);
        let faults = Faults::new(&arena, false);
        let e = Expr::compare(Cmp::Gt, column("x", 0, Type::Float), int(6), AT).unwrap();
        let out = Evaluator::default().eval(&e, &batch, &arena, &faults, None).unwrap();
        let want = Bits::collect(&arena, len, |i| numbers[i] > 6.0).unwrap();
        let standpipe_sdk::Data::Bool(got) = out.data() else {
            panic!("bools")
        };
        assert_eq!(got.ones().collect::<Vec<_>>(), want.ones().collect::<Vec<_>>());
    }
}

#[test]
fn a_null_argument_makes_the_row_null_whatever_the_function_says() {
    // It claims that rows 0 and 2 are valid.
    static LIAR: FunctionSpec = FunctionSpec {
        name: "liar",
        eval: |args| {
            let values = args.arena().fill(args.rows(), 7i64)?;
            let valid = Bits::collect(args.arena(), args.rows(), |row| row != 1)?;
            Ok(Column::int(values, Some(valid)))
        },
        ..FunctionSpec::BASE
    };
    let e = Expr {
        kind: Kind::Call {
            spec: &LIAR,
            args: vec![Argument::Value(column("x", 0, Type::Int))],
            prepared: None,
        },
        ty: Type::Int,
        nullable: true,
        fallible: false,
        span: AT,
    };
    let (values, _) = run(&e, &[Value::Null, Value::Int(1), Value::Int(2)], &Type::Int);
    assert_eq!(values, [Value::Null, Value::Null, Value::Int(7)]);
}

/// `cargo test --release --lib expr::tests::speed -- --ignored --nocapture`: rows per microsecond of what is run most.
#[test]
#[ignore = "a measurement"]
fn speed() {
    const ROWS: usize = 16 << 10;
    let mut arena = Arena::new(64 << 20);
    let price: Vec<f64> = (0..ROWS).map(|i| i as f64 * 0.37).collect();
    let qty: Vec<i64> = (0..ROWS as i64).map(|i| i % 17).collect();
    let status: Vec<standpipe_sdk::View> = (0..ROWS)
        .map(|i| standpipe_sdk::View::inline(["paid", "open", "refunded"][i % 3].as_bytes()).unwrap())
        .collect();
    let columns = [
        Column::float(&price, None),
        Column::int(&qty, None),
        Column::string(standpipe_sdk::Text::inline(&status), None),
    ];
    let p = || column("price", 0, Type::Float);
    let q = || column("qty", 1, Type::Int);
    let s = || column("status", 2, Type::String);
    let call = |name: &str, args: Vec<Expr>| {
        let arg = |e| CallArg {
            name: None,
            value: ArgValue::Expr(e),
            span: AT,
        };
        Expr::call(name, args.into_iter().map(arg).collect(), AT)
    };
    let table = [
        Expr::arith(Arith::Mul, p(), q(), AT),
        Expr::compare(Cmp::Gt, p(), int(500), AT),
        Expr::compare(Cmp::Eq, s(), text("paid"), AT),
        Expr::in_list(s(), vec![text("paid"), text("open")], false, AT),
        Expr::arith(Arith::Add, q(), int(1), AT),
        Expr::arith(Arith::Div, p(), q(), AT),
        call("round", vec![p(), int(2)]),
        call("upper", vec![s()]),
        call("trim", vec![s()]),
        Expr::cast(q(), Type::String, AT),
        Expr::cast(p(), Type::String, AT),
    ];
    for e in table.into_iter().flatten() {
        let start = std::time::Instant::now();
        const TIMES: usize = 500;
        for _ in 0..TIMES {
            {
                let columns = arena.copy(&columns).unwrap();
                let faults = Faults::new(&arena, false);
                let batch = Batch::new(columns, None, ROWS);
                std::hint::black_box(Evaluator::default().eval(&e, &batch, &arena, &faults, None).unwrap());
            }
            arena.reset();
        }
        let nanos = start.elapsed().as_nanos() as f64 / (TIMES * ROWS) as f64;
        eprintln!("{nanos:6.2} ns/row  {e}");
    }
}
