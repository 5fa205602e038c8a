//! `spec.rotation.freeze`: when no change begins by itself. All times are UTC.

use std::{ops::RangeInclusive, time::SystemTime};

use serde::Deserialize;

use super::checks::Checks;

/// When no change begins by itself: in any of its windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Freeze {
    windows: Vec<Window>,
}

/// Everything that is said of a window has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    /// Days since 1970, on which it begins.
    dates: RangeInclusive<i64>,
    /// Monday first. A window that goes past midnight belongs to the day on which it begins.
    days: [bool; 7],
    /// Minutes since midnight.
    from: i64,
    /// More than `from`; past midnight, more than those of a day.
    to: i64,
}

impl Freeze {
    /// Whether `now` is in any window.
    pub fn covers(&self, now: SystemTime) -> bool {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let minutes = i64::try_from(since.unwrap_or_default().as_secs() / 60).unwrap_or(i64::MAX);
        self.windows.iter().any(|window| window.covers(minutes))
    }
}

impl Window {
    fn covers(&self, minutes: i64) -> bool {
        let today = minutes.div_euclid(DAY);
        [today, today - 1].into_iter().any(|day| {
            let minute = minutes - day * DAY;
            // 1970 began on a Thursday.
            let weekday = usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0);
            self.dates.contains(&day)
                && self.days[weekday]
                && (self.from..self.to).contains(&minute)
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WindowSpec {
    #[serde(default)]
    days: Vec<String>,
    from: Option<String>,
    to: Option<String>,
    from_date: Option<String>,
    to_date: Option<String>,
}

pub(super) fn read_freeze(specs: &[WindowSpec], checks: &mut Checks<'_>) -> Freeze {
    if specs.len() > MAX_WINDOWS {
        let reason = format!(
            "has {} windows: must have at most {MAX_WINDOWS}",
            specs.len()
        );
        checks.fault("spec.rotation.freeze", reason);
        return Freeze::default();
    }
    let windows = specs.iter().enumerate();
    Freeze {
        windows: windows
            .filter_map(|(index, spec)| read_window(index, spec, checks))
            .collect(),
    }
}

fn read_window(index: usize, spec: &WindowSpec, checks: &mut Checks<'_>) -> Option<Window> {
    let before = checks.faults.len();
    let field = |name: &str| format!("spec.rotation.freeze[{index}].{name}");
    let mut days = [spec.days.is_empty(); 7];
    for word in &spec.days {
        match DAYS.iter().position(|day| day == word) {
            Some(day) => days[day] = true,
            None => checks.fault(
                field("days"),
                format!("unknown day {word:?}: must be one of {}", DAYS.join(", ")),
            ),
        }
    }
    let mut time = |name: &str, text: &Option<String>, default: i64| match text {
        None => default,
        Some(text) => time_of_day(text).unwrap_or_else(|| {
            let reason = format!("{text:?} is no time of a day: must be 00:00 to 24:00, in UTC");
            checks.fault(field(name), reason);
            default
        }),
    };
    let from = time("from", &spec.from, 0);
    let mut to = time("to", &spec.to, DAY);
    let mut date = |name: &str, text: &Option<String>, default: i64| match text {
        None => default,
        Some(text) => day_number(text).unwrap_or_else(|| {
            let reason = format!("{text:?} is no date: must be as 2027-01-31");
            checks.fault(field(name), reason);
            default
        }),
    };
    let first = date("fromDate", &spec.from_date, i64::MIN);
    let last = date("toDate", &spec.to_date, i64::MAX);
    if first > last {
        checks.fault(
            field("toDate"),
            "is before fromDate: must be the same day or a later one",
        );
    }
    if from == to {
        checks.fault(
            field("to"),
            "is the same as from: leave both out for whole days",
        );
    }
    if to < from {
        to += DAY;
    }
    if spec.days.is_empty()
        && spec.from.is_none()
        && spec.to.is_none()
        && spec.from_date.is_none()
        && spec.to_date.is_none()
    {
        let reason = "says nothing: must have days, from and to, or fromDate and toDate; as it is, nothing would ever begin";
        checks.fault(format!("spec.rotation.freeze[{index}]"), reason);
    }
    (checks.faults.len() == before).then_some(Window {
        dates: first..=last,
        days,
        from,
        to,
    })
}

fn time_of_day(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| -> Option<i64> {
        let right = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        right.then(|| digits.parse().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY).then_some(total)
}

/// Days since 1970 of a date of the Gregorian calendar, counted from a year that begins in March (so that a leap day is last).
fn day_number(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let mut number = |length: usize| -> Option<i64> {
        let digits = parts.next()?;
        let right = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
        right.then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leaps + of_year - DAYS_TO_1970)
}

/// Minutes of a day.
const DAY: i64 = 24 * 60;
/// From the first of March of year 0 to the first of January 1970.
const DAYS_TO_1970: i64 = 719_468;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MAX_WINDOWS: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(date: &str, time: &str) -> SystemTime {
        let minutes = day_number(date).unwrap() * DAY + time_of_day(time).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_mins(u64::try_from(minutes).unwrap())
    }

    fn window(days: [bool; 7], from: &str, to: i64, dates: RangeInclusive<i64>) -> Freeze {
        let from = time_of_day(from).unwrap();
        let windows = vec![Window {
            dates,
            days,
            from,
            to,
        }];
        Freeze { windows }
    }

    #[test]
    fn dates_are_counted() {
        for (text, day) in [
            ("1970-01-01", 0),
            ("1970-03-01", 59),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2026-11-23", 20_780),
        ] {
            assert_eq!(day_number(text), Some(day), "{text}");
        }
        for text in [
            "2027-02-29",
            "1900-02-29",
            "2027-13-01",
            "2027-1-1",
            "2027-01-01-01",
            "x",
        ] {
            assert_eq!(day_number(text), None, "{text}");
        }
        assert_eq!(time_of_day("24:00"), Some(DAY));
        for text in ["24:01", "1:00", "12:60", "12", "-1:00"] {
            assert_eq!(time_of_day(text), None, "{text}");
        }
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_begins_on() {
        // Fridays from 18:00 until 06:00 of the next day. The 20th of November 2026 was a Friday.
        let mut days = [false; 7];
        days[4] = true;
        let freeze = window(days, "18:00", DAY + 6 * 60, i64::MIN..=i64::MAX);
        for (date, time, covered) in [
            ("2026-11-20", "17:59", false),
            ("2026-11-20", "18:00", true),
            ("2026-11-21", "05:59", true),
            ("2026-11-21", "06:00", false),
            ("2026-11-21", "18:00", false),
            ("2026-11-20", "05:00", false),
        ] {
            assert_eq!(freeze.covers(at(date, time)), covered, "{date} {time}");
        }
    }

    #[test]
    fn dates_are_whole_days_with_the_last_one() {
        let dates = day_number("2026-12-20").unwrap()..=day_number("2027-01-05").unwrap();
        let freeze = window([true; 7], "00:00", DAY, dates);
        assert!(!freeze.covers(at("2026-12-19", "23:59")));
        assert!(freeze.covers(at("2026-12-20", "00:00")));
        assert!(freeze.covers(at("2027-01-05", "23:59")));
        assert!(!freeze.covers(at("2027-01-06", "00:00")));
    }
}
