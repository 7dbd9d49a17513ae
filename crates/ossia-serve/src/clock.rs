//! The time. The only file that asks for it.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// See [`fix_today`].
static FIXED: OnceLock<String> = OnceLock::new();

/// Seconds since 1970-01-01 UTC.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A seed that differs from request to request.
pub fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Today in UTC, YYYY-MM-DD.
pub fn today() -> String {
    FIXED.get().cloned().unwrap_or_else(|| date(now_s()))
}

/// From now on models are told that it is this day: for tests over a real one, whose words depend on it.
pub fn fix_today(day: &str) {
    // Who fixes it again fixes the same.
    let _ = FIXED.set(day.to_owned());
}

/// A time as RFC 3339, in UTC.
pub fn rfc3339(seconds: u64) -> String {
    let second = seconds % 86_400;
    format!("{}T{:02}:{:02}:{:02}Z", date(seconds), second / 3600, second / 60 % 60, second % 60)
}

/// The civil date of a second, by eras of 400 years that begin in March.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (d, m) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{m:02}-{d:02}", era * 400 + year + u64::from(m <= 2))
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_795_478_399), "2026-11-23T23:59:59Z");
    }
}
