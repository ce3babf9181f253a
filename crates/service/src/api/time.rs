//! Instants as the Pinning Service API writes and reads them.
//!
//! `created` always has exactly three digits of a second, because JavaScript
//! keeps no more, and is the same text wherever it appears. Cursors come with
//! up to nine digits, from Go; they are compared with the instant itself and
//! not with a truncated one, so that paging neither skips nor repeats a pin.

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

use crate::db::Millis;

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
const NANOS_PER_MILLI: i128 = 1_000_000;

/// RFC 3339 in UTC with milliseconds, such as `2026-01-02T03:04:05.678Z`.
///
/// Instants outside the years -9999 to 9999 are shown as the nearest end.
pub(crate) fn format(instant: Millis) -> String {
    let limit = if instant < 0 { Timestamp::MIN } else { Timestamp::MAX };
    PRINTER.timestamp_to_string(&Timestamp::from_millisecond(instant).unwrap_or(limit))
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now() -> Millis {
    Timestamp::now().as_millisecond()
}

/// The smallest millisecond that is not before the instant: what is created
/// strictly before the instant is created before this millisecond.
pub(crate) fn parse_before(text: &str) -> Option<Millis> {
    let nanos = parse(text)?;
    narrow(-(-nanos).div_euclid(NANOS_PER_MILLI))
}

/// The largest millisecond that is not after the instant: what is created
/// strictly after the instant is created after this millisecond.
pub(crate) fn parse_after(text: &str) -> Option<Millis> {
    narrow(parse(text)?.div_euclid(NANOS_PER_MILLI))
}

/// Nanoseconds since 1970. A `+` of an offset that arrived unescaped has
/// become a space in the query; no valid text has a space elsewhere.
fn parse(text: &str) -> Option<i128> {
    const LONGEST: usize = 64;
    if text.len() > LONGEST || !text.is_ascii() || text.contains('[') {
        return None;
    }
    let date_and_time = text.get(10..11).is_some_and(|separator| matches!(separator, "T" | "t"));
    if !date_and_time {
        return None;
    }
    let instant: Timestamp = text.replace(' ', "+").parse().ok()?;
    Some(instant.as_nanosecond())
}

fn narrow(millis: i128) -> Option<Millis> {
    millis.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_three_digits() {
        for (instant, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
            (1_767_323_045_600, "2026-01-02T03:04:05.600Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(instant), text);
            assert_eq!(parse_before(text), Some(instant));
            assert_eq!(parse_after(text), Some(instant));
        }
    }

    #[test]
    fn a_cursor_between_two_milliseconds_is_kept_strict() {
        let text = "2026-01-02T03:04:05.678000001Z";
        assert_eq!(parse_before(text), Some(1_767_323_045_679), "the pin at .678 is before it");
        assert_eq!(parse_after(text), Some(1_767_323_045_678), "the pin at .678 is not after it");
    }

    #[test]
    fn forms_of_other_clients_are_read() {
        for text in [
            "2026-01-02T03:04:05.678Z",
            "2026-01-02T03:04:05.678000000Z",
            "2026-01-02T05:04:05.678+02:00",
            "2026-01-02T05:04:05.678 02:00",
            "2026-01-01T21:04:05.678-06:00",
            "2026-01-02t03:04:05.678z",
        ] {
            assert_eq!(parse_before(text), Some(1_767_323_045_678), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "now", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "1767323045678"]
        {
            assert_eq!(parse_before(text), None, "{text}");
        }
        assert_eq!(parse_after("2026-01-02T03:04:05Z[UTC]"), None);
        assert_eq!(parse_after(&"2".repeat(1 << 16)), None);
    }
}
