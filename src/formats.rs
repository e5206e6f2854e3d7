//! File formats: for each a source and a sink side by side, over shared ways to cut, open and write text.

pub mod blocks;
pub mod codes;
pub mod csv;
pub mod input;
pub mod jsonl;
pub mod lines;
pub mod options;
pub mod out;
pub mod output;

use standpipe_sdk::spec::FormatSpec;

/// Every built-in format.
pub fn list() -> &'static [&'static FormatSpec] {
    &[&csv::CSV, &csv::TSV, &jsonl::JSONL]
}

#[cfg(test)]
mod tests {
    use crate::expr::{Evaluator, Expr, FPart};
    use crate::formats::csv::CsvEncoder;
    use crate::formats::jsonl;
    use crate::formats::out::Out;
    use crate::formats::output::RowEncoder;
    use standpipe_sdk::spec::Wanted;
    use standpipe_sdk::{Arena, Batch, Cell, Column, Data, Faults, Field, Schema, Span, Type};

    const AT: Span = Span { start: 0, end: 0 };
    const ROWS: usize = 6;

    /// The texts of an expression over one column.
    fn texts(e: &Expr, column: Column<'_>) -> Vec<String> {
        let arena = Arena::new(1 << 20);
        let faults = Faults::new(&arena, false);
        let batch = Batch::new(std::slice::from_ref(&column), None, ROWS);
        let column = Evaluator::default().eval(e, &batch, &arena, &faults, None).unwrap();
        assert!(faults.is_empty(), "{e}");
        let text = |row| match column.cell(row) {
            Cell::String(text) => text.to_string(),
            other => panic!("{other:?}"),
        };
        (0..ROWS).map(text).collect()
    }

    #[test]
    fn a_value_has_one_text_in_casts_and_f_strings_and_csv_and_json() {
        let micros = [0, 1, -1_500_000, 5_400_000_000, i64::MAX, i64::MIN];
        let (yes, arena) = ([0b101010u64], Arena::new(1 << 20));
        let table = [
            (Type::Bool, Data::Bool(standpipe_sdk::Bits::new(&yes, ROWS))),
            (Type::Int, Data::Int(&micros)),
            (
                Type::Float,
                Data::Float(&[21.0, -0.0, 1e21, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            ),
            (
                Type::Decimal {
                    precision: 38,
                    scale: 3,
                },
                Data::Decimal(&[0, -5, 12_345, 12_000, -(10i128.pow(38) - 1), 10i128.pow(38) - 1]),
            ),
            (
                Type::Date,
                Data::Date(&[0, -719_529, 20_484, 3_000_000, i32::MIN, i32::MAX]),
            ),
            (Type::Timestamp, Data::Timestamp(&micros)),
            (Type::Duration, Data::Duration(&micros)),
        ];
        for (ty, data) in table {
            let field = Field::new("x", ty.clone(), false);
            let column = Column::new(data, None, ROWS);
            let x = || Expr::column(0, &field, AT);
            let cast = texts(&Expr::cast(x(), Type::String, AT).unwrap(), column);
            let schema: Schema = [field.clone()].into_iter().collect();
            let batch = Batch::new(std::slice::from_ref(&column), None, ROWS);

            let formatted = Expr::fstring(vec![FPart::Value(x(), None)], AT).unwrap();
            assert_eq!(texts(&formatted, column), cast, "{ty} in an f-string");

            let mut out = Out::new();
            CsvEncoder::new(schema.clone(), b',').encode(batch, &mut out).unwrap();
            let lines: Vec<&str> = std::str::from_utf8(out.as_slice()).unwrap().lines().collect();
            assert_eq!(lines, cast, "{ty} in CSV");

            let mut out = Out::new();
            jsonl::Encoder::new(&schema).encode(&batch, &mut out).unwrap();
            let bare = matches!(ty, Type::Bool | Type::Int | Type::Float | Type::Decimal { .. });
            for (line, text) in std::str::from_utf8(out.as_slice()).unwrap().lines().zip(&cast) {
                let value = match (text.as_str(), bare) {
                    ("nan" | "inf" | "-inf", _) => "null".to_string(),
                    (text, true) => text.to_string(),
                    (text, false) => format!("\"{text}\""),
                };
                assert_eq!(line, format!("{{\"x\":{value}}}"), "{ty} in JSON");
            }

            // And back, as a cast and as a JSON reader have it.
            let mut views = standpipe_sdk::build::TextBuilder::new(&arena, ROWS, 0).unwrap();
            cast.iter().for_each(|text| views.push(text).unwrap());
            let text = Column::string(views.finish().unwrap(), None);
            let there = Expr::cast(
                Expr::column(0, &Field::new("x", Type::String, false), AT),
                ty.clone(),
                AT,
            )
            .unwrap();
            let back = Expr::cast(there, Type::String, AT).unwrap();
            assert_eq!(texts(&back, text), cast, "{ty} read by a cast");

            let faults = Faults::new(&arena, false);
            let block = [out.as_slice(), &[0; jsonl::PADDING]].concat();
            let mut decoder = jsonl::Decoder::new(&schema, &[] as &[Wanted], &jsonl::Reading::default());
            let (read, _) = decoder
                .decode(&block, out.len(), 0, 7, usize::MAX, &arena, &faults, true)
                .unwrap();
            let mut again = Out::new();
            jsonl::Encoder::new(&schema).encode(&read, &mut again).unwrap();
            assert_eq!(out.as_slice(), again.as_slice(), "{ty} read by JSON");
        }
    }

    #[test]
    fn a_cast_and_a_json_string_read_the_same_texts() {
        let decimal = Type::Decimal { precision: 5, scale: 2 };
        let table = [
            (decimal.clone(), "12.50", true),
            (decimal.clone(), "12.505", false),
            (decimal.clone(), "1234", false),
            (decimal, "007", false),
            (Type::Date, "2026-01-31", true),
            (Type::Date, "+012026-01-31", true),
            (Type::Date, "2026-1-31", false),
            (Type::Timestamp, "2026-01-31 10:00", true),
            (Type::Timestamp, "2026-01-31T10:00:00.5+02:00", true),
            (Type::Timestamp, "2026-01-31", false),
            (Type::Timestamp, "2026-01-31t10:00z", false),
            (Type::Duration, "PT1H30M", true),
            (Type::Duration, "1h30m", true),
            (Type::Duration, "90", false),
        ];
        for (ty, text, good) in table {
            let arena = Arena::new(1 << 20);
            let views = [standpipe_sdk::View::EMPTY];
            let faults = Faults::new(&arena, false);
            let batch = Batch::new(&[], None, views.len());
            let constant = Expr::constant(standpipe_sdk::Value::String(text.into()), Type::String, AT);
            let read = match Expr::cast(constant, ty.clone(), AT) {
                Ok(e) => Evaluator::default()
                    .eval(&e, &batch, &arena, &faults, None)
                    .unwrap()
                    .is_valid(0),
                // A constant that fails is refused at once.
                Err(_) => false,
            };
            assert_eq!(read, good, "{text} as {ty} by a cast");

            let schema: Schema = [Field::new("x", ty.clone(), true)].into_iter().collect();
            let line = format!("{{\"x\":\"{text}\"}}\n");
            let block = [line.as_bytes(), &[0; jsonl::PADDING]].concat();
            let faults = Faults::new(&arena, false);
            let mut decoder = jsonl::Decoder::new(&schema, &[] as &[Wanted], &jsonl::Reading::default());
            let (read, _) = decoder
                .decode(&block, line.len(), 0, 7, usize::MAX, &arena, &faults, true)
                .unwrap();
            assert_eq!(read.column(0).is_valid(0), good, "{text} as {ty} in JSON");
        }
    }
}
