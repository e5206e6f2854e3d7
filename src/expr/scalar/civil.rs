//! The proleptic Gregorian calendar in integers: days since 1970-01-01 to year, month, day and back.

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
/// The least and the greatest day that functions and arithmetic give: -9999-01-01 and 9999-12-31.
pub const DAYS: (i64, i64) = (-4_371_587, 2_932_896);

/// The first and the last microsecond of these days.
pub const MICROS: (i64, i64) = (DAYS.0 * DAY, (DAYS.1 + 1) * DAY - 1);

/// Days since 1970-01-01 of a valid date.
#[inline]
pub fn days(year: i64, month: u32, day: u32) -> i64 {
    // March is month 0 of a year, so that the leap day is the last day of a year; 400 years are 146,097 days.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = i64::from((month + 9) % 12);
    let of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Days since 1970-01-01, if there is such a date.
#[inline]
pub fn checked_days(year: i64, month: u32, day: u32) -> Option<i64> {
    ((1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day)).then(|| days(year, month, day))
}

/// Year, month (1..) and day (1..) of a day.
#[inline]
pub fn date(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097) as u32;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + i64::from(year_of_era) + i64::from(month <= 2), month, day)
}

/// How many days a month has.
#[inline]
pub fn month_length(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Whether a timestamp lies in the years -9999 to 9999.
#[inline]
pub fn in_range(micros: i64) -> bool {
    let day = micros.div_euclid(DAY);
    (DAYS.0..=DAYS.1).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_comes_back_and_agrees_with_jiff() {
        assert_eq!((days(-9999, 1, 1), days(9999, 12, 31)), DAYS);
        let epoch = jiff::civil::date(1970, 1, 1);
        for day in (DAYS.0..=DAYS.1).step_by(97).chain(-800..800) {
            let (y, m, d) = date(day);
            assert_eq!(days(y, m, d), day);
            let want = epoch + jiff::Span::new().days(day);
            assert_eq!((y as i16, m as i8, d as i8), (want.year(), want.month(), want.day()));
            assert_eq!(month_length(y, m), want.days_in_month() as u32);
            assert_eq!(checked_days(y, m, d), Some(day));
            assert_eq!(checked_days(y, m, month_length(y, m) + 1), None);
        }
    }
}
