//! How S3 writes moments: ISO 8601 in XML, HTTP dates in headers, the compact form in signatures.
//!
//! Times are milliseconds since 1970, UTC. A time that a calendar of four-digit years cannot show
//! is shown as its nearest bound.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const HTTP: &[BorrowedFormatItem<'static>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);
const ISO: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// The last second of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

fn moment(ms: u64) -> OffsetDateTime {
    let ms = ms.min(SECONDS_MAX * 1000);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .expect("below the year 10000")
}

/// `Fri, 24 May 2013 00:00:00 GMT`
pub(super) fn http(ms: u64) -> String {
    moment(ms).format(HTTP).expect("every field is there")
}

/// `2013-05-24T00:00:00.000Z`
pub(super) fn iso(ms: u64) -> String {
    moment(ms).format(ISO).expect("every field is there")
}

/// The seconds that an HTTP date names, if `text` is one.
pub(super) fn parse_http(text: &str) -> Option<i64> {
    Some(PrimitiveDateTime::parse(text, HTTP).ok()?.assume_utc().unix_timestamp())
}

/// The milliseconds that a signature's `20130524T000000Z` names, if `text` is of that form.
pub(super) fn parse_compact(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u16> {
        let digits = &bytes[from..to];
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
    };
    let small = |from: usize| number(from, from + 2).and_then(|value| u8::try_from(value).ok());
    let month = Month::try_from(small(4)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, small(6)?).ok()?;
    let time = Time::from_hms(small(9)?, small(11)?, small(13)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAY_24: u64 = 1_369_353_600_000;

    #[test]
    fn dates_are_written_and_read() {
        assert_eq!(http(MAY_24), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(iso(MAY_24 + 7), "2013-05-24T00:00:00.007Z");
        assert_eq!(parse_http("Fri, 24 May 2013 00:00:00 GMT"), Some(1_369_353_600));
        assert_eq!(parse_compact("20130524T000000Z"), Some(MAY_24));
        assert_eq!(iso(u64::MAX), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "20130524", "20130524T000000", "20131324T000000Z", "20130524T250000Z"] {
            assert_eq!(parse_compact(text), None, "{text}");
        }
        for text in ["+0130524T000000Z", "2013 524T000000Z", "19000524T000000Z"] {
            assert_eq!(parse_compact(text), None, "{text}");
        }
        assert_eq!(parse_http("yesterday"), None);
    }
}
