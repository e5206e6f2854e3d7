//! Outcomes of reading and writing lines: tables of what each text becomes, and serde_json as the judge of everything else.

use super::*;
use crate::formats::out::Out;
use proptest::prelude::*;
use standpipe_sdk::spec::Wanted;
use standpipe_sdk::{Arena, Batch, Cell, Column, Data, Error, Faults, Field, ListData, Schema, Text, Type, View};

fn padded(text: &[u8]) -> Vec<u8> {
    [text, &[0; PADDING]].concat()
}

fn schema(fields: &[(&str, Type)]) -> Schema {
    fields
        .iter()
        .map(|(name, ty)| Field::new(*name, ty.clone(), true))
        .collect()
}

fn record(fields: &[(&str, Type)]) -> Type {
    Type::Record(schema(fields))
}

/// A cell as text: what a table of outcomes shows.
fn show(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".into(),
        Cell::Bool(v) => v.to_string(),
        Cell::Int(v) => v.to_string(),
        Cell::Float(v) => format!("{v:?}"),
        Cell::Decimal(v) => format!("dec {v}"),
        Cell::String(v) => format!("{v:?}"),
        Cell::Bytes(v) => format!("bytes {v:?}"),
        Cell::Date(v) => format!("date {v}"),
        Cell::Timestamp(v) => format!("ts {v}"),
        Cell::Duration(v) => format!("dur {v}"),
        Cell::Json(v) => format!("json {v}"),
        Cell::Verbatim(v) => format!("raw {v:?}"),
        Cell::List(v) => format!(
            "[{}]",
            (0..v.len()).map(|i| show(v.cell(i))).collect::<Vec<_>>().join(" ")
        ),
        Cell::Record(columns, row) => {
            format!(
                "{{{}}}",
                columns.iter().map(|c| show(c.cell(row))).collect::<Vec<_>>().join(" ")
            )
        }
    }
}

/// Rows, then faults as `row code record? column byte: message`.
fn decode_with(decoder: &mut Decoder, text: &[u8]) -> (Vec<String>, Vec<String>) {
    let arena = Arena::new(1 << 26);
    let faults = Faults::new(&arena, false);
    let block = padded(text);
    let (batch, consumed) = decoder
        .decode(&block, text.len(), 1000, 7, usize::MAX, &arena, &faults, true)
        .unwrap();
    assert_eq!(consumed, text.len());
    (rows(&batch), fault_lines(&faults))
}

fn rows(batch: &Batch<'_>) -> Vec<String> {
    let line = |row| {
        batch
            .columns()
            .iter()
            .map(|c| show(c.cell(row)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    (0..batch.rows()).map(line).collect()
}

fn fault_lines(faults: &Faults<'_>) -> Vec<String> {
    let by_row = faults.by_row().unwrap();
    let line = |f: &standpipe_sdk::Fault<'_>| {
        let kind = if f.record { " record" } else { "" };
        let column = f.column.map(|c| format!(" {c}")).unwrap_or_default();
        format!(
            "{} {}{kind}{column} {}: {}",
            f.row,
            f.code,
            f.byte.unwrap_or(0),
            f.message
        )
    };
    by_row.iter().copied().map(line).collect()
}

fn decode(fields: &Schema, text: &str) -> (Vec<String>, Vec<String>) {
    decode_with(&mut Decoder::new(fields, &[], &Reading::default()), text.as_bytes())
}

/// The value of column `a` of type `ty` where the line has this text, or the code of its fault.
fn one(ty: Type, text: &str) -> String {
    let (rows, faults) = decode(&schema(&[("a", ty)]), &format!("{{\"a\":{text}}}\n"));
    match faults.first() {
        Some(fault) => {
            assert_eq!(rows, ["null"]);
            fault
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .trim_end_matches(':')
                .to_string()
        }
        None => rows[0].clone(),
    }
}

#[test]
fn each_type_takes_its_values_and_no_others() {
    let list = |ty| Type::list(ty, true);
    let money = Type::Decimal { precision: 5, scale: 2 };
    for (ty, text, want) in [
        (Type::Int, "12", "12"),
        (Type::Int, "-0", "0"),
        (Type::Int, "1234567890123", "1234567890123"),
        (Type::Int, "-9223372036854775808", "-9223372036854775808"),
        (Type::Int, "9223372036854775808", "E0404"),
        (Type::Int, "1.0", "E0411"),
        (Type::Int, "1e2", "E0411"),
        (Type::Int, "12345678.5", "E0411"),
        (Type::Int, "\"1\"", "E0411"),
        (Type::Int, "true", "E0411"),
        (Type::Int, "01", "E0409"),
        (Type::Int, "-", "E0409"),
        (Type::Int, "+1", "E0409"),
        (Type::Int, "1 ", "1"),
        (Type::Int, "1x", "E0409"),
        (Type::Float, "1", "1.0"),
        (Type::Float, "-0", "-0.0"),
        (Type::Float, "563.15", "563.15"),
        (Type::Float, "-1.5e-3", "-0.0015"),
        (Type::Float, "0.30000000000000004", "0.30000000000000004"),
        (Type::Float, "18446744073709551616", "1.8446744073709552e19"),
        (Type::Float, "1e999", "E0404"),
        (Type::Float, "1.", "E0409"),
        (Type::Float, ".5", "E0409"),
        (Type::Float, "1.5e", "E0409"),
        (Type::Float, "NaN", "E0409"),
        (Type::Bool, "true", "true"),
        (Type::Bool, "false", "false"),
        (Type::Bool, "1", "E0411"),
        (Type::Bool, "tru", "E0409"),
        (Type::Bool, "null", "null"),
        (Type::Bool, "nul", "E0409"),
        (Type::String, "\"\"", "\"\""),
        (Type::String, "\"twelve chars\"", "\"twelve chars\""),
        (Type::String, "\"more than twelve\"", "\"more than twelve\""),
        (
            Type::String,
            "\"a\\\"b\\\\\\/\\b\\f\\n\\r\\t\"",
            "\"a\\\"b\\\\/\\u{8}\\u{c}\\n\\r\\t\"",
        ),
        (Type::String, "\"\\u00e9\\ud83d\\ude00\\u0000\"", "\"é😀\\0\""),
        (Type::String, "\"\\ud83d\"", "E0409"),
        (Type::String, "\"\\ude00\"", "E0409"),
        (Type::String, "\"\\ud83dx\"", "E0409"),
        (Type::String, "\"\\ud83d\\ud83d\"", "E0409"),
        (Type::String, "\"\\u12g4\"", "E0409"),
        (Type::String, "\"\\x\"", "E0409"),
        (Type::String, "\"a\tb\"", "E0409"),
        (Type::String, "\"é\"", "\"é\""),
        (Type::String, "1", "E0411"),
        (Type::String, "{}", "E0411"),
        (Type::Date, "\"2026-01-31\"", "date 20484"),
        (Type::Date, "\"2026\\u002d01-31\"", "date 20484"),
        (Type::Date, "\"2026-01-32\"", "E0411"),
        (Type::Timestamp, "\"1970-01-01T00:00:01Z\"", "ts 1000000"),
        (Type::Timestamp, "5", "E0411"),
        (Type::Duration, "\"PT1.5S\"", "dur 1500000"),
        (Type::Bytes, "\"aGk=\"", "bytes [104, 105]"),
        (Type::Bytes, "\"aGl=\"", "E0411"),
        (Type::Bytes, "\"a\"", "E0411"),
        (money.clone(), "1.5", "dec 150"),
        (money.clone(), "\"1.50\"", "dec 150"),
        (money.clone(), "1.555", "E0404"),
        (money.clone(), "1000", "E0404"),
        (money, "true", "E0411"),
        (Type::Json, "{\"x\": [1, 2.50]}", "json {\"x\": [1, 2.50]}"),
        (
            Type::Json,
            "123456789012345678901234567890",
            "json 123456789012345678901234567890",
        ),
        (Type::Json, "\"a\\n\"", "json \"a\\n\""),
        (Type::Json, "null", "null"),
        (Type::Json, "[1,]", "E0409"),
        (Type::Null, "null", "null"),
        (Type::Null, "1", "E0411"),
        (list(Type::Int), "[]", "[]"),
        (list(Type::Int), "[1, null ,3]", "[1 null 3]"),
        (
            list(list(Type::String)),
            "[[\"a\"],[],null,[\"b\",\"c\"]]",
            "[[\"a\"] [] null [\"b\" \"c\"]]",
        ),
        (list(Type::Int), "{}", "E0411"),
        (list(Type::Int), "[1", "E0409"),
        (list(Type::Int), "[1}", "E0409"),
        (list(Type::Null), "[]", "[]"),
        (
            record(&[("x", Type::Int), ("y", Type::Bool)]),
            "{\"y\":true}",
            "{null true}",
        ),
        (
            record(&[("x", Type::Int), ("y", Type::Bool)]),
            "{\"x\":1,\"z\":[{}],\"x\":2}",
            "{2 null}",
        ),
        (record(&[("x", Type::Int)]), "[]", "E0411"),
        (record(&[]), "{}", "{}"),
    ] {
        assert_eq!(one(ty.clone(), text), want, "{ty} from {text}");
    }
    // A fault within a nested value leaves the rest of it.
    let (rows, faults) = decode(
        &schema(&[("a", list(record(&[("x", Type::Int)])))]),
        "{\"a\":[{\"x\":1},{\"x\":\"2\"}]}",
    );
    assert_eq!(rows, ["[{1} {null}]"]);
    assert_eq!(faults, ["0 E0411 a[].x 1019: cannot read \"2\" as int"]);
}

#[test]
fn each_line_is_a_row_or_a_fault() {
    let fields = schema(&[("a", Type::Int), ("b", Type::String)]);
    let text = concat!(
        "{\"a\":1,\"b\":\"x\"}\n",
        "\n",
        "   \t\r\n",
        "{\"b\":\"y\"}\r\n",
        "{ \"b\" : \"z\" , \"a\" : 2 } \n",
        "{\"a\":3,\"b\":\"cut\n",
        "[1,2]\n",
        "id,name\n",
        "{\"a\":4} {\"a\":5}\n",
        "{\"a\":6,\"a\":7,\"c\":{\"d\":[1,{\"e\":null}]}}\n",
        "{\"a\":1 \"b\":2}\n",
        "{\"a\":8,}\n",
        "{a:9}\n",
        "{\"a\"}\n",
        "{\"b\":1,\"a\":\"q\"}\n",
        "{}\n",
        "{\"a\":10,\"b\":null}",
    );
    let (rows, faults) = decode(&fields, text);
    assert_eq!(
        rows,
        [
            "1, \"x\"",
            "null, \"y\"",
            "2, \"z\"",
            "null, null",
            "null, null",
            "null, null",
            "null, null",
            "7, null",
            "null, null",
            "null, null",
            "null, null",
            "null, null",
            "null, null",
            "null, null",
            "10, null"
        ]
    );
    assert_eq!(
        faults,
        [
            "3 E0409 record 1074: not JSON: the line ends within the record, at byte 16 of the line",
            "4 E0409 record 1075: the line is not a record, at byte 1 of the line",
            "5 E0409 record 1081: not JSON: a value is expected, at byte 1 of the line",
            "6 E0409 record 1097: not JSON lines: something stands behind the record, at byte 9 of the line",
            "8 E0409 record 1151: not JSON: `,` or `}` is expected, at byte 8 of the line",
            "9 E0409 record 1165: not JSON: a key in quotes is expected, at byte 8 of the line",
            "10 E0409 record 1168: not JSON: a key in quotes is expected, at byte 2 of the line",
            "11 E0409 record 1177: not JSON: `:` is expected behind a key, at byte 5 of the line",
            "12 E0411 b 1184: cannot read 1 as string"
        ]
    );
}

#[test]
fn bytes_that_are_not_utf8_spoil_only_their_line() {
    let fields = schema(&[("a", Type::String)]);
    let mut decoder = Decoder::new(&fields, &[], &Reading::default());
    let (rows, faults) = decode_with(
        &mut decoder,
        b"{\"a\":\"\xc3\xa9\"}\n{\"a\":\"x\xffy\"}\n{\"b\":\"\xed\xa0\x80\"}\n{\"a\":\"z\"}\n{\"a\":1}\0\n",
    );
    assert_eq!(rows, ["\"é\"", "null", "null", "\"z\"", "null"]);
    assert_eq!(
        faults,
        [
            "1 E0408 record 1018: not UTF-8, at byte 8 of the line",
            "2 E0408 record 1029: not UTF-8, at byte 7 of the line",
            "4 E0409 record 1052: not JSON lines: something stands behind the record, at byte 8 of the line"
        ]
    );
}

#[test]
fn fields_that_may_not_be_null_must_come() {
    let inner: Schema = [Field::new("x", Type::Int, false), Field::new("y", Type::Int, true)]
        .into_iter()
        .collect();
    let fields: Schema = [
        Field::new("a", Type::Int, false),
        Field::new("r", Type::Record(inner), true),
        Field::new("l", Type::list(Type::Int, false), true),
    ]
    .into_iter()
    .collect();
    let text = "{\"a\":1}\n{\"r\":null}\n{\"a\":null}\n{\"a\":2,\"r\":{}}\n{\"a\":3,\"l\":[1,null]}\n{}\n{\"a\":}\n";
    let (rows, faults) = decode(&fields, text);
    assert_eq!(rows[0], "1, null, null");
    assert_eq!(rows[3], "2, {null null}, null");
    assert_eq!(rows[4], "3, null, [1 null]");
    let short: Vec<&str> = faults.iter().map(|f| f.split(": ").next().unwrap()).collect();
    assert_eq!(
        short,
        [
            "1 E0406 a 1017",
            "2 E0406 a 1024",
            "3 E0406 r.x 1042",
            "4 E0406 l[] 1059",
            "5 E0406 a 1067",
            "6 E0409 record 1074"
        ]
    );
}

#[test]
fn only_wanted_fields_are_converted() {
    let fields = schema(&[
        ("a", Type::Int),
        ("r", record(&[("x", Type::Int), ("y", Type::Int)])),
        ("b", Type::Int),
    ]);
    let wanted = [Wanted::No, Wanted::Fields(vec![Wanted::No, Wanted::Yes]), Wanted::Text];
    let mut decoder = Decoder::new(&fields, &wanted, &Reading::default());
    let text = b"{\"a\":\"not an int\",\"r\":{\"x\":[],\"y\":1},\"b\":2,\"new\":1}\n{\"r\":null}\n";
    let arena = Arena::new(1 << 20);
    let faults = Faults::new(&arena, false);
    let block = padded(text);
    let (batch, _) = decoder
        .decode(&block, text.len(), 0, 0, 10, &arena, &faults, false)
        .unwrap();
    assert!(faults.is_empty() && batch.column(0).is_absent() && batch.origin().is_none());
    assert_eq!(show(batch.column(1).cell(0)), "{null 1}");
    assert_eq!(show(batch.column(1).cell(1)), "null");
    assert_eq!(show(batch.column(2).cell(0)), "2");
    assert_eq!(decoder.ignored(), 1);
}

#[test]
fn unread_columns_can_be_checked() {
    let fields: Schema = [
        Field::new("a", Type::Int, false),
        Field::new(
            "l",
            Type::list(record(&[("x", Type::String), ("y", Type::Bool)]), true),
            true,
        ),
        Field::new("r", record(&[("x", Type::Int), ("y", Type::Int)]), true),
    ]
    .into_iter()
    .collect();
    let wanted = [Wanted::No, Wanted::No, Wanted::Fields(vec![Wanted::Yes, Wanted::No])];
    let reading = Reading {
        check_all: true,
        ..Reading::default()
    };
    let mut decoder = Decoder::new(&fields, &wanted, &reading);
    let mut text = String::from(
        "{\"a\":1,\"l\":[{\"x\":\"\\n and more than twelve\"}],\"r\":{\"x\":1,\"y\":\"no\"}}\n{\"l\":[]}\n",
    );
    text += "{\"a\":2,\"l\":[{\"x\":\"s\"},{},{\"y\":1}]}\n{\"a\":3,\"l\":[{}\n";
    text += &"{\"a\":4,\"l\":[{\"x\":\"s\"},{\"y\":true}],\"l\":[{\"x\":null}],\"r\":{\"y\":1}}\n".repeat(100);
    for _ in 0..2 {
        let (rows, faults) = decode_with(&mut decoder, text.as_bytes());
        assert_eq!(rows.len(), 104);
        assert_eq!(
            (&*rows[0], &*rows[1], &*rows[103]),
            ("null, null, {1 null}", "null, null, null", "null, null, {null null}")
        );
        let short: Vec<&str> = faults
            .iter()
            .map(|f| f.rsplit_once(' ').unwrap().0.split(" 1").next().unwrap())
            .collect();
        assert_eq!(short, ["0 E0411 r.y", "1 E0406 a", "2 E0411 l[].y", "3 E0409 record"]);
    }
}

#[test]
fn options_name_nulls_and_forbid_extra_fields() {
    let fields = schema(&[("a", Type::Int), ("b", Type::String)]);
    let reading = Reading {
        nulls: vec![String::new(), "N\nA".into()],
        extra_is_error: true,
        check_all: false,
    };
    let mut decoder = Decoder::new(&fields, &[], &reading);
    let (rows, faults) = decode_with(
        &mut decoder,
        b"{\"a\":\"\",\"b\":\"N\\nA\"}\n{\"a\":1,\"b\":\"x\\ty\"}\n{\"a\":2,\"c\":1}\n",
    );
    assert_eq!(rows, ["null, null", "1, \"x\\ty\"", "null, null"]);
    assert_eq!(
        faults,
        ["2 E0419 record 1050: a field that the schema does not have, at byte 12 of the line"]
    );
}

#[test]
fn keys_in_any_order_with_any_escapes_find_their_column() {
    let long = "a_key_that_is_longer_than_sixteen_bytes";
    let fields = schema(&[
        ("a", Type::Int),
        (long, Type::Int),
        ("q\"", Type::Int),
        ("é", Type::Int),
        ("", Type::Int),
    ]);
    let text = format!(
        "{{\"{long}\":1,\"a\":2}}\n{{\"{long}x\":9,\"a\":3,\"{long}\":4}}\n{{\"\\u0061\":5,\"q\\\"\":6,\"\\u00e9\":7}}\n{{\"é\":8,\"q\\u0022\":9,\"\":10}}\n",
    );
    let (rows, faults) = decode(&fields, &text);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        rows,
        [
            "2, 1, null, null, null",
            "3, 4, null, null, null",
            "5, null, 6, 7, null",
            "null, null, 9, 8, 10"
        ]
    );
}

#[test]
fn repeated_keys_leave_the_last_value() {
    let fields = schema(&[
        ("l", Type::list(Type::String, true)),
        ("r", record(&[("x", Type::Int), ("l", Type::list(Type::Int, true))])),
        ("b", Type::Bool),
    ]);
    let text = concat!(
        "{\"l\":[\"a\",\"b\"],\"l\":[\"c\"],\"r\":{\"x\":1,\"l\":[1,2]},\"r\":{\"l\":[3]},\"b\":true,\"b\":false}\n",
        "{\"l\":[\"d\"],\"l\":null,\"r\":null,\"r\":{\"x\":2},\"b\":null,\"b\":true}\n",
        "{\"l\":null,\"l\":[\"e\"],\"r\":{\"x\":2},\"r\":null,\"b\":true,\"b\":null}\n",
    );
    let (rows, faults) = decode(&fields, text);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(
        rows,
        [
            "[\"c\"], {null [3]}, false",
            "null, {2 null}, true",
            "[\"e\"], null, null"
        ]
    );
}

#[test]
fn a_bad_row_takes_back_what_it_wrote() {
    let fields = schema(&[
        ("l", Type::list(Type::Int, true)),
        ("r", record(&[("l", Type::list(Type::Int, true))])),
        ("a", Type::Int),
    ]);
    let good = "{\"l\":[1,2],\"r\":{\"l\":[3]},\"a\":4}\n";
    let bad = "{\"l\":[\"x\",9],\"r\":{\"l\":[9,9,9]},\"a\":9,\"l\":[8,8\n";
    let (rows, faults) = decode(&fields, &[good, bad, good, bad, bad, good].concat());
    let row = "[1 2], {[3]}, 4";
    let none = "null, null, null";
    assert_eq!(rows, [row, none, row, none, none, row]);
    assert!(
        faults.len() == 3 && faults.iter().all(|f| f.contains("record")),
        "{faults:?}"
    );
}

#[test]
fn nesting_ends_at_256() {
    // What the smallest stack that lines are read on has, a program's main thread; a test's thread has a quarter of it.
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(nesting_ends);
    thread.unwrap().join().unwrap();
}

fn nesting_ends() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}\n", "[".repeat(depth), "]".repeat(depth));
    let records = |depth: usize| format!("{}1{}\n", "{\"a\":".repeat(depth), "}".repeat(depth));
    let deepest = (0..255).fold(Type::Int, |ty, _| Type::list(ty, true));
    for ty in [Type::Json, Type::Int, deepest] {
        let fields = schema(&[("a", ty)]);
        for (text, deep) in [
            (nested(255), false),
            (nested(256), true),
            (nested(50_000), true),
            (records(256), false),
            (records(257), true),
        ] {
            let (rows, faults) = decode(&fields, &text);
            assert_eq!(rows.len(), 1);
            assert_eq!(faults.iter().any(|f| f.contains("E0409")), deep, "{faults:?}");
        }
    }
    let deep = (0..300).fold(Type::Int, |ty, _| record(&[("a", ty)]));
    assert!(decode(&schema(&[("a", deep)]), &records(290)).1[0].contains("E0409"));
    assert!(infer(nested(255).as_bytes(), &Reading::default()).is_ok());
    assert!(infer(nested(50_000).as_bytes(), &Reading::default()).is_err());
}

#[test]
fn many_rows_with_rare_values_line_up() {
    let fields = schema(&[
        ("n", Type::Int),
        ("rare", Type::Bool),
        ("tags", Type::list(Type::String, true)),
        ("r", record(&[("s", Type::String)])),
    ]);
    let mut text = String::new();
    let mut want = vec![];
    for i in 0..1000 {
        let (mut line, mut rare, mut tags, mut r) = (
            format!("{{\"n\":{i}"),
            "null".to_string(),
            "null".to_string(),
            "null".to_string(),
        );
        if i % 97 == 5 {
            line += ",\"rare\":true";
            rare = "true".into();
        }
        if i % 3 == 0 {
            let list: Vec<String> = (0..i % 7).map(|k| format!("\"tag number \\t{k}\"")).collect();
            line += &format!(",\"tags\":[{}]", list.join(","));
            tags = format!("[{}]", list.join(" "));
        }
        if i > 500 {
            line += &format!(",\"r\":{{\"s\":\"row {i}\"}}");
            r = format!("{{\"row {i}\"}}");
        }
        text += &(line + "}\n");
        want.push(format!("{i}, {rare}, {tags}, {r}"));
    }
    let mut decoder = Decoder::new(&fields, &[], &Reading::default());
    for _ in 0..3 {
        assert_eq!(decode_with(&mut decoder, text.as_bytes()), (want.clone(), vec![]));
    }
    // The same rows however the block is cut into batches.
    for max_rows in [1, 7, 333] {
        let block = padded(text.as_bytes());
        let (mut at, mut all) = (0, vec![]);
        while at < text.len() {
            let arena = Arena::new(1 << 24);
            let faults = Faults::new(&arena, true);
            let (batch, consumed) = decoder
                .decode(
                    &block[at..],
                    text.len() - at,
                    at as u64,
                    1,
                    max_rows,
                    &arena,
                    &faults,
                    true,
                )
                .unwrap();
            assert!(consumed > 0 && batch.rows() <= max_rows);
            assert!((0..batch.rows()).all(|r| text.as_bytes()[batch.place(r).offset as usize] == b'{'));
            all.extend(rows(&batch));
            at += consumed;
        }
        assert_eq!(all, want);
    }
}

#[test]
fn the_first_bad_row_stops_where_the_policy_says_so() {
    let fields = schema(&[("a", Type::Int)]);
    let text = b"{\"a\":1}\n{\"a\":\"x\"}\n{\"a\":2}\n";
    let arena = Arena::new(1 << 20);
    let faults = Faults::new(&arena, true);
    let block = padded(text);
    let mut decoder = Decoder::new(&fields, &[], &Reading::default());
    let (batch, consumed) = decoder
        .decode(&block, text.len(), 0, 0, 10, &arena, &faults, true)
        .unwrap();
    assert_eq!((batch.rows(), consumed, faults.first_row()), (2, 18, Some(1)));
}

#[test]
fn every_refused_allocation_is_an_error_and_nothing_else() {
    let fields = schema(&[
        ("a", Type::Int),
        ("l", Type::list(record(&[("s", Type::String), ("b", Type::Bool)]), true)),
        ("t", Type::Timestamp),
    ]);
    let line = "{\"a\":1,\"l\":[{\"s\":\"with \\\"escapes\\\" in it\"},{\"b\":true}]}\n{\"a\":\"x\",\"t\":null}\n{]\n";
    let text = line.repeat(100);
    let block = padded(text.as_bytes());
    let mut decoder = Decoder::new(&fields, &[], &Reading::default());
    let want = decode_with(&mut decoder, text.as_bytes());
    let mut refusals = 0;
    loop {
        let arena = Arena::new(1 << 24);
        let faults = Faults::new(&arena, false);
        arena.refuse_after(refusals);
        match decoder.decode(&block, text.len(), 1000, 7, usize::MAX, &arena, &faults, true) {
            Ok((batch, _)) => {
                arena.refuse_after(usize::MAX);
                assert_eq!((rows(&batch), fault_lines(&faults)), want);
                break;
            }
            Err(Error::Memory { .. }) => refusals += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refusals > 50, "{refusals}");
}

fn encode(schema: &Schema, batch: &Batch<'_>) -> (String, u64) {
    let mut out = Out::new();
    let written = Encoder::new(schema).encode(batch, &mut out).unwrap();
    (String::from_utf8(out.as_slice().to_vec()).unwrap(), written.not_finite)
}

#[test]
fn what_was_read_is_written_as_it_was() {
    let fields = schema(&[
        ("id", Type::Int),
        ("f", Type::Float),
        ("d", Type::Decimal { precision: 9, scale: 2 }),
        ("s", Type::String),
        ("b", Type::Bytes),
        ("on", Type::Date),
        ("at", Type::Timestamp),
        ("took", Type::Duration),
        ("j", Type::Json),
        (
            "l",
            Type::list(record(&[("x", Type::Int), ("y", Type::list(Type::Bool, true))]), true),
        ),
        ("k\"", Type::Bool),
        ("nothing", Type::Null),
    ]);
    let text = concat!(
        "{\"id\":1,\"f\":21.0,\"d\":12.50,\"s\":\"plain\",\"b\":\"aGVsbG8=\",\"on\":\"2026-01-31\",\"at\":\"2026-01-31T10:00:00Z\",",
        "\"took\":\"PT1.5S\",\"j\":{\"any\": [1, 2.50]},\"l\":[{\"x\":1,\"y\":[true,null]},{\"x\":null,\"y\":null},null],\"k\\\"\":true,\"nothing\":null}\n",
        "{\"id\":-9223372036854775808,\"f\":1e21,\"d\":-0.05,\"s\":\"\\\"\\\\ \\b\\f\\n\\r\\t \\u0001\\u001f é 😀 and so on\",\"b\":\"\",\"on\":null,",
        "\"at\":null,\"took\":null,\"j\":\"x\",\"l\":[],\"k\\\"\":false,\"nothing\":null}\n",
    );
    let arena = Arena::new(1 << 20);
    let faults = Faults::new(&arena, false);
    let block = padded(text.as_bytes());
    let mut decoder = Decoder::new(&fields, &[], &Reading::default());
    let (batch, _) = decoder
        .decode(&block, text.len(), 0, 0, 10, &arena, &faults, true)
        .unwrap();
    assert_eq!(fault_lines(&faults), Vec::<String>::new());
    assert_eq!(encode(&fields, &batch), (text.to_string(), 0));
    assert_eq!(
        encode(&Schema::default(), &Batch::new(&[], None, 2)),
        ("{}\n{}\n".to_string(), 0)
    );
}

#[test]
fn what_json_has_no_word_for_is_null_and_counted() {
    let values = [1.0, f64::NAN, f64::NEG_INFINITY];
    let elements = Column::float(&values, None);
    let list = ListData {
        offsets: &[0, 1, 3, 3],
        child: &elements,
    };
    let columns = [Column::float(&values, None), Column::new(Data::List(list), None, 3)];
    let fields = schema(&[("f", Type::Float), ("l", Type::list(Type::Float, true))]);
    let (text, not_finite) = encode(&fields, &Batch::new(&columns, None, 3));
    assert_eq!(
        text,
        "{\"f\":1.0,\"l\":[1.0]}\n{\"f\":null,\"l\":[null,null]}\n{\"f\":null,\"l\":[]}\n"
    );
    assert_eq!(not_finite, 4);
}

#[test]
fn csv_cells_are_bare_only_if_they_are_json() {
    for (ty, cell, want) in [
        (Type::Int, "12", "12"),
        (Type::Float, "7.10", "7.10"),
        (Type::Float, "nan", "null"),
        (Type::Bool, "true", "true"),
        (Type::String, "12", "\"12\""),
        (Type::String, "true", "\"true\""),
        (Type::String, "a\\b", "\"a\\\\b\""),
        (Type::String, "\"\"", "\"\""),
        (Type::String, "\"a \"\"b\"\" c\"", "\"a \\\"b\\\" c\""),
        (Type::String, "\"\"\"\"", "\"\\\"\""),
        (
            Type::String,
            "\"line\nbreak, tab\t\"\"\"",
            "\"line\\nbreak, tab\\t\\\"\"",
        ),
        (Type::Date, "2026-01-31", "\"2026-01-31\""),
        (Type::Int, "\"12\"", "\"12\""),
        (Type::Int, "-", "\"-\""),
        (Type::Null, "1e5", "1e5"),
    ] {
        let view = [View::new(cell.as_bytes(), 0, cell.len(), 0)];
        let buffers = [cell.as_bytes()];
        // SAFETY: the view was made for this buffer, which is a `str`.
        #[allow(unsafe_code)]
        let text = unsafe { Text::new(&view, &buffers) };
        let columns = [Column::new(Data::Verbatim(text), None, 1)];
        let (line, _) = encode(&schema(&[("a", ty)]), &Batch::new(&columns, None, 1));
        assert_eq!(line, format!("{{\"a\":{want}}}\n"), "{cell}");
    }
}

/// Any JSON value, with all sorts of text in it.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,40}".prop_map(Into::into),
        "[\\x00-\\x7f]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::hash_map("[a-e]{0,2}|\\PC{1,20}", inner, 0..5)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Whether a line is a record; `None` where serde_json stops early: 1e999 is JSON, but it has no number for it.
fn is_record(line: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line) {
        Ok(_) => Some(true),
        Err(error) => (!error.to_string().contains("out of range")).then_some(false),
    }
}

proptest! {
    #[test]
    fn lines_are_judged_as_serde_json_judges_them(
        value in json(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"{}[]:,\"\\ue019.-+tfn \t\x00\x1f\x80\xc3x"[..]), any::<bool>()), 0..3),
    ) {
        let mut line = serde_json::to_vec(&serde_json::json!({"a": value, "b": 1})).unwrap();
        for (at, byte, insert) in edits {
            let at = at.index(line.len());
            if insert { line.insert(at, byte) } else { line[at] = byte }
        }
        for ty in [Type::Json, Type::Int, Type::list(Type::Float, true), record(&[("a", Type::String), ("b", Type::Json)])] {
            let mut decoder = Decoder::new(&schema(&[("a", ty)]), &[], &Reading::default());
            let (rows, faults) = decode_with(&mut decoder, &line);
            let bad = faults.iter().any(|f| f.contains(" record "));
            if line.iter().all(|&b| matches!(b, b' ' | b'\t' | b'\r')) {
                prop_assert!(rows.is_empty());
            } else {
                prop_assert!(is_record(&line).is_none_or(|want| want != bad), "{}: {:?}", String::from_utf8_lossy(&line), faults);
            }
        }
    }

    #[test]
    fn every_machine_reads_the_same(
        value in json(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"{}[]:,\"\\ue019.-+tfn \t\x00\x1f\x80\xc3x"[..])), 0..3),
    ) {
        let mut line = serde_json::to_vec(&serde_json::json!({"a": value, "b": 1, "s": "a text of more than 32 bytes, so that it is long"})).unwrap();
        for (at, byte) in edits {
            let at = at.index(line.len());
            line[at] = byte;
        }
        let block = padded(&line);
        let fields = schema(&[("a", Type::Json), ("b", Type::Int), ("s", Type::String)]);
        let lines = decode::LinesOf::measure(&line, usize::MAX);
        let arena = Arena::new(1 << 24);
        let (narrow, wide) = (Faults::new(&arena, false), Faults::new(&arena, false));
        let mut decoder = Decoder::new(&fields, &[], &Reading::default());
        let lex = crate::expr::json::lexer::Lexer::new(&block, line.len());
        let (want, _) = decoder.decode_with(lex, lines, 0, 0, &arena, &narrow, true).unwrap();
        let (got, _) = decoder.decode_lines(&block, lines, 0, 0, &arena, &wide, true).unwrap();
        prop_assert_eq!(rows(&got), rows(&want));
        prop_assert_eq!(fault_lines(&wide), fault_lines(&narrow));
    }

    #[test]
    fn any_bytes_are_answered(text in proptest::collection::vec(prop::sample::select(&b"{}[]:,\"\\u019.-etrufalsn \r\n\x00\x80\xc3\xa9a"[..]), 0..200)) {
        let fields = schema(&[("a", Type::Json), ("n", record(&[("a", Type::Int)])), ("e", Type::list(Type::String, true))]);
        let mut decoder = Decoder::new(&fields, &[], &Reading::default());
        let (rows, faults) = decode_with(&mut decoder, &text);
        let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').filter(|l| !l.iter().all(|b| b" \t\r".contains(b))).collect();
        prop_assert_eq!(rows.len(), lines.len());
        for (row, line) in lines.iter().enumerate() {
            let bad = faults.iter().any(|f| f.starts_with(&format!("{row} ")) && f.contains(" record "));
            prop_assert!(is_record(line).is_none_or(|want| want != bad), "{:?}", String::from_utf8_lossy(line));
        }
        let _ = infer(&text, &Reading::default());
    }

    #[test]
    fn what_is_inferred_is_read_and_written_back(values in proptest::collection::vec(json(), 1..8), empty in "[a-z]{0,1}") {
        let reading = Reading { nulls: vec![empty], ..Reading::default() };
        let mut text = String::new();
        for value in &values {
            text += &serde_json::to_string(&serde_json::json!({"a": value})).unwrap();
            text.push('\n');
        }
        let found = infer(text.as_bytes(), &reading).unwrap();
        prop_assert_eq!(found.rows, values.len());
        let arena = Arena::new(1 << 24);
        let faults = Faults::new(&arena, false);
        let block = padded(text.as_bytes());
        let mut decoder = Decoder::new(&found.schema, &[], &reading);
        let (batch, _) = decoder.decode(&block, text.len(), 0, 0, 100, &arena, &faults, false).unwrap();
        prop_assert_eq!(fault_lines(&faults), Vec::<String>::new());
        prop_assert_eq!(batch.rows(), values.len());
        // What is written is read as the same rows again.
        let (again, _) = encode(&found.schema, &batch);
        let block = padded(again.as_bytes());
        let (second, _) = decoder.decode(&block, again.len(), 0, 0, 100, &arena, &faults, false).unwrap();
        prop_assert_eq!(fault_lines(&faults), Vec::<String>::new());
        prop_assert_eq!(rows(&second), rows(&batch));
        prop_assert!(again.lines().all(|line| is_record(line.as_bytes()) == Some(true)));
    }

    #[test]
    fn strings_and_numbers_are_read_as_serde_json_reads_them(text in "\\PC{0,60}|[\\x00-\\x7f]{0,60}", int: i64, float: f64) {
        let fields = schema(&[("s", Type::String), ("i", Type::Int), ("f", Type::Float)]);
        let line = serde_json::to_string(&serde_json::json!({"s": text, "i": int, "f": float})).unwrap();
        let (rows, faults) = decode(&fields, &line);
        prop_assert_eq!(faults, Vec::<String>::new());
        prop_assert_eq!(&rows[0], &format!("{text:?}, {int}, {float:?}"));
    }
}
