//! A number in an answer, right to within a tolerance.

use serde_json::Value;

use super::Score;
use super::description::Description;
use super::error::Result;
use super::template::{Context, Template};

/// `{"type": "numeric", "reference": "{{item.answer}}", "tolerance": 0.01, "relative_tolerance": 0, "take": "last"}`: the
/// difference may be as large as the larger of both tolerances. `take` says which number of the input counts: the last
/// one, or the only one, beside which nothing may stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numeric {
    input: Template,
    reference: Template,
    tolerance: f64,
    relative: f64,
    alone: bool,
}

impl Numeric {
    pub fn read(fields: &Description) -> Result<Self> {
        fields.only(&["input", "reference", "tolerance", "relative_tolerance", "take"])?;
        let alone = match fields.get("take").map(|take| take.as_str()) {
            None | Some(Some("last")) => false,
            Some(Some("only")) => true,
            Some(_) => return fields.wrong("take", "\"last\" or \"only\""),
        };
        // A number may stand there as it is.
        let reference = match fields.get("reference") {
            Some(Value::Number(number)) => Template::parse(&number.to_string(), &fields.at("reference"))?,
            _ => fields.template("reference")?,
        };
        let tolerance = fields.number("tolerance", 0.0, 0.0..=f64::MAX)?;
        let relative = fields.number("relative_tolerance", 0.0, 0.0..=1.0)?;
        Ok(Self { input: fields.input()?, reference, tolerance, relative, alone })
    }

    pub fn check(&self, item: &Value) -> Result<()> {
        self.input.check(item)?;
        self.reference.check(item)
    }

    pub fn grade(&self, context: Context) -> std::result::Result<Score, String> {
        let reference = self.reference.fill(context)?;
        let wanted = only(&reference).ok_or_else(|| format!("the reference {reference:?} is not a number"))?;
        let input = self.input.fill(context)?;
        let Some(found) = (if self.alone { only(&input) } else { last(&input) }) else {
            return Err("there is no number in the answer".to_owned());
        };
        let allowed = self.tolerance.max(self.relative * wanted.abs());
        Ok(Score::yes((found - wanted).abs() <= allowed))
    }
}

/// The number that the whole text is.
fn only(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, length) = number_at(text.as_bytes(), 0)?;
    (length == text.len()).then_some(number)
}

/// The last number in a text.
fn last(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let (mut at, mut found) = (0, None);
    while at < bytes.len() {
        match number_at(bytes, at) {
            Some((number, length)) => {
                found = Some(number);
                at += length;
            }
            None => at += 1,
        }
    }
    found
}

/// The number that begins at `at`, and its bytes: a sign where no word or number ends before it, digits with commas between
/// groups of three, a fraction, an exponent. Nothing where a word or a number goes on here.
fn number_at(text: &[u8], at: usize) -> Option<(f64, usize)> {
    let byte = |place: usize| text.get(place).copied().unwrap_or(b' ');
    let is_digit = |place: usize| byte(place).is_ascii_digit();
    let before = at.checked_sub(1).map_or(b' ', byte);
    if before.is_ascii_alphanumeric() || before == b'_' {
        return None;
    }
    let mut end = at;
    let mut digits = String::new();
    if matches!(byte(end), b'-' | b'+') {
        digits.push(char::from(byte(end)));
        end += 1;
    }
    let start = end;
    let groups = |place: usize| byte(place) == b',' && (1..=3).all(|n| is_digit(place + n)) && !is_digit(place + 4);
    while is_digit(end) || end > start && groups(end) {
        if is_digit(end) {
            digits.push(char::from(byte(end)));
        }
        end += 1;
    }
    if byte(end) == b'.' && is_digit(end + 1) {
        digits.push('.');
        end += 1;
        while is_digit(end) {
            digits.push(char::from(byte(end)));
            end += 1;
        }
    }
    if end == start {
        return None;
    }
    let sign = usize::from(matches!(byte(end + 1), b'-' | b'+'));
    if matches!(byte(end), b'e' | b'E') && is_digit(end + 1 + sign) {
        let mut after = end + 1 + sign;
        while is_digit(after) {
            after += 1;
        }
        digits.push_str(std::str::from_utf8(&text[end..after]).ok()?);
        end = after;
    }
    let number: f64 = digits.parse().ok()?;
    Some((number, end - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_text() {
        for (text, wanted) in [
            ("42", Some(42.0)),
            ("The sum is 1,234,567.5.", Some(1_234_567.5)),
            ("from 3 to -4 degrees", Some(-4.0)),
            ("3-4", Some(4.0)),
            ("x2 and y_3", None),
            ("1e3 or 2.5E-2", Some(0.025)),
            ("7 eur", Some(7.0)),
            ("1, 2, 3", Some(3.0)),
            ("1,23", Some(23.0)),
            ("about .5", Some(0.5)),
            ("5.", Some(5.0)),
            ("- none -", None),
            ("", None),
            ("é7", Some(7.0)),
        ] {
            assert_eq!(last(text), wanted, "{text}");
        }
        assert_eq!((only(" 12 "), only("12 m"), only("a 12"), only("+1")), (Some(12.0), None, None, Some(1.0)));
    }

    #[test]
    fn any_bytes_end() {
        let pieces = ["1", ",", ".", "-", "e", "+", "9999999999", "é", " ", "\0"];
        for n in 0..20_000usize {
            let text: String = (0..7).map(|place| pieces[n / 7usize.pow(place) % pieces.len()]).collect();
            let _ = (last(&text), only(&text));
        }
        assert!(last(&"9".repeat(5000)).is_some_and(f64::is_infinite));
    }
}
