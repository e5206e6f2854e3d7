//! Functions of numbers.
//!
//! Laws
//! - Nothing wraps: a result that does not fit is a row error, as is an argument outside a function's domain.
//! - NaN and infinity pass through where the result is a float.
//! - Halves are rounded away from zero.

use super::null::{Order, choose};
use crate::expr::decimal::POWERS;
use crate::expr::function::{Args, Example, FunctionSpec, ParamSpec, Pattern, Returns};
use crate::expr::{DOMAIN, OVERFLOW};
use standpipe_sdk::{Bits, Column, Data, Result, Type};
use std::cmp::Ordering;

const INT: &[ParamSpec] = &[ParamSpec::new("x", Pattern::Int)];
const FLOAT: &[ParamSpec] = &[ParamSpec::new("x", Pattern::Float)];
const DECIMAL: &[ParamSpec] = &[ParamSpec::new("x", Pattern::Decimal)];
const INTS: &[ParamSpec] = &[ParamSpec::new("a", Pattern::Int), ParamSpec::new("b", Pattern::Int)];
const SHIFT: &[ParamSpec] = &[ParamSpec::new("x", Pattern::Int), ParamSpec::new("by", Pattern::Int)];
const FLOATS: &[ParamSpec] = &[ParamSpec::new("y", Pattern::Float), ParamSpec::new("x", Pattern::Float)];
const DIGITS: ParamSpec = ParamSpec::new("digits", Pattern::Int);
const ORDERED: &[ParamSpec] = &[
    ParamSpec::new("value", Pattern::Ordered),
    ParamSpec::variadic("more", Pattern::Same(0)),
];

/// A function of one float that gives a float.
const fn smooth(
    name: &'static str,
    about: &'static str,
    fallible: bool,
    examples: &'static [Example],
    eval: crate::expr::Eval,
) -> FunctionSpec {
    FunctionSpec {
        name,
        about,
        params: FLOAT,
        returns: Returns::Float,
        fallible,
        examples,
        eval,
        ..FunctionSpec::BASE
    }
}

/// A function that makes a number whole.
const fn whole(
    name: &'static str,
    about: &'static str,
    params: &'static [ParamSpec],
    fallible: bool,
    examples: &'static [Example],
    eval: crate::expr::Eval,
) -> FunctionSpec {
    FunctionSpec {
        name,
        about,
        params,
        returns: Returns::Int,
        fallible,
        examples,
        eval,
        ..FunctionSpec::BASE
    }
}

/// A function of two ints.
const fn bits(
    name: &'static str,
    about: &'static str,
    examples: &'static [Example],
    eval: crate::expr::Eval,
) -> FunctionSpec {
    FunctionSpec {
        name,
        about,
        params: INTS,
        returns: Returns::Int,
        examples,
        eval,
        ..FunctionSpec::BASE
    }
}

/// The math functions.
pub(in crate::expr) const FUNCTIONS: &[FunctionSpec] = &[
    FunctionSpec {
        name: "abs",
        about: "The number without its sign.",
        params: INT,
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value("abs(-3)", "3"),
            Example::fails("abs(-9_223_372_036_854_775_807 - 1)", OVERFLOW),
            Example::value("abs(null)", "null"),
        ],
        eval: abs,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "abs",
        about: "The number without its sign.",
        params: DECIMAL,
        returns: Returns::Same(0),
        examples: &[
            Example::value("abs(decimal(\"-1.50\", 10, 2))", "1.50"),
            Example::value("abs(decimal(\"0.00\", 10, 2))", "0.00"),
        ],
        eval: abs,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "abs",
        about: "The number without its sign.",
        params: FLOAT,
        returns: Returns::Float,
        examples: &[Example::value("abs(-1.5)", "1.5"), Example::value("abs(0.0)", "0.0")],
        eval: abs,
        ..FunctionSpec::BASE
    },
    whole(
        "sign",
        "-1, 0 or 1, as the number is negative, zero or positive.",
        INT,
        false,
        &[Example::value("sign(-7)", "-1"), Example::value("sign(null)", "null")],
        sign,
    ),
    whole(
        "sign",
        "-1, 0 or 1, as the number is negative, zero or positive.",
        DECIMAL,
        false,
        &[
            Example::value("sign(decimal(\"0.01\", 10, 2))", "1"),
            Example::value("sign(decimal(\"0.00\", 10, 2))", "0"),
        ],
        sign,
    ),
    whole(
        "sign",
        "-1, 0 or 1, as the number is negative, zero or positive; NaN has no sign.",
        FLOAT,
        true,
        &[
            Example::value("sign(-0.5)", "-1"),
            Example::fails("sign(float(\"nan\"))", DOMAIN),
        ],
        sign,
    ),
    whole(
        "floor",
        "The greatest int that is not above the number.",
        INT,
        false,
        &[Example::value("floor(3)", "3"), Example::value("floor(null)", "null")],
        floor,
    ),
    whole(
        "floor",
        "The greatest int that is not above the number.",
        DECIMAL,
        true,
        &[
            Example::value("floor(decimal(\"-1.50\", 10, 2))", "-2"),
            Example::value("floor(decimal(\"2.00\", 10, 2))", "2"),
        ],
        floor,
    ),
    whole(
        "floor",
        "The greatest int that is not above the number.",
        FLOAT,
        true,
        &[
            Example::value("floor(-1.5)", "-2"),
            Example::fails("floor(1e19)", OVERFLOW),
        ],
        floor,
    ),
    whole(
        "ceil",
        "The least int that is not below the number.",
        INT,
        false,
        &[Example::value("ceil(3)", "3"), Example::value("ceil(null)", "null")],
        ceil,
    ),
    whole(
        "ceil",
        "The least int that is not below the number.",
        DECIMAL,
        true,
        &[
            Example::value("ceil(decimal(\"1.01\", 10, 2))", "2"),
            Example::value("ceil(decimal(\"-1.50\", 10, 2))", "-1"),
        ],
        ceil,
    ),
    whole(
        "ceil",
        "The least int that is not below the number.",
        FLOAT,
        true,
        &[Example::value("ceil(1.2)", "2"), Example::value("ceil(-0.5)", "0")],
        ceil,
    ),
    whole(
        "trunc",
        "The number without its fraction.",
        INT,
        false,
        &[Example::value("trunc(3)", "3"), Example::value("trunc(null)", "null")],
        trunc,
    ),
    whole(
        "trunc",
        "The number without its fraction.",
        DECIMAL,
        true,
        &[
            Example::value("trunc(decimal(\"-1.99\", 10, 2))", "-1"),
            Example::value("trunc(decimal(\"0.99\", 10, 2))", "0"),
        ],
        trunc,
    ),
    whole(
        "trunc",
        "The number without its fraction.",
        FLOAT,
        true,
        &[
            Example::value("trunc(-1.9)", "-1"),
            Example::fails("trunc(float(\"nan\"))", OVERFLOW),
        ],
        trunc,
    ),
    whole(
        "round",
        "The nearest int, halves away from zero.",
        INT,
        false,
        &[Example::value("round(3)", "3"), Example::value("round(null)", "null")],
        round,
    ),
    whole(
        "round",
        "The nearest int, halves away from zero.",
        DECIMAL,
        true,
        &[
            Example::value("round(decimal(\"2.50\", 10, 2))", "3"),
            Example::value("round(decimal(\"-2.50\", 10, 2))", "-3"),
        ],
        round,
    ),
    whole(
        "round",
        "The nearest int, halves away from zero.",
        FLOAT,
        true,
        &[
            Example::value("round(2.5)", "3"),
            Example::value("round(-2.5)", "-3"),
            Example::fails("round(float(\"inf\"))", OVERFLOW),
        ],
        round,
    ),
    FunctionSpec {
        name: "round",
        about: "The number rounded to `digits` digits behind the point, before it if negative; halves away from zero.",
        params: &[ParamSpec::new("x", Pattern::Int), DIGITS],
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value("round(1250, -2)", "1300"),
            Example::value("round(7, 2)", "7"),
            Example::fails("round(9_223_372_036_854_775_807, -1)", OVERFLOW),
            Example::value("round(7, null)", "null"),
        ],
        eval: round_digits,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "round",
        about: "The number rounded to `digits` digits behind the point, of the same type; halves away from zero.",
        params: &[ParamSpec::new("x", Pattern::Decimal), DIGITS],
        returns: Returns::Same(0),
        fallible: true,
        examples: &[
            Example::value("round(decimal(\"2.345\", 10, 3), 2)", "2.350"),
            Example::value("round(decimal(\"-15.000\", 10, 3), -1)", "-20.000"),
        ],
        eval: round_digits,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "round",
        about: "The number rounded to `digits` digits behind the point; halves away from zero.",
        params: &[ParamSpec::new("x", Pattern::Float), DIGITS],
        returns: Returns::Float,
        examples: &[
            Example::value("round(2.375, 2)", "2.38"),
            Example::value("round(-1234.5, -2)", "-1200.0"),
            Example::value("round(null, 2)", "null"),
        ],
        eval: round_digits,
        ..FunctionSpec::BASE
    },
    smooth(
        "sqrt",
        "The square root; a negative number has none.",
        true,
        &[
            Example::value("sqrt(2.25)", "1.5"),
            Example::value("sqrt(9)", "3.0"),
            Example::fails("sqrt(-1)", DOMAIN),
            Example::value("sqrt(null)", "null"),
        ],
        sqrt,
    ),
    smooth(
        "exp",
        "e to the power of the number.",
        false,
        &[Example::value("exp(0)", "1.0"), Example::value("exp(null)", "null")],
        exp,
    ),
    smooth(
        "ln",
        "The natural logarithm of a positive number.",
        true,
        &[
            Example::value("ln(1)", "0.0"),
            Example::fails("ln(0)", DOMAIN),
            Example::value("ln(null)", "null"),
        ],
        ln,
    ),
    smooth(
        "log2",
        "The logarithm to base 2 of a positive number.",
        true,
        &[Example::value("log2(8)", "3.0"), Example::value("log2(null)", "null")],
        log2,
    ),
    smooth(
        "log10",
        "The logarithm to base 10 of a positive number.",
        true,
        &[
            Example::value("log10(1000)", "3.0"),
            Example::fails("log10(-1)", DOMAIN),
            Example::value("log10(null)", "null"),
        ],
        log10,
    ),
    FunctionSpec {
        name: "log",
        about: "The logarithm of a positive number to a positive base other than 1.",
        params: &[
            ParamSpec::new("x", Pattern::Float),
            ParamSpec::new("base", Pattern::Float),
        ],
        returns: Returns::Float,
        fallible: true,
        examples: &[
            Example::value("log(8, 2)", "3.0"),
            Example::fails("log(8, 1)", DOMAIN),
            Example::value("log(null, 2)", "null"),
        ],
        eval: log,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "pow",
        about: "`x` to the power of `exponent`, as floats; `**` keeps ints.",
        params: &[
            ParamSpec::new("x", Pattern::Float),
            ParamSpec::new("exponent", Pattern::Float),
        ],
        returns: Returns::Float,
        fallible: true,
        examples: &[
            Example::value("pow(2, -1)", "0.5"),
            Example::fails("pow(-8, 0.5)", DOMAIN),
            Example::value("pow(null, 2)", "null"),
        ],
        eval: pow,
        ..FunctionSpec::BASE
    },
    smooth(
        "sin",
        "The sine of an angle in radians.",
        false,
        &[Example::value("sin(0)", "0.0"), Example::value("sin(null)", "null")],
        sin,
    ),
    smooth(
        "cos",
        "The cosine of an angle in radians.",
        false,
        &[Example::value("cos(0)", "1.0"), Example::value("cos(null)", "null")],
        cos,
    ),
    smooth(
        "tan",
        "The tangent of an angle in radians.",
        false,
        &[Example::value("tan(0)", "0.0"), Example::value("tan(null)", "null")],
        tan,
    ),
    smooth(
        "asin",
        "The angle in radians whose sine is the number.",
        true,
        &[
            Example::value("asin(0)", "0.0"),
            Example::fails("asin(2)", DOMAIN),
            Example::value("asin(null)", "null"),
        ],
        asin,
    ),
    smooth(
        "acos",
        "The angle in radians whose cosine is the number.",
        true,
        &[
            Example::value("acos(1)", "0.0"),
            Example::fails("acos(-1.5)", DOMAIN),
            Example::value("acos(null)", "null"),
        ],
        acos,
    ),
    smooth(
        "atan",
        "The angle in radians whose tangent is the number.",
        false,
        &[Example::value("atan(0)", "0.0"), Example::value("atan(null)", "null")],
        atan,
    ),
    FunctionSpec {
        name: "atan2",
        about: "The angle in radians of the point (x, y), from -pi to pi.",
        params: FLOATS,
        returns: Returns::Float,
        examples: &[
            Example::value("atan2(0, 1)", "0.0"),
            Example::value("degrees(atan2(0, -1))", "180.0"),
            Example::value("atan2(null, 1)", "null"),
        ],
        eval: atan2,
        ..FunctionSpec::BASE
    },
    smooth(
        "degrees",
        "An angle in radians as degrees.",
        false,
        &[
            Example::value("degrees(pi())", "180.0"),
            Example::value("degrees(null)", "null"),
        ],
        degrees,
    ),
    smooth(
        "radians",
        "An angle in degrees as radians.",
        false,
        &[
            Example::value("radians(0)", "0.0"),
            Example::value("radians(null)", "null"),
        ],
        radians,
    ),
    FunctionSpec {
        name: "pi",
        about: "The number pi.",
        returns: Returns::Float,
        examples: &[
            Example::value("pi()", "3.141592653589793"),
            Example::value("floor(pi())", "3"),
        ],
        eval: |args| args.map_floats(|_| std::f64::consts::PI),
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "is_nan",
        about: "Whether the float is NaN.",
        params: FLOAT,
        returns: Returns::Bool,
        examples: &[
            Example::value("is_nan(float(\"nan\"))", "true"),
            Example::value("is_nan(1)", "false"),
            Example::value("is_nan(null)", "null"),
        ],
        eval: is_nan,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "is_finite",
        about: "Whether the float is neither NaN nor infinite.",
        params: FLOAT,
        returns: Returns::Bool,
        examples: &[
            Example::value("is_finite(1.5)", "true"),
            Example::value("is_finite(float(\"-inf\"))", "false"),
            Example::value("is_finite(null)", "null"),
        ],
        eval: is_finite,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "least",
        about: "The least of the values; null if one is null.",
        params: ORDERED,
        returns: Returns::Same(0),
        examples: &[
            Example::value("least(3, 1, 2)", "1"),
            Example::value(r#"least("b", "a")"#, r#""a""#),
            Example::value("least(1, null)", "null"),
        ],
        eval: least,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "greatest",
        about: "The greatest of the values; null if one is null.",
        params: ORDERED,
        returns: Returns::Same(0),
        examples: &[
            Example::value("greatest(3, 1, 2.5)", "3.0"),
            Example::value("greatest(@2026-01-31, @2026-02-01)", "@2026-02-01"),
            Example::value("greatest(null, 1)", "null"),
        ],
        eval: greatest,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "clamp",
        about: "The value, or the bound it is beyond.",
        params: &[
            ParamSpec::new("value", Pattern::Ordered),
            ParamSpec::new("low", Pattern::Same(0)),
            ParamSpec::new("high", Pattern::Same(0)),
        ],
        returns: Returns::Same(0),
        fallible: true,
        examples: &[
            Example::value("clamp(12, 0, 10)", "10"),
            Example::value("clamp(-0.5, 0, 1)", "0.0"),
            Example::fails("clamp(1, 10, 0)", DOMAIN),
            Example::value("clamp(null, 0, 10)", "null"),
        ],
        eval: clamp,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "gcd",
        about: "The greatest common divisor, never negative.",
        params: INTS,
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value("gcd(12, -18)", "6"),
            Example::value("gcd(0, 0)", "0"),
            Example::value("gcd(null, 2)", "null"),
        ],
        eval: gcd,
        ..FunctionSpec::BASE
    },
    bits(
        "bit_and",
        "The bits that are 1 in both ints.",
        &[
            Example::value("bit_and(12, 10)", "8"),
            Example::value("bit_and(null, 1)", "null"),
        ],
        |args| bitwise(args, |a, b| a & b),
    ),
    bits(
        "bit_or",
        "The bits that are 1 in either int.",
        &[
            Example::value("bit_or(12, 10)", "14"),
            Example::value("bit_or(null, 1)", "null"),
        ],
        |args| bitwise(args, |a, b| a | b),
    ),
    bits(
        "bit_xor",
        "The bits that differ between the ints.",
        &[
            Example::value("bit_xor(12, 10)", "6"),
            Example::value("bit_xor(null, 1)", "null"),
        ],
        |args| bitwise(args, |a, b| a ^ b),
    ),
    FunctionSpec {
        name: "bit_not",
        about: "Every bit of the int turned round.",
        params: INT,
        returns: Returns::Int,
        examples: &[
            Example::value("bit_not(0)", "-1"),
            Example::value("bit_not(null)", "null"),
        ],
        eval: bit_not,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "shift_left",
        about: "The bits moved up by 0 to 63 places; losing one is a row error.",
        params: SHIFT,
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value("shift_left(3, 4)", "48"),
            Example::fails("shift_left(1, 63)", OVERFLOW),
            Example::fails("shift_left(1, -1)", DOMAIN),
            Example::value("shift_left(null, 4)", "null"),
        ],
        eval: shift_left,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "shift_right",
        about: "The bits moved down by 0 to 63 places; the sign stays.",
        params: SHIFT,
        returns: Returns::Int,
        fallible: true,
        examples: &[
            Example::value("shift_right(-8, 1)", "-4"),
            Example::fails("shift_right(1, 64)", DOMAIN),
            Example::value("shift_right(null, 4)", "null"),
        ],
        eval: shift_right,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "random",
        about: "A number from 0 to below 1 that depends on the seed and the row's place in the input only.",
        params: &[ParamSpec::new("seed", Pattern::Int)],
        returns: Returns::Float,
        volatile: true,
        examples: &[
            Example::value("random(7) < 1", "true"),
            Example::value("random(null)", "null"),
        ],
        eval: random,
        ..FunctionSpec::BASE
    },
];

// ---- whole numbers ----

/// How a number is made whole.
#[derive(Clone, Copy)]
enum Way {
    Down,
    Up,
    Zero,
    Near,
}

fn floor<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    to_whole(args, "floor", Way::Down)
}

fn ceil<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    to_whole(args, "ceil", Way::Up)
}

fn trunc<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    to_whole(args, "trunc", Way::Zero)
}

fn round<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    to_whole(args, "round", Way::Near)
}

fn to_whole<'a>(args: &Args<'_, 'a>, name: &str, way: Way) -> Result<Column<'a>> {
    match args.ty(0) {
        Type::Float => {
            let x = args.floats(0);
            args.try_ints(|row| {
                let value = x.get(row);
                let whole = match way {
                    Way::Down => value.floor(),
                    Way::Up => value.ceil(),
                    Way::Zero => value.trunc(),
                    Way::Near => value.round(),
                };
                // The bounds are exact floats; NaN is in no range.
                if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole) {
                    return Ok(Some(whole as i64));
                }
                args.fault(row, OVERFLOW, format_args!("{name}({value}) does not fit an int"))
            })
        }
        Type::Decimal { scale, .. } => {
            let (x, unit) = (args.decimals(0), power(i64::from(*scale)));
            args.try_ints(|row| {
                let value = x.get(row);
                let whole = match way {
                    Way::Down => value.div_euclid(unit),
                    Way::Up => -(-value).div_euclid(unit),
                    Way::Zero => value / unit,
                    Way::Near => divide_near(value, unit),
                };
                match i64::try_from(whole) {
                    Ok(whole) => Ok(Some(whole)),
                    Err(_) => args.fault(row, OVERFLOW, format_args!("{name}: {whole} does not fit an int")),
                }
            })
        }
        _ => args.column(0),
    }
}

/// 10 to the power of `n`, which is from 0 to 38.
fn power(n: i64) -> i128 {
    usize::try_from(n)
        .ok()
        .and_then(|n| POWERS.get(n))
        .copied()
        .unwrap_or(1)
}

/// `value / unit`, halves away from zero.
pub(super) fn divide_near(value: i128, unit: i128) -> i128 {
    let (whole, rest) = (value / unit, value % unit);
    if rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2) && rest != 0 {
        whole + value.signum()
    } else {
        whole
    }
}

fn round_digits<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let digits = args.ints(1);
    match args.ty(0) {
        Type::Float => {
            let x = args.floats(0);
            if let Some(n) = digits.constant() {
                let by = scale_by(n);
                return args.map_floats(|row| round_float(x.get(row), n, by));
            }
            args.map_floats(|row| round_float(x.get(row), digits.get(row), scale_by(digits.get(row))))
        }
        Type::Decimal { precision, scale } => {
            let (x, scale, most) = (args.decimals(0), i64::from(*scale), power(i64::from(*precision)));
            args.try_decimals(|row| {
                let (value, n) = (x.get(row), digits.get(row));
                match round_unit(value, scale.saturating_sub(n)) {
                    Some(rounded) if rounded.abs() < most => Ok(Some(rounded)),
                    _ => args.fault(
                        row,
                        OVERFLOW,
                        format_args!("rounded to {n} digits the number does not fit"),
                    ),
                }
            })
        }
        _ => {
            let x = args.ints(0);
            args.try_ints(|row| {
                let (value, n) = (x.get(row), digits.get(row));
                let rounded = round_unit(i128::from(value), n.saturating_neg());
                match rounded.and_then(|rounded| i64::try_from(rounded).ok()) {
                    Some(rounded) => Ok(Some(rounded)),
                    None => args.fault(
                        row,
                        OVERFLOW,
                        format_args!("{value} rounded to {n} digits does not fit"),
                    ),
                }
            })
        }
    }
}

/// `value` rounded to a multiple of 10 to the power of `digits`; `None` if that is too large.
fn round_unit(value: i128, digits: i64) -> Option<i128> {
    match digits {
        ..=0 => Some(value),
        1..=38 => divide_near(value, power(digits)).checked_mul(power(digits)),
        _ => Some(0),
    }
}

fn scale_by(digits: i64) -> f64 {
    10f64.powi(digits.unsigned_abs().min(400) as i32)
}

#[inline]
fn round_float(x: f64, digits: i64, by: f64) -> f64 {
    let rounded = if digits >= 0 {
        (x * by).round() / by
    } else {
        (x / by).round() * by
    };
    if rounded.is_finite() {
        rounded
    } else if digits >= 0 || !x.is_finite() {
        // So many digits that nothing is to be rounded.
        x
    } else {
        0.0
    }
}

fn abs<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    match args.ty(0) {
        Type::Float => {
            let x = args.floats(0);
            args.map_floats(|row| x.get(row).abs())
        }
        Type::Decimal { .. } => {
            let x = args.decimals(0);
            args.map_decimals(|row| x.get(row).wrapping_abs())
        }
        _ => {
            let x = args.ints(0);
            args.try_ints(|row| match x.get(row).checked_abs() {
                Some(value) => Ok(Some(value)),
                None => args.fault(row, OVERFLOW, format_args!("abs({}) does not fit an int", x.get(row))),
            })
        }
    }
}

fn sign<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    match args.ty(0) {
        Type::Float => {
            let x = args.floats(0);
            args.try_ints(|row| match x.get(row).partial_cmp(&0.0) {
                Some(order) => Ok(Some(order as i64)),
                None => args.fault(row, DOMAIN, format_args!("nan has no sign")),
            })
        }
        Type::Decimal { .. } => {
            let x = args.decimals(0);
            args.map_ints(|row| x.get(row).signum() as i64)
        }
        _ => {
            let x = args.ints(0);
            args.map_ints(|row| x.get(row).signum())
        }
    }
}

// ---- floats ----

fn map<'a>(args: &Args<'_, 'a>, f: impl Fn(f64) -> f64) -> Result<Column<'a>> {
    let x = args.floats(0);
    args.map_floats(|row| f(x.get(row)))
}

/// `f` of every number; NaN for anything but NaN is a row error.
fn partial<'a>(args: &Args<'_, 'a>, name: &str, why: &str, f: impl Fn(f64) -> f64) -> Result<Column<'a>> {
    let x = args.floats(0);
    args.try_floats(|row| {
        let value = x.get(row);
        let result = f(value);
        if result.is_nan() && !value.is_nan() {
            return args.fault(row, DOMAIN, format_args!("{name}({value}): {why}"));
        }
        Ok(Some(result))
    })
}

/// A logarithm: of positive numbers only.
fn logarithm<'a>(args: &Args<'_, 'a>, name: &str, f: impl Fn(f64) -> f64) -> Result<Column<'a>> {
    let positive = |x: f64| if x <= 0.0 { f64::NAN } else { f(x) };
    partial(args, name, "only a positive number has a logarithm", positive)
}

fn sqrt<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    partial(args, "sqrt", "a negative number has no square root", f64::sqrt)
}

fn exp<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::exp)
}

fn ln<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    logarithm(args, "ln", f64::ln)
}

fn log2<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    logarithm(args, "log2", f64::log2)
}

fn log10<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    logarithm(args, "log10", f64::log10)
}

fn log<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (x, base) = (args.floats(0), args.floats(1));
    args.try_floats(|row| {
        let (x, base) = (x.get(row), base.get(row));
        if x <= 0.0 || base <= 0.0 || base == 1.0 {
            return args.fault(
                row,
                DOMAIN,
                format_args!("log({x}, {base}): both must be positive, and the base not 1"),
            );
        }
        // Exact where the bases that people use are exact.
        Ok(Some(match base {
            2.0 => x.log2(),
            10.0 => x.log10(),
            _ => x.ln() / base.ln(),
        }))
    })
}

fn pow<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (x, exponent) = (args.floats(0), args.floats(1));
    args.try_floats(|row| {
        let (x, y) = (x.get(row), exponent.get(row));
        let result = x.powf(y);
        if result.is_nan() && !x.is_nan() && !y.is_nan() {
            return args.fault(
                row,
                DOMAIN,
                format_args!("pow({x}, {y}): a negative number has whole powers only"),
            );
        }
        Ok(Some(result))
    })
}

fn sin<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::sin)
}

fn cos<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::cos)
}

fn tan<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::tan)
}

fn asin<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    partial(args, "asin", "a sine is from -1 to 1", f64::asin)
}

fn acos<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    partial(args, "acos", "a cosine is from -1 to 1", f64::acos)
}

fn atan<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::atan)
}

fn atan2<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (y, x) = (args.floats(0), args.floats(1));
    args.map_floats(|row| y.get(row).atan2(x.get(row)))
}

fn degrees<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::to_degrees)
}

fn radians<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    map(args, f64::to_radians)
}

fn is_nan<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let x = args.floats(0);
    args.map_bools(|row| x.get(row).is_nan())
}

fn is_finite<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let x = args.floats(0);
    args.map_bools(|row| x.get(row).is_finite())
}

// ---- order ----

fn least<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    extreme(args, Ordering::Less)
}

fn greatest<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    extreme(args, Ordering::Greater)
}

/// The argument that is `wanted` than all others; of equals the first.
fn extreme<'a>(args: &Args<'_, 'a>, wanted: Ordering) -> Result<Column<'a>> {
    let order = Order::new(args)?;
    let picks = args.arena().collect(args.rows(), |row| {
        let best = |best, next| {
            if order.compare(row, next, best) == wanted {
                next
            } else {
                best
            }
        };
        (1..args.len()).fold(0, best) as u8
    })?;
    Ok(only(choose(args, picks)?, args.valid()))
}

/// The column, null wherever `valid` says so.
fn only<'a>(column: Column<'a>, valid: Option<Bits<'a>>) -> Column<'a> {
    match column.data() {
        Data::Null => column,
        _ => column.with_valid(valid),
    }
}

fn clamp<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let order = Order::new(args)?;
    let checked = args.try_bools(|row| {
        if order.compare(row, 1, 2) == Ordering::Greater {
            return args.fault(row, DOMAIN, format_args!("the lower bound is above the upper one"));
        }
        Ok(Some(true))
    })?;
    let picks = args.arena().collect(args.rows(), |row| {
        if order.compare(row, 0, 1) == Ordering::Less {
            1
        } else if order.compare(row, 0, 2) == Ordering::Greater {
            2
        } else {
            0
        }
    })?;
    Ok(only(choose(args, picks)?, checked.valid()))
}

// ---- ints ----

fn gcd<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (a, b) = (args.ints(0), args.ints(1));
    args.try_ints(|row| {
        let (mut x, mut y) = (a.get(row).unsigned_abs(), b.get(row).unsigned_abs());
        while y != 0 {
            (x, y) = (y, x % y);
        }
        match i64::try_from(x) {
            Ok(x) => Ok(Some(x)),
            Err(_) => args.fault(
                row,
                OVERFLOW,
                format_args!("gcd({}, {}) does not fit an int", a.get(row), b.get(row)),
            ),
        }
    })
}

fn bitwise<'a>(args: &Args<'_, 'a>, f: impl Fn(i64, i64) -> i64) -> Result<Column<'a>> {
    let (a, b) = (args.ints(0), args.ints(1));
    args.map_ints(|row| f(a.get(row), b.get(row)))
}

fn bit_not<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let x = args.ints(0);
    args.map_ints(|row| !x.get(row))
}

fn shift_left<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (x, by) = (args.ints(0), args.ints(1));
    args.try_ints(|row| {
        let (x, by) = (x.get(row), by.get(row));
        if !(0..=63).contains(&by) {
            return args.fault(row, DOMAIN, format_args!("bits move by 0 to 63 places, not by {by}"));
        }
        let moved = x << by;
        if moved >> by != x {
            return args.fault(
                row,
                OVERFLOW,
                format_args!("{x} moved up by {by} places does not fit an int"),
            );
        }
        Ok(Some(moved))
    })
}

fn shift_right<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (x, by) = (args.ints(0), args.ints(1));
    args.try_ints(|row| {
        let (x, by) = (x.get(row), by.get(row));
        if !(0..=63).contains(&by) {
            return args.fault(row, DOMAIN, format_args!("bits move by 0 to 63 places, not by {by}"));
        }
        Ok(Some(x >> by))
    })
}

/// The generator is SplitMix64's mixer over seed, source, offset and counter; it is fixed: scripts rely on its numbers.
fn random<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let seeds = args.ints(0);
    let values = args.arena().collect(args.rows(), |row| {
        let place = args.place(row);
        let state = mix(seeds.get(row) as u64);
        let state = mix(state ^ u64::from(place.source));
        let state = mix(state ^ place.offset);
        let state = mix(state ^ u64::from(place.sub));
        // The 53 upper bits, as many as a float holds exactly.
        (state >> 11) as f64 / (1u64 << 53) as f64
    })?;
    Ok(Column::new(Data::Float(values), args.valid(), args.rows()))
}

fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        let table = [
            (25, 10, 3),
            (-25, 10, -3),
            (24, 10, 2),
            (-24, 10, -2),
            (0, 1, 0),
            (7, 1, 7),
            (5, 10, 1),
        ];
        for (value, unit, want) in table {
            assert_eq!(divide_near(value, unit), want, "{value} / {unit}");
        }
        let most = POWERS[38];
        assert_eq!(divide_near(most - 1, most), 1);
        assert_eq!(divide_near(most / 2 - 1, most), 0);
        assert_eq!(round_unit(15, 1), Some(20));
        assert_eq!(round_unit(i128::from(i64::MAX), 40), Some(0));
        assert_eq!(round_unit(-15, i64::MIN), Some(-15));
    }

    #[test]
    fn floats_are_rounded_at_any_digit() {
        let table = [
            (2.5, 0, 3.0),
            (-0.125, 2, -0.13),
            (1e300, 20, 1e300),
            (1234.5, -2, 1200.0),
            (1234.5, -400, 0.0),
            (0.1, 400, 0.1),
            (0.1, i64::MAX, 0.1),
            (5.0, i64::MIN, 0.0),
            (f64::INFINITY, 2, f64::INFINITY),
        ];
        for (x, digits, want) in table {
            assert_eq!(round_float(x, digits, scale_by(digits)), want, "{x} {digits}");
        }
        assert!(round_float(f64::NAN, 2, 100.0).is_nan());
    }
}
