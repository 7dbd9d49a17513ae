//! Written arithmetic, digit by digit, as the analysis channel shows it.
//!
//! Numbers that meet are padded with zeros to one width, sums of a column always have two digits, every line of a
//! working has the same length: so each token depends on tokens at a fixed distance (a digit of each number, the carry
//! just written), which is what a small model learns exactly.
//!
//! ```text
//! 048+274        the operands, one width
//! 8+4+0=12       units, carry 0 coming in: 12, so 2 stays and 1 is carried
//! 4+7+1=12
//! 0+2+1=03
//! 322            the last sum, then the second digits upwards
//! ```

use std::cmp::Ordering;

/// How many digits the number has.
pub(super) fn width(n: u64) -> usize {
    n.to_string().len()
}

/// The number with zeros before it.
pub(super) fn padded(n: u64, width: usize) -> String {
    format!("{n:0width$}")
}

fn common_width(a: u64, b: u64) -> usize {
    width(a).max(width(b))
}

/// The digits of both numbers, units first.
fn columns(a: u64, b: u64) -> Vec<(u64, u64)> {
    let digit = |n: u64, place: usize| n / 10_u64.pow(place as u32) % 10;
    (0..common_width(a, b)).map(|place| (digit(a, place), digit(b, place))).collect()
}

/// The whole addition, one line each: operands, columns, sum.
pub(super) fn add(a: u64, b: u64) -> String {
    let w = common_width(a, b);
    let mut lines = vec![format!("{}+{}", padded(a, w), padded(b, w))];
    let mut carry = 0;
    for (x, y) in columns(a, b) {
        let sum = x + y + carry;
        lines.push(format!("{x}+{y}+{carry}={sum:02}"));
        carry = sum / 10;
    }
    lines.push((a + b).to_string());
    lines.join("\n")
}

/// `a - b` where a is not smaller: operands, columns with the borrow after b, the digits, the number.
pub(super) fn subtract(a: u64, b: u64) -> String {
    let w = common_width(a, b);
    let mut lines = vec![format!("{}-{}", padded(a, w), padded(b, w))];
    let mut borrow = 0;
    for (x, y) in columns(a, b) {
        let next = u64::from(x < y + borrow);
        lines.push(format!("{x}-{y}-{borrow}={} b{next}", x + 10 * next - y - borrow));
        borrow = next;
    }
    lines.push(padded(a - b, w));
    lines.push((a - b).to_string());
    lines.join("\n")
}

/// `a - b` in any order: the operands, which is larger, the smaller from the larger, and the sign.
pub(super) fn subtract_signed(a: u64, b: u64) -> String {
    let w = common_width(a, b);
    let head = format!("{}-{}\n{}", padded(a, w), padded(b, w), compare_digits(a, b, w));
    if a < b { format!("{head} -\n{}\n-{}", subtract(b, a), b - a) } else { format!("{head} +\n{}", subtract(a, b)) }
}

/// `a` times one digit: operands, columns with the carry added, product.
pub(super) fn multiply_digit(a: u64, digit: u64) -> String {
    let mut lines = vec![format!("{a}*{digit}")];
    let mut carry = 0;
    for (x, _) in columns(a, a) {
        let product = x * digit + carry;
        lines.push(format!("{x}*{digit}+{carry}={product:02}"));
        carry = product / 10;
    }
    lines.push((a * digit).to_string());
    lines.join("\n")
}

/// `a` times `b` of one or two digits: one product for each digit of b, then their sum.
pub(super) fn multiply(a: u64, b: u64) -> String {
    if b < 10 {
        return multiply_digit(a, b);
    }
    let (tens, units) = (b / 10, b % 10);
    format!("{}\n{}\n{}", multiply_digit(a, units), multiply_digit(a, tens), add(a * units, a * tens * 10))
}

/// Casting out nines: the digit sum, again until one digit is left.
pub(super) fn digit_root(n: u64) -> String {
    let digits: Vec<String> = n.to_string().chars().map(String::from).collect();
    if digits.len() == 1 {
        return n.to_string();
    }
    let sum: u64 = digits.iter().filter_map(|digit| digit.parse::<u64>().ok()).sum();
    let line = format!("{}={sum}", digits.join("+"));
    if sum < 10 { line } else { format!("{line} {}", digit_root(sum)) }
}

/// Digit against digit from the left, up to the first that differ: `3=3 4<5`.
pub(super) fn compare_digits(a: u64, b: u64, width: usize) -> String {
    let (a, b) = (padded(a, width), padded(b, width));
    let mut steps = Vec::new();
    for (x, y) in a.chars().zip(b.chars()) {
        let sign = match x.cmp(&y) {
            Ordering::Less => '<',
            Ordering::Equal => '=',
            Ordering::Greater => '>',
        };
        steps.push(format!("{x}{sign}{y}"));
        if x != y {
            break;
        }
    }
    steps.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{add, compare_digits, digit_root, multiply, subtract, subtract_signed};

    #[test]
    fn workings_are_written_in_columns() {
        assert_eq!(add(48, 274), "048+274\n8+4+0=12\n4+7+1=12\n0+2+1=03\n322");
        assert_eq!(add(99, 1), "99+01\n9+1+0=10\n9+0+1=10\n100");
        assert_eq!(subtract(305, 298), "305-298\n5-8-0=7 b1\n0-9-1=0 b1\n3-2-1=0 b0\n007\n7");
        assert_eq!(subtract_signed(7, 12), "07-12\n0<1 -\n12-07\n2-7-0=5 b1\n1-0-1=0 b0\n05\n5\n-5");
        assert_eq!(subtract_signed(12, 12).lines().nth(1), Some("1=1 2=2 +"));
        assert_eq!(multiply(47, 6), "47*6\n7*6+0=42\n4*6+4=28\n282");
        assert!(
            multiply(47, 36).ends_with(
                "282\n47*3\n7*3+0=21\n4*3+2=14\n141\n0282+1410\n2+0+0=02\n8+1+0=09\n2+4+0=06\n0+1+0=01\n1692"
            )
        );
        assert_eq!(digit_root(989), "9+8+9=26 2+6=8");
        assert_eq!(compare_digits(345, 354, 3), "3=3 4<5");
    }
}
