//! Reads when something was made: RFC 3339, as Didit writes it.

use std::time::Duration;

use crate::timestamp::Timestamp;

/// `2026-01-31T12:34:56.789+00:00`, with any number of decimals or none, and any offset or `Z`. `None` for anything
/// else, and for anything before 1970.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let (year, month, day) = (number(&date[..4])?, number(date.get(5..7)?)?, number(date.get(8..)?)?);
    let (hour, minute, second) = (number(time.get(..2)?)?, number(time.get(3..5)?)?, number(time.get(6..)?)?);
    let separated = |text: &str, mark: u8, places: [usize; 2]| places.iter().all(|at| text.as_bytes()[*at] == mark);
    if !separated(date, b'-', [4, 7]) || !separated(time, b':', [2, 5]) {
        return None;
    }
    // A leap second is the first of the next minute.
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (millis, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, zone) = rest.split_at(digits);
            (number(&format!("{:0<3}", fraction.get(..digits.min(3))?)).filter(|_| digits > 0)?, zone)
        }
        None => (0, rest),
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    let millis = u64::try_from(seconds * 1_000 + millis).ok()?;
    Some(Timestamp::default().plus(Duration::from_millis(millis)))
}

/// Digits and nothing else; at most four, so that nothing overflows.
fn number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let (hours, minutes) =
        (number(hours).filter(|hours| *hours < 24)?, number(minutes).filter(|minutes| *minutes < 60)?);
    Some(sign * (hours * 3_600 + minutes * 60))
}

/// Days from 1970-01-01 in the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms"): years
/// begin in March, so that the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_to_the_millisecond_in_every_zone() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2026-01-31T12:34:56.789Z", 1_769_862_896_789),
            ("2026-01-31T12:34:56.789123+00:00", 1_769_862_896_789),
            ("2026-01-31T14:34:56.7+02:00", 1_769_862_896_700),
            ("2026-01-31T07:04:56.78-05:30", 1_769_862_896_780),
            ("2026-12-31T23:59:60Z", 1_798_761_600_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text).map(Timestamp::as_millis), Some(millis), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none_and_never_a_panic() {
        let wrong = [
            "",
            "2026",
            "2026-01-31",
            "2026-01-31T12:34:56",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:34:56.Z",
            "2026-01-31T12:34:56+0200",
            "2026-01-31T12:34:56+99999999999:00",
            "2026/01/31T12:34:56Z",
            "-026-01-31T12:34:56Z",
            "2026-01-31T12:34:5éZ",
            "é026-01-31T12:34:56Z",
            "1969-12-31T23:59:59Z",
            "2026-01-31X12:34:56Z",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
