//! Functions of dates and timestamps.
//!
//! Laws
//! - Everything is UTC; a local time is a timestamp that `in_zone` made, and only `in_zone` and `from_zone` know zones.
//! - Weeks are ISO 8601's: they begin on Monday, and week 1 holds the year's first Thursday.
//! - Years run from -9999 to 9999; what would leave them is a row error.
//! - Formats and constant zones are read before the run; a row allocates nothing.

mod format;

pub(in crate::expr) use format::Format;

use super::text::Quoted;
use crate::expr::function::{Args, Eval, Example, FunctionSpec, Given, ParamSpec, Pattern, Returns};
use crate::expr::scalar::civil::{self, DAY, DAYS};
use crate::expr::{DOMAIN, PARSE, TIME_RANGE};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use standpipe_sdk::{Column, Result, Type};
use std::any::Any;
use std::sync::{Arc, LazyLock};

const DATE: &[ParamSpec] = &[ParamSpec::new("date", Pattern::Date)];
const TIME: &[ParamSpec] = &[ParamSpec::new("time", Pattern::Timestamp)];
const DATES: &[ParamSpec] = &[
    ParamSpec::new("from", Pattern::Date),
    ParamSpec::new("to", Pattern::Date),
];
const TIMES: &[ParamSpec] = &[
    ParamSpec::new("from", Pattern::Timestamp),
    ParamSpec::new("to", Pattern::Timestamp),
];
const FORMAT: ParamSpec = ParamSpec::new("format", Pattern::String);
const ZONE: ParamSpec = ParamSpec::new("zone", Pattern::String);

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const OUTSIDE: &str = "is outside the years -9999 to 9999";

/// An int of a date or timestamp.
const fn part(
    name: &'static str,
    about: &'static str,
    params: &'static [ParamSpec],
    examples: &'static [Example],
    eval: Eval,
) -> FunctionSpec {
    FunctionSpec {
        name,
        about,
        params,
        returns: Returns::Int,
        examples,
        eval,
        ..FunctionSpec::BASE
    }
}

/// The date functions.
pub(in crate::expr) const FUNCTIONS: &[FunctionSpec] = &[
    FunctionSpec {
        name: "now",
        about: "When the run began; the same for every row.",
        returns: Returns::Timestamp,
        volatile: true,
        examples: &[
            Example::value("now() == now()", "true"),
            Example::value("now() is null", "false"),
        ],
        eval: |args| {
            let now = args.fixed().now_micros;
            args.map_timestamps(|_| now)
        },
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "today",
        about: "The day on which the run began, in UTC.",
        returns: Returns::Date,
        volatile: true,
        examples: &[
            Example::value("today() <= now()", "true"),
            Example::value("today() is null", "false"),
        ],
        eval: |args| {
            let today = args.fixed().now_micros.div_euclid(DAY) as i32;
            args.map_dates(|_| today)
        },
        ..FunctionSpec::BASE
    },
    part(
        "year",
        "The year.",
        DATE,
        &[
            Example::value("year(@2026-01-31)", "2026"),
            Example::value("year(null)", "null"),
        ],
        year,
    ),
    part(
        "year",
        "The year.",
        TIME,
        &[
            Example::value("year(@2026-01-31T10:00:00Z)", "2026"),
            Example::value("year(@1969-12-31T23:59:59.999999Z)", "1969"),
        ],
        year,
    ),
    part(
        "quarter",
        "The quarter of the year, 1 to 4.",
        DATE,
        &[
            Example::value("quarter(@2026-12-31)", "4"),
            Example::value("quarter(null)", "null"),
        ],
        quarter,
    ),
    part(
        "quarter",
        "The quarter of the year, 1 to 4.",
        TIME,
        &[
            Example::value("quarter(@2026-04-01T00:00:00Z)", "2"),
            Example::value("quarter(@2026-03-31T23:59:59Z)", "1"),
        ],
        quarter,
    ),
    part(
        "month",
        "The month, 1 to 12.",
        DATE,
        &[
            Example::value("month(@2026-01-31)", "1"),
            Example::value("month(null)", "null"),
        ],
        month,
    ),
    part(
        "month",
        "The month, 1 to 12.",
        TIME,
        &[
            Example::value("month(@2026-12-31T23:59:59Z)", "12"),
            Example::value("month(@2024-02-29T00:00:00Z)", "2"),
        ],
        month,
    ),
    part(
        "week",
        "The ISO week, 1 to 53.",
        DATE,
        &[
            Example::value("week(@2021-01-03)", "53"),
            Example::value("week(@2024-12-30)", "1"),
            Example::value("week(null)", "null"),
        ],
        week,
    ),
    part(
        "week",
        "The ISO week, 1 to 53.",
        TIME,
        &[
            Example::value("week(@2026-01-05T00:00:00Z)", "2"),
            Example::value("week(@2026-01-04T23:59:59Z)", "1"),
        ],
        week,
    ),
    part(
        "week_year",
        "The year to which the ISO week belongs.",
        DATE,
        &[
            Example::value("week_year(@2021-01-03)", "2020"),
            Example::value("week_year(@2024-12-30)", "2025"),
            Example::value("week_year(null)", "null"),
        ],
        week_year,
    ),
    part(
        "week_year",
        "The year to which the ISO week belongs.",
        TIME,
        &[
            Example::value("week_year(@2024-12-30T00:00:00Z)", "2025"),
            Example::value("week_year(@2024-12-29T00:00:00Z)", "2024"),
        ],
        week_year,
    ),
    part(
        "day",
        "The day of the month, 1 to 31.",
        DATE,
        &[
            Example::value("day(@2024-02-29)", "29"),
            Example::value("day(null)", "null"),
        ],
        day,
    ),
    part(
        "day",
        "The day of the month, 1 to 31.",
        TIME,
        &[
            Example::value("day(@2026-01-31T10:00:00Z)", "31"),
            Example::value("day(@1969-12-31T23:59:59Z)", "31"),
        ],
        day,
    ),
    part(
        "weekday",
        "The day of the week, 1 (Monday) to 7 (Sunday).",
        DATE,
        &[
            Example::value("weekday(@2026-02-01)", "7"),
            Example::value("weekday(null)", "null"),
        ],
        weekday,
    ),
    part(
        "weekday",
        "The day of the week, 1 (Monday) to 7 (Sunday).",
        TIME,
        &[
            Example::value("weekday(@1970-01-01T00:00:00Z)", "4"),
            Example::value("weekday(@1969-12-29T00:00:00Z)", "1"),
        ],
        weekday,
    ),
    part(
        "day_of_year",
        "The day of the year, 1 to 366.",
        DATE,
        &[
            Example::value("day_of_year(@2024-12-31)", "366"),
            Example::value("day_of_year(null)", "null"),
        ],
        day_of_year,
    ),
    part(
        "day_of_year",
        "The day of the year, 1 to 366.",
        TIME,
        &[
            Example::value("day_of_year(@2026-12-31T23:00:00Z)", "365"),
            Example::value("day_of_year(@2026-01-01T00:00:00Z)", "1"),
        ],
        day_of_year,
    ),
    part(
        "days_in_month",
        "How many days the month has.",
        DATE,
        &[
            Example::value("days_in_month(@2024-02-01)", "29"),
            Example::value("days_in_month(@1900-02-01)", "28"),
            Example::value("days_in_month(null)", "null"),
        ],
        days_in_month,
    ),
    part(
        "days_in_month",
        "How many days the month has.",
        TIME,
        &[
            Example::value("days_in_month(@2026-04-30T00:00:00Z)", "30"),
            Example::value("days_in_month(@2000-02-01T00:00:00Z)", "29"),
        ],
        days_in_month,
    ),
    part(
        "hour",
        "The hour, 0 to 23.",
        TIME,
        &[
            Example::value("hour(@2026-01-31T23:59:59Z)", "23"),
            Example::value("hour(@1969-12-31T23:00:00Z)", "23"),
            Example::value("hour(null)", "null"),
        ],
        hour,
    ),
    part(
        "minute",
        "The minute, 0 to 59.",
        TIME,
        &[
            Example::value("minute(@2026-01-31T23:59:00Z)", "59"),
            Example::value("minute(null)", "null"),
        ],
        minute,
    ),
    part(
        "second",
        "The second, 0 to 59, without its fraction.",
        TIME,
        &[
            Example::value("second(@2026-01-31T00:00:07.9Z)", "7"),
            Example::value("second(null)", "null"),
        ],
        second,
    ),
    part(
        "microsecond",
        "The fraction of the second, 0 to 999999.",
        TIME,
        &[
            Example::value("microsecond(@2026-01-31T00:00:07.25Z)", "250000"),
            Example::value("microsecond(@1969-12-31T23:59:59.999999Z)", "999999"),
            Example::value("microsecond(null)", "null"),
        ],
        microsecond,
    ),
    FunctionSpec {
        name: "is_leap_year",
        about: "Whether the year has a 29th of February.",
        params: &[ParamSpec::new("year", Pattern::Int)],
        returns: Returns::Bool,
        examples: &[
            Example::value("is_leap_year(2024)", "true"),
            Example::value("is_leap_year(1900)", "false"),
            Example::value("is_leap_year(null)", "null"),
        ],
        eval: is_leap_year,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "date_trunc",
        about: "The first day of the `year`, `quarter`, `month` or `week` (or the `day` itself).",
        params: &[DATE[0], ParamSpec::new("unit", Pattern::String)],
        returns: Returns::Date,
        examples: &[
            Example::value(r#"date_trunc(@2026-05-17, "quarter")"#, "@2026-04-01"),
            Example::value(r#"date_trunc(@2026-02-01, "week")"#, "@2026-01-26"),
            Example::value(r#"date_trunc(null, "month")"#, "null"),
        ],
        prepare: Some(prepare_day_unit),
        eval: trunc_date,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "date_trunc",
        about: "The start of the `year`, `quarter`, `month`, `week`, `day`, `hour`, `minute` or `second`.",
        params: &[TIME[0], ParamSpec::new("unit", Pattern::String)],
        returns: Returns::Timestamp,
        examples: &[
            Example::value(r#"date_trunc(@2026-05-17T10:20:30Z, "month")"#, "@2026-05-01T00:00:00Z"),
            Example::value(
                r#"date_trunc(@1969-12-31T23:59:30.5Z, "minute")"#,
                "@1969-12-31T23:59:00Z",
            ),
        ],
        prepare: Some(prepare_unit),
        eval: trunc_time,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "date_bin",
        about: "The start of the interval of length `width`, counted from 1970-01-01, in which the time lies.",
        params: &[TIME[0], ParamSpec::new("width", Pattern::Duration)],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value("date_bin(@2026-05-17T10:22:30Z, 15m)", "@2026-05-17T10:15:00Z"),
            Example::fails("date_bin(@2026-05-17T10:22:30Z, 0s)", DOMAIN),
            Example::value("date_bin(null, 15m)", "null"),
        ],
        eval: date_bin,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "add_months",
        about: "The same day `months` later; the last day of the month where there is no such day.",
        params: &[DATE[0], ParamSpec::new("months", Pattern::Int)],
        returns: Returns::Date,
        fallible: true,
        examples: &[
            Example::value("add_months(@2024-01-31, 1)", "@2024-02-29"),
            Example::value("add_months(@2024-03-31, -13)", "@2023-02-28"),
            Example::fails("add_months(@9999-12-01, 1)", TIME_RANGE),
            Example::value("add_months(null, 1)", "null"),
        ],
        eval: add_months,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "add_months",
        about: "The same time `months` later; on the last day of the month where there is no such day.",
        params: &[TIME[0], ParamSpec::new("months", Pattern::Int)],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value("add_months(@2026-01-31T10:00:00Z, 1)", "@2026-02-28T10:00:00Z"),
            Example::fails(
                "add_months(@2026-01-31T10:00:00Z, 9_223_372_036_854_775_807)",
                TIME_RANGE,
            ),
        ],
        eval: add_months,
        ..FunctionSpec::BASE
    },
    part(
        "days_between",
        "How many days `to` is after `from`.",
        DATES,
        &[
            Example::value("days_between(@2024-02-28, @2024-03-01)", "2"),
            Example::value("days_between(@2024-03-01, @2024-02-28)", "-2"),
            Example::value("days_between(null, @2024-03-01)", "null"),
        ],
        days_between,
    ),
    part(
        "days_between",
        "How many whole days of 24 hours `to` is after `from`.",
        TIMES,
        &[
            Example::value("days_between(@2024-02-28T12:00:00Z, @2024-03-01T11:00:00Z)", "1"),
            Example::value("days_between(@2024-03-01T11:00:00Z, @2024-02-28T12:00:00Z)", "-1"),
        ],
        days_between,
    ),
    part(
        "months_between",
        "How many whole months `to` is after `from`.",
        DATES,
        &[
            Example::value("months_between(@2024-01-15, @2024-03-14)", "1"),
            Example::value("months_between(@2024-03-14, @2024-01-15)", "-1"),
            Example::value("months_between(null, @2024-03-01)", "null"),
        ],
        months_between,
    ),
    part(
        "months_between",
        "How many whole months `to` is after `from`.",
        TIMES,
        &[
            Example::value("months_between(@2024-01-15T12:00:00Z, @2024-03-15T11:00:00Z)", "1"),
            Example::value("months_between(@2024-01-15T12:00:00Z, @2024-03-15T12:00:00Z)", "2"),
        ],
        months_between,
    ),
    FunctionSpec {
        name: "last_day_of_month",
        about: "The last day of the month.",
        params: DATE,
        returns: Returns::Date,
        examples: &[
            Example::value("last_day_of_month(@2024-02-10)", "@2024-02-29"),
            Example::value("last_day_of_month(null)", "null"),
        ],
        eval: last_day_of_month,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "last_day_of_month",
        about: "The last day of the month.",
        params: TIME,
        returns: Returns::Date,
        examples: &[
            Example::value("last_day_of_month(@2023-02-10T10:00:00Z)", "@2023-02-28"),
            Example::value("last_day_of_month(@9999-12-31T23:59:59Z)", "@9999-12-31"),
        ],
        eval: last_day_of_month,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "make_date",
        about: "The date of a year, month and day.",
        params: &[
            ParamSpec::new("year", Pattern::Int),
            ParamSpec::new("month", Pattern::Int),
            ParamSpec::new("day", Pattern::Int),
        ],
        returns: Returns::Date,
        fallible: true,
        examples: &[
            Example::value("make_date(2024, 2, 29)", "@2024-02-29"),
            Example::fails("make_date(2023, 2, 29)", DOMAIN),
            Example::value("make_date(2024, null, 29)", "null"),
        ],
        eval: make_date,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "make_timestamp",
        about: "The timestamp of a year, month, day, hour, minute and second in UTC.",
        params: &[
            ParamSpec::new("year", Pattern::Int),
            ParamSpec::new("month", Pattern::Int),
            ParamSpec::new("day", Pattern::Int),
            ParamSpec::default("hour", Pattern::Int, "0"),
            ParamSpec::default("minute", Pattern::Int, "0"),
            ParamSpec::default("second", Pattern::Float, "0"),
        ],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value("make_timestamp(2024, 2, 29, 10, 30, 1.5)", "@2024-02-29T10:30:01.5Z"),
            Example::value("make_timestamp(1, 1, 1)", "@0001-01-01T00:00:00Z"),
            Example::fails("make_timestamp(2024, 2, 29, 24)", DOMAIN),
            Example::value("make_timestamp(2024, 2, null)", "null"),
        ],
        eval: make_timestamp,
        ..FunctionSpec::BASE
    },
    part(
        "to_unix",
        "Whole seconds since 1970-01-01T00:00:00Z.",
        TIME,
        &[
            Example::value("to_unix(@2001-09-09T01:46:40Z)", "1000000000"),
            Example::value("to_unix(@1969-12-31T23:59:59.5Z)", "-1"),
            Example::value("to_unix(null)", "null"),
        ],
        |args| unix(args, SECOND),
    ),
    part(
        "to_unix_millis",
        "Whole milliseconds since 1970-01-01T00:00:00Z.",
        TIME,
        &[
            Example::value("to_unix_millis(@1970-01-01T00:00:01.5Z)", "1500"),
            Example::value("to_unix_millis(null)", "null"),
        ],
        |args| unix(args, 1000),
    ),
    part(
        "to_unix_micros",
        "Microseconds since 1970-01-01T00:00:00Z.",
        TIME,
        &[
            Example::value("to_unix_micros(@1970-01-01T00:00:00.000001Z)", "1"),
            Example::value("to_unix_micros(null)", "null"),
        ],
        |args| unix(args, 1),
    ),
    FunctionSpec {
        name: "from_unix",
        about: "The timestamp of seconds since 1970-01-01T00:00:00Z.",
        params: &[ParamSpec::new("seconds", Pattern::Int)],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value("from_unix(1_000_000_000)", "@2001-09-09T01:46:40Z"),
            Example::fails("from_unix(9_223_372_036_854_775_807)", TIME_RANGE),
            Example::value("from_unix(null)", "null"),
        ],
        eval: |args| since_epoch(args, SECOND),
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "from_unix_millis",
        about: "The timestamp of milliseconds since 1970-01-01T00:00:00Z.",
        params: &[ParamSpec::new("millis", Pattern::Int)],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value("from_unix_millis(-1)", "@1969-12-31T23:59:59.999Z"),
            Example::value("from_unix_millis(null)", "null"),
        ],
        eval: |args| since_epoch(args, 1000),
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "from_unix_micros",
        about: "The timestamp of microseconds since 1970-01-01T00:00:00Z.",
        params: &[ParamSpec::new("micros", Pattern::Int)],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value("from_unix_micros(0)", "@1970-01-01T00:00:00Z"),
            Example::value("from_unix_micros(null)", "null"),
        ],
        eval: |args| since_epoch(args, 1),
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_date",
        about: "The date as text: `%Y %m %d %H %M %S %f %b %B %a %A %j %y %V %G %F %T …`; `%-d` drops the zeros.",
        params: &[DATE[0], FORMAT],
        returns: Returns::String,
        examples: &[
            Example::value(r#"format_date(@2026-01-05, "%d.%m.%Y")"#, r#""05.01.2026""#),
            Example::value(
                r#"format_date(@2026-01-05, "%A, %-d %B %Y, week %V")"#,
                r#""Monday, 5 January 2026, week 02""#,
            ),
            Example::value(r#"format_date(null, "%Y")"#, "null"),
        ],
        prepare: Some(prepare_format),
        eval: format,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "format_date",
        about: "The timestamp as text, in UTC.",
        params: &[TIME[0], FORMAT],
        returns: Returns::String,
        examples: &[
            Example::value(
                r#"format_date(@2026-01-05T15:04:05.25Z, "%F %T.%3f")"#,
                r#""2026-01-05 15:04:05.250""#,
            ),
            Example::value(r#"format_date(@2026-01-05T00:30:00Z, "%I:%M %p")"#, r#""12:30 AM""#),
        ],
        prepare: Some(prepare_format),
        eval: format,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "parse_date",
        about: "The date that a text gives in a format like `%d.%m.%Y`.",
        params: &[ParamSpec::new("text", Pattern::String), FORMAT],
        returns: Returns::Date,
        fallible: true,
        examples: &[
            Example::value(r#"parse_date("5.1.2026", "%d.%m.%Y")"#, "@2026-01-05"),
            Example::value(r#"parse_date("Jan 5, 26", "%b %d, %y")"#, "@2026-01-05"),
            Example::fails(r#"parse_date("31.2.2026", "%d.%m.%Y")"#, PARSE),
            Example::value(r#"parse_date(null, "%Y")"#, "null"),
        ],
        prepare: Some(prepare_parse),
        eval: parse_date,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "parse_timestamp",
        about: "The timestamp that a text gives in a format like `%Y-%m-%d %H:%M:%S`; UTC unless the format has `%z`.",
        params: &[ParamSpec::new("text", Pattern::String), FORMAT],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value(
                r#"parse_timestamp("05/Jan/2026:15:04:05 +0100", "%d/%b/%Y:%H:%M:%S %z")"#,
                "@2026-01-05T14:04:05Z",
            ),
            Example::value(
                r#"parse_timestamp("2026-01-05 3:04 PM", "%F %I:%M %p")"#,
                "@2026-01-05T15:04:00Z",
            ),
            Example::fails(r#"parse_timestamp("2026-01-05", "%F %T")"#, PARSE),
            Example::value(r#"parse_timestamp(null, "%F %T")"#, "null"),
        ],
        prepare: Some(prepare_parse),
        eval: parse_timestamp,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "in_zone",
        about: "What the clocks of a zone show at that time, as a timestamp without regard to the zone.",
        params: &[TIME[0], ZONE],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value(
                r#"in_zone(@2026-07-01T10:00:00Z, "Europe/Berlin")"#,
                "@2026-07-01T12:00:00Z",
            ),
            Example::value(
                r#"in_zone(@2026-01-01T00:00:00Z, "America/New_York")"#,
                "@2025-12-31T19:00:00Z",
            ),
            Example::value(r#"in_zone(null, "UTC")"#, "null"),
        ],
        prepare: Some(prepare_zone),
        eval: in_zone,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "from_zone",
        about: "When the clocks of a zone show that time: the first time if twice, as much later as is skipped if never.",
        params: &[TIME[0], ZONE],
        returns: Returns::Timestamp,
        fallible: true,
        examples: &[
            Example::value(
                r#"from_zone(@2026-07-01T12:00:00Z, "Europe/Berlin")"#,
                "@2026-07-01T10:00:00Z",
            ),
            Example::value(
                r#"from_zone(@2026-03-29T02:30:00Z, "Europe/Berlin")"#,
                "@2026-03-29T01:30:00Z",
            ),
            Example::value(r#"from_zone(null, "UTC")"#, "null"),
        ],
        prepare: Some(prepare_zone),
        eval: from_zone,
        ..FunctionSpec::BASE
    },
];

// ---- parts ----

/// `f(day, microsecond of the day)` of every date or timestamp.
fn ints<'a>(args: &Args<'_, 'a>, f: impl Fn(i64, i64) -> i64) -> Result<Column<'a>> {
    if *args.ty(0) == Type::Timestamp {
        let times = args.ints(0);
        return args.map_ints(|row| f(times.get(row).div_euclid(DAY), times.get(row).rem_euclid(DAY)));
    }
    let dates = args.dates(0);
    args.map_ints(|row| f(i64::from(dates.get(row)), 0))
}

fn year<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| civil::date(day).0)
}

fn quarter<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| i64::from(civil::date(day).1.div_ceil(3)))
}

fn month<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| i64::from(civil::date(day).1))
}

fn week<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| iso_week(day).1)
}

fn week_year<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| iso_week(day).0)
}

fn day<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| i64::from(civil::date(day).2))
}

fn weekday<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| iso_weekday(day))
}

fn day_of_year<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| of_year(day))
}

fn days_in_month<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |day, _| {
        let (year, month, _) = civil::date(day);
        i64::from(civil::month_length(year, month))
    })
}

fn hour<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |_, micros| micros / HOUR)
}

fn minute<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |_, micros| micros / MINUTE % 60)
}

fn second<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |_, micros| micros / SECOND % 60)
}

fn microsecond<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    ints(args, |_, micros| micros % SECOND)
}

fn is_leap_year<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let years = args.ints(0);
    args.map_bools(|row| civil::month_length(years.get(row), 2) == 29)
}

/// 1 (Monday) to 7; 1970-01-01 was a Thursday.
fn iso_weekday(day: i64) -> i64 {
    (day + 3).rem_euclid(7) + 1
}

/// 1 to 366.
fn of_year(day: i64) -> i64 {
    day - civil::days(civil::date(day).0, 1, 1) + 1
}

/// Year and week of the day: those of the week's Thursday.
fn iso_week(day: i64) -> (i64, i64) {
    let thursday = day - iso_weekday(day) + 4;
    (civil::date(thursday).0, (of_year(thursday) - 1) / 7 + 1)
}

// ---- truncation and arithmetic ----

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

fn unit(given: &[Given<'_>]) -> Result<Option<Unit>, String> {
    let Some(given) = given.get(1) else {
        return Ok(None);
    };
    let Some(name) = given.text() else {
        // A null unit makes every row null.
        return match given.value {
            Some(_) => Ok(None),
            None => Err("the unit must be a constant text like \"month\"".to_string()),
        };
    };
    Ok(Some(match name {
        "year" => Unit::Year,
        "quarter" => Unit::Quarter,
        "month" => Unit::Month,
        "week" => Unit::Week,
        "day" => Unit::Day,
        "hour" => Unit::Hour,
        "minute" => Unit::Minute,
        "second" => Unit::Second,
        _ => {
            return Err(format!(
                "there is no unit {}: year, quarter, month, week, day, hour, minute or second",
                Quoted(name)
            ));
        }
    }))
}

fn prepare_unit(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    Ok(Arc::new(unit(given)?.unwrap_or(Unit::Day)))
}

fn prepare_day_unit(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    match unit(given)?.unwrap_or(Unit::Day) {
        unit if unit < Unit::Day => Err("a date has no hours: year, quarter, month, week or day".to_string()),
        unit => Ok(Arc::new(unit)),
    }
}

/// The first day of the unit that `day` is in.
#[inline]
fn first_day(day: i64, unit: Unit) -> i64 {
    let (year, month, of_month) = match unit {
        Unit::Week => return day - iso_weekday(day) + 1,
        Unit::Month | Unit::Quarter | Unit::Year => civil::date(day),
        _ => return day,
    };
    match unit {
        Unit::Month => day - i64::from(of_month) + 1,
        Unit::Quarter => civil::days(year, (month - 1) / 3 * 3 + 1, 1),
        _ => civil::days(year, 1, 1),
    }
}

fn trunc_date<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (dates, unit) = (args.dates(0), args.prepared().copied().unwrap_or(Unit::Day));
    args.map_dates(|row| first_day(i64::from(dates.get(row)), unit) as i32)
}

fn trunc_time<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (times, unit) = (args.ints(0), args.prepared().copied().unwrap_or(Unit::Day));
    let width = match unit {
        Unit::Second => SECOND,
        Unit::Minute => MINUTE,
        Unit::Hour => HOUR,
        Unit::Day => DAY,
        // A null row's value may be anything, so the product may not fit.
        _ => return args.map_timestamps(|row| first_day(times.get(row).div_euclid(DAY), unit).wrapping_mul(DAY)),
    };
    args.map_timestamps(|row| times.get(row).wrapping_sub(times.get(row).rem_euclid(width)))
}

fn date_bin<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (times, widths) = (args.ints(0), args.ints(1));
    args.try_timestamps(|row| {
        let (time, width) = (times.get(row), widths.get(row));
        if width <= 0 {
            return args.fault(row, DOMAIN, format_args!("the width of an interval must be positive"));
        }
        match time
            .checked_sub(time.rem_euclid(width))
            .filter(|&start| civil::in_range(start))
        {
            Some(start) => Ok(Some(start)),
            None => args.fault(
                row,
                TIME_RANGE,
                format_args!("the interval begins before the year -9999"),
            ),
        }
    })
}

/// The same day `months` later, if it is in the years that there are.
fn months_later(day: i64, months: i64) -> Option<i64> {
    let (year, month, of_month) = civil::date(day);
    let total = (year * 12 + i64::from(month) - 1).checked_add(months)?;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u32 + 1);
    if !(-9999..=9999).contains(&year) {
        return None;
    }
    Some(civil::days(year, month, of_month.min(civil::month_length(year, month))))
}

fn add_months<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let months = args.ints(1);
    if *args.ty(0) == Type::Timestamp {
        let times = args.ints(0);
        return args.try_timestamps(|row| {
            let time = times.get(row);
            match months_later(time.div_euclid(DAY), months.get(row)) {
                Some(day) => Ok(Some(day * DAY + time.rem_euclid(DAY))),
                None => args.fault(
                    row,
                    TIME_RANGE,
                    format_args!("{} months later {OUTSIDE}", months.get(row)),
                ),
            }
        });
    }
    let dates = args.dates(0);
    args.try_dates(|row| match months_later(i64::from(dates.get(row)), months.get(row)) {
        Some(day) => Ok(Some(day as i32)),
        None => args.fault(
            row,
            TIME_RANGE,
            format_args!("{} months later {OUTSIDE}", months.get(row)),
        ),
    })
}

/// Two timestamps, or two dates as timestamps, of every row.
fn pairs<'a>(args: &Args<'_, 'a>, f: impl Fn(i128, i128) -> i64) -> Result<Column<'a>> {
    if *args.ty(0) == Type::Timestamp {
        let (from, to) = (args.ints(0), args.ints(1));
        return args.map_ints(|row| f(i128::from(from.get(row)), i128::from(to.get(row))));
    }
    let (from, to) = (args.dates(0), args.dates(1));
    let micros = |day: i32| i128::from(day) * i128::from(DAY);
    args.map_ints(|row| f(micros(from.get(row)), micros(to.get(row))))
}

fn days_between<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    pairs(args, |from, to| ((to - from) / i128::from(DAY)) as i64)
}

fn months_between<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    pairs(args, |from, to| {
        let split = |micros: i128| {
            let (year, month, day) = civil::date(micros.div_euclid(i128::from(DAY)) as i64);
            (year * 12 + i64::from(month), (day, micros.rem_euclid(i128::from(DAY))))
        };
        let ((from, from_rest), (to, to_rest)) = (split(from), split(to));
        match to - from {
            months if months > 0 && to_rest < from_rest => months - 1,
            months if months < 0 && to_rest > from_rest => months + 1,
            months => months,
        }
    })
}

fn last_day_of_month<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let last = |day: i64| {
        let (year, month, of_month) = civil::date(day);
        (day + i64::from(civil::month_length(year, month)) - i64::from(of_month)) as i32
    };
    if *args.ty(0) == Type::Timestamp {
        let times = args.ints(0);
        return args.map_dates(|row| last(times.get(row).div_euclid(DAY)));
    }
    let dates = args.dates(0);
    args.map_dates(|row| last(i64::from(dates.get(row))))
}

/// The day of a year, month and day, if there is one.
fn valid_day(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(-9999..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let month = month as u32;
    (1..=i64::from(civil::month_length(year, month)))
        .contains(&day)
        .then(|| civil::days(year, month, day as u32))
}

fn make_date<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (years, months, days) = (args.ints(0), args.ints(1), args.ints(2));
    args.try_dates(|row| {
        let (year, month, day) = (years.get(row), months.get(row), days.get(row));
        match valid_day(year, month, day) {
            Some(day) => Ok(Some(day as i32)),
            None => args.fault(row, DOMAIN, format_args!("there is no date {year}-{month}-{day}")),
        }
    })
}

fn make_timestamp<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let (years, months, days) = (args.ints(0), args.ints(1), args.ints(2));
    let (hours, minutes, seconds) = (args.ints(3), args.ints(4), args.floats(5));
    args.try_timestamps(|row| {
        let (year, month, day) = (years.get(row), months.get(row), days.get(row));
        let (hour, minute, second) = (hours.get(row), minutes.get(row), seconds.get(row));
        let time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0.0..60.0).contains(&second);
        match valid_day(year, month, day).filter(|_| time) {
            Some(day) => {
                // 59.9999999 must not become the next minute: what a clock shows is cut, not rounded, there.
                let fraction = ((second * 1e6).round() as i64).min(MINUTE - 1);
                Ok(Some(day * DAY + hour * HOUR + minute * MINUTE + fraction))
            }
            None => args.fault(
                row,
                DOMAIN,
                format_args!("there is no timestamp {year}-{month}-{day} {hour}:{minute}:{second}"),
            ),
        }
    })
}

fn unix<'a>(args: &Args<'_, 'a>, unit: i64) -> Result<Column<'a>> {
    let times = args.ints(0);
    args.map_ints(|row| times.get(row).div_euclid(unit))
}

fn since_epoch<'a>(args: &Args<'_, 'a>, unit: i64) -> Result<Column<'a>> {
    let counts = args.ints(0);
    args.try_timestamps(|row| {
        let count = counts.get(row);
        match count.checked_mul(unit).filter(|&micros| civil::in_range(micros)) {
            Some(micros) => Ok(Some(micros)),
            None => args.fault(row, TIME_RANGE, format_args!("{count} since 1970 {OUTSIDE}")),
        }
    })
}

// ---- zones ----

/// The zones this program was built with, not those of the machine: results depend on neither its updates nor its settings.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A constant zone; `None` if each row names its own.
struct Zone(Option<TimeZone>);

fn prepare_zone(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    let zone = match given.get(1).and_then(Given::text) {
        Some(name) => Some(
            ZONES
                .get(name)
                .map_err(|_| format!("there is no time zone {}", Quoted(name)))?,
        ),
        None => None,
    };
    Ok(Arc::new(Zone(zone)))
}

/// `f(zone, time)` of every row; `None` is outside the years that there are.
fn with_zone<'a>(args: &Args<'_, 'a>, f: impl Fn(&TimeZone, i64) -> Option<i64>) -> Result<Column<'a>> {
    let (times, names) = (args.ints(0), args.strings(1));
    let constant = args.prepared::<Zone>().and_then(|zone| zone.0.as_ref());
    // The zone of the row before, so that a column of one zone looks it up once.
    let mut last: Option<(&str, TimeZone)> = None;
    args.try_timestamps(|row| {
        let time = times.get(row);
        let local = match constant {
            Some(zone) => f(zone, time),
            None => {
                let name = names.get(row);
                if last.as_ref().is_none_or(|(known, _)| *known != name) {
                    last = ZONES.get(name).ok().map(|zone| (name, zone));
                }
                let Some((_, zone)) = &last else {
                    return args.fault(row, DOMAIN, format_args!("there is no time zone {}", Quoted(name)));
                };
                f(zone, time)
            }
        };
        match local.filter(|&micros| civil::in_range(micros)) {
            Some(micros) => Ok(Some(micros)),
            None => args.fault(row, TIME_RANGE, format_args!("the time there {OUTSIDE}")),
        }
    })
}

fn in_zone<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    with_zone(args, |zone, micros| {
        let time = jiff::Timestamp::from_microsecond(micros).ok()?;
        micros.checked_add(i64::from(zone.to_offset(time).seconds()) * SECOND)
    })
}

fn from_zone<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    with_zone(args, |zone, micros| {
        let (day, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
        let (year, month, day) = civil::date(day);
        let shown = jiff::civil::DateTime::new(
            i16::try_from(year).ok()?,
            month as i8,
            day as i8,
            (rest / HOUR) as i8,
            (rest / MINUTE % 60) as i8,
            (rest / SECOND % 60) as i8,
            (rest % SECOND * 1000) as i32,
        );
        let time = zone.to_ambiguous_timestamp(shown.ok()?).compatible().ok()?;
        Some(time.as_microsecond())
    })
}

// ---- formats ----

fn prepare_format(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    let source = match given.get(1) {
        Some(format) => match (format.text(), format.value) {
            (Some(source), _) => source,
            // A null format makes every row null.
            (None, Some(_)) => "",
            (None, None) => return Err("the format must be a constant text like \"%Y-%m-%d\"".to_string()),
        },
        None => "",
    };
    Ok(Arc::new(Format::new(source)?))
}

fn prepare_parse(given: &[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String> {
    let source = given.get(1).and_then(Given::text).unwrap_or_default();
    let format = Format::new(source)?;
    format.check_readable()?;
    prepare_format(given)
}

fn format<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(format) = args.prepared::<Format>() else {
        return Ok(Column::nulls(args.rows()));
    };
    if *args.ty(0) == Type::Timestamp {
        let times = args.ints(0);
        return args.map_strings(|row, out| format.push(times.get(row), out));
    }
    let dates = args.dates(0);
    args.map_strings(|row, out| format.push(i64::from(dates.get(row)).wrapping_mul(DAY), out))
}

fn parse_date<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let Some(format) = args.prepared::<Format>() else {
        return Ok(Column::nulls(args.rows()));
    };
    args.try_dates(|row| match format.parse(texts.get(row)) {
        Some(micros) => Ok(Some(micros.div_euclid(DAY).clamp(DAYS.0, DAYS.1) as i32)),
        None => args.fault(
            row,
            PARSE,
            format_args!(
                "cannot parse date from {} with {}",
                Quoted(texts.get(row)),
                Quoted(format.source())
            ),
        ),
    })
}

fn parse_timestamp<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let texts = args.strings(0);
    let Some(format) = args.prepared::<Format>() else {
        return Ok(Column::nulls(args.rows()));
    };
    args.try_timestamps(|row| match format.parse(texts.get(row)) {
        Some(micros) => Ok(Some(micros)),
        None => args.fault(
            row,
            PARSE,
            format_args!(
                "cannot parse timestamp from {} with {}",
                Quoted(texts.get(row)),
                Quoted(format.source())
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_and_months_are_those_of_jiff() {
        let epoch = jiff::civil::date(1970, 1, 1);
        for day in (DAYS.0..=DAYS.1 - 800).step_by(89).chain(-1500..1500) {
            let date = epoch + jiff::Span::new().days(day);
            let week = date.iso_week_date();
            assert_eq!(
                iso_week(day),
                (i64::from(week.year()), i64::from(week.week())),
                "{date}"
            );
            assert_eq!(iso_weekday(day), i64::from(date.weekday().to_monday_one_offset()));
            assert_eq!(of_year(day), i64::from(date.day_of_year()));
            let later = date + jiff::Span::new().months(day.rem_euclid(25));
            let want = i64::from(later.since(epoch).unwrap().get_days());
            assert_eq!(months_later(day, day.rem_euclid(25)), Some(want), "{date}");
            assert_eq!(first_day(day, Unit::Month), day - i64::from(date.day()) + 1);
        }
        assert_eq!(months_later(0, i64::MAX), None);
        assert_eq!(months_later(0, i64::MIN), None);
    }
}
