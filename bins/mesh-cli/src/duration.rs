//! Durations as people write them: `500ms`, `10s`, `5m`, `24h`, `7d`.

use std::time::Duration;

/// Reads a whole number with a unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is not a time; write a number and a unit, as in 500ms, 10s, 5m, 24h or 7d"
        )
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(millis)
        .filter(|total| *total > 0)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

/// The two largest units that say something: `1.4 ms`, `12 s`, `5 m`, `23 h`, `6 d`.
pub(crate) fn show(duration: Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    match () {
        () if micros < 1_000 => format!("{micros} µs"),
        () if micros < 10_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        () if micros < 1_000_000 => format!("{} ms", micros / 1_000),
        () if seconds < 10 => format!("{:.1} s", duration.as_secs_f64()),
        () if seconds < 120 => format!("{seconds} s"),
        () if seconds < 2 * 3_600 => format!("{} m", seconds / 60),
        () if seconds < 2 * 86_400 => format!("{} h", seconds / 3_600),
        () => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(604_800)));
    }

    #[test]
    fn refuses_what_has_no_unit_or_no_length() {
        for text in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "0s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shows_what_matters() {
        assert_eq!(show(Duration::from_micros(320)), "320 µs");
        assert_eq!(show(Duration::from_micros(1_440)), "1.4 ms");
        assert_eq!(show(Duration::from_millis(45)), "45 ms");
        assert_eq!(show(Duration::from_millis(2_340)), "2.3 s");
        assert_eq!(show(Duration::from_secs(86_400)), "24 h");
        assert_eq!(show(Duration::from_secs(86_400 * 365)), "365 d");
    }
}
