//! Formulas over the scores of several graders: `0.7 * style + 0.3 * max(tool, 0.5)`. Numbers, names, `+ - * / ^`, brackets,
//! and the functions `min max abs floor ceil exp sqrt log`.

use super::error::{Error, Result};

/// Brackets, signs and powers inside each other.
const MOST_DEPTH: usize = 64;
/// Operations of a formula.
const MOST_PARTS: usize = 1000;

/// A formula that can be computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Formula(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    /// The place among the names.
    Name(usize),
    Negative(Box<Node>),
    Both(char, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Min,
    Max,
    Abs,
    Floor,
    Ceil,
    Exp,
    Sqrt,
    Log,
}

/// Name, function, how many values it takes at least and at most.
const FUNCTIONS: [(&str, Function, usize, usize); 8] = [
    ("min", Function::Min, 1, 99),
    ("max", Function::Max, 1, 99),
    ("abs", Function::Abs, 1, 1),
    ("floor", Function::Floor, 1, 1),
    ("ceil", Function::Ceil, 1, 1),
    ("exp", Function::Exp, 1, 1),
    ("sqrt", Function::Sqrt, 1, 1),
    ("log", Function::Log, 1, 1),
];

/// Whether a grader may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    starts && goes_on && FUNCTIONS.iter().all(|(function, ..)| *function != name)
}

impl Formula {
    /// Reads a formula over `names`.
    pub fn parse(formula: &str, names: &[&str], at: &str) -> Result<Self> {
        let mut parser = Parser { text: formula.as_bytes(), place: 0, names, num_parts: 0 };
        let read = parser.sum(0).and_then(|node| match parser.peek() {
            None => Ok(node),
            Some(_) => Err("wanted an operator or the end".to_owned()),
        });
        let place = parser.place;
        read.map(Self).map_err(|problem| Error::Formula {
            at: at.to_owned(),
            formula: formula.to_owned(),
            place,
            problem,
        })
    }

    /// With a value for each name; not finite where it divides by 0 and the like.
    pub fn value(&self, values: &[f64]) -> f64 {
        self.0.value(values)
    }
}

impl Node {
    fn value(&self, values: &[f64]) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Name(place) => values.get(*place).copied().unwrap_or(f64::NAN),
            Self::Negative(node) => -node.value(values),
            Self::Both(operator, nodes) => {
                let [a, b] = [nodes[0].value(values), nodes[1].value(values)];
                match operator {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    '/' => a / b,
                    _ => a.powf(b),
                }
            }
            Self::Call(function, nodes) => {
                let mut inside = nodes.iter().map(|node| node.value(values));
                let first = inside.next().unwrap_or(f64::NAN);
                match function {
                    Function::Min => inside.fold(first, f64::min),
                    Function::Max => inside.fold(first, f64::max),
                    Function::Abs => first.abs(),
                    Function::Floor => first.floor(),
                    Function::Ceil => first.ceil(),
                    Function::Exp => first.exp(),
                    Function::Sqrt => first.sqrt(),
                    Function::Log => first.ln(),
                }
            }
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    place: usize,
    names: &'a [&'a str],
    num_parts: usize,
}

type Read = std::result::Result<Node, String>;

impl Parser<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.place).is_some_and(u8::is_ascii_whitespace) {
            self.place += 1;
        }
        self.text.get(self.place).copied()
    }

    fn take(&mut self, wanted: &[u8]) -> Option<u8> {
        let found = self.peek().filter(|byte| wanted.contains(byte));
        self.place += usize::from(found.is_some());
        found
    }

    fn both(&mut self, operator: u8, left: Node, right: Node) -> Read {
        self.num_parts += 1;
        if self.num_parts > MOST_PARTS {
            return Err(format!("more than {MOST_PARTS} operations"));
        }
        Ok(Node::Both(char::from(operator), Box::new([left, right])))
    }

    fn sum(&mut self, depth: usize) -> Read {
        let mut left = self.product(depth)?;
        while let Some(operator) = self.take(b"+-") {
            let right = self.product(depth)?;
            left = self.both(operator, left, right)?;
        }
        Ok(left)
    }

    fn product(&mut self, depth: usize) -> Read {
        let mut left = self.signed(depth)?;
        while let Some(operator) = self.take(b"*/") {
            let right = self.signed(depth)?;
            left = self.both(operator, left, right)?;
        }
        Ok(left)
    }

    /// A sign is weaker than a power: -2^2 is -4.
    fn signed(&mut self, depth: usize) -> Read {
        if depth > MOST_DEPTH {
            return Err(format!("more than {MOST_DEPTH} brackets inside each other"));
        }
        match self.take(b"+-") {
            Some(b'-') => Ok(Node::Negative(Box::new(self.signed(depth + 1)?))),
            Some(_) => self.signed(depth + 1),
            None => self.power(depth),
        }
    }

    fn power(&mut self, depth: usize) -> Read {
        let base = self.one(depth)?;
        match self.take(b"^") {
            Some(operator) => {
                let exponent = self.signed(depth + 1)?;
                self.both(operator, base, exponent)
            }
            None => Ok(base),
        }
    }

    fn one(&mut self, depth: usize) -> Read {
        if self.take(b"(").is_some() {
            let inside = self.sum(depth + 1)?;
            return self.take(b")").map(|_| inside).ok_or_else(|| "wanted )".to_owned());
        }
        match self.peek() {
            Some(byte) if byte.is_ascii_digit() || byte == b'.' => self.number(),
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => self.name(depth),
            _ => Err("wanted a number, a grader's name or (".to_owned()),
        }
    }

    /// The bytes from here on that `belong`.
    fn word(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let rest = &self.text[self.place..];
        let num = rest.iter().take_while(|&&byte| belongs(byte)).count();
        self.place += num;
        String::from_utf8_lossy(&rest[..num]).into_owned()
    }

    fn number(&mut self) -> Read {
        let start = self.place;
        let word = self.word(|byte| byte.is_ascii_digit() || byte == b'.');
        word.parse().map(Node::Number).map_err(|_| {
            self.place = start;
            "wanted a number".to_owned()
        })
    }

    fn name(&mut self, depth: usize) -> Read {
        let start = self.place;
        let word = self.word(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some((_, function, least, most)) = FUNCTIONS.iter().find(|(name, ..)| *name == word) else {
            return self.names.iter().position(|name| *name == word).map(Node::Name).ok_or_else(|| {
                self.place = start;
                format!("there is no grader {word:?} ({})", self.names.join(", "))
            });
        };
        if self.take(b"(").is_none() {
            return Err(format!("wanted ( after {word}"));
        }
        let mut inside = vec![self.sum(depth + 1)?];
        while self.take(b",").is_some() {
            inside.push(self.sum(depth + 1)?);
        }
        if self.take(b")").is_none() {
            return Err("wanted , or )".to_owned());
        }
        match (*least..=*most).contains(&inside.len()) {
            true => Ok(Node::Call(*function, inside)),
            false => Err(format!("{word} does not take {} values", inside.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(formula: &str) -> f64 {
        Formula::parse(formula, &["a", "b_2"], "f").unwrap().value(&[0.5, 2.0])
    }

    #[test]
    fn formulas_are_computed() {
        for (formula, wanted) in [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("8 / 4 / 2", 1.0),
            ("5 - 2 - 1", 2.0),
            ("2 ^ 3 ^ 2", 512.0),
            ("-2 ^ 2", -4.0),
            ("2 ^ -1", 0.5),
            ("0.7 * a + 0.3*b_2", 0.95),
            ("min(a, b_2, 0.25) + max(1,2)", 2.25),
            ("abs(-3) + floor(1.7) + ceil(1.2) + sqrt(9) + exp(0) + log(1)", 10.0),
            ("--1", 1.0),
            (".5", 0.5),
        ] {
            assert!((value(formula) - wanted).abs() < 1e-12, "{formula}: {}", value(formula));
        }
        assert!(!value("1 / (a - 0.5)").is_finite() && value("sqrt(-1)").is_nan());
    }

    #[test]
    fn wrong_formulas_say_where() {
        let deep = "(".repeat(100_000);
        let long = "1+".repeat(5000) + "1";
        let powers = "2^".repeat(5000) + "1";
        for (formula, place, problem) in [
            ("", 0, "wanted a number"),
            ("1 +", 3, "wanted a number, a grader's name or ("),
            ("1 2", 2, "wanted an operator or the end"),
            ("c + 1", 0, "there is no grader \"c\" (a, b_2)"),
            ("min(1", 5, "wanted , or )"),
            ("min 1", 4, "wanted ( after min"),
            ("abs(1, 2)", 9, "abs does not take 2 values"),
            ("1.2.3", 0, "wanted a number"),
            ("(1", 2, "wanted )"),
            ("1 + é", 4, "wanted a number"),
            (deep.as_str(), 65, "more than 64 brackets"),
            (long.as_str(), 2003, "more than 1000 operations"),
            (powers.as_str(), 130, "more than 64 brackets"),
        ] {
            match Formula::parse(formula, &["a", "b_2"], "f").unwrap_err() {
                Error::Formula { place: found, problem: said, .. } => {
                    assert!(said.starts_with(problem), "{said}");
                    assert_eq!(found, place, "{problem}");
                }
                other => panic!("{other}"),
            }
        }
        assert!(is_name("a_1") && !is_name("1a") && !is_name("min") && !is_name("") && !is_name("a b"));
    }
}
