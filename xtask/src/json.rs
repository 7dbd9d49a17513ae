//! JSON as these tools need it: read strictly, changed freely, written as it stands. A number or a string is kept in the
//! bytes that it was written in, so that what no writer of JSON would write can be written too.

/// A value. What is read is valid; what is made by hand need not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// A number, true, false, null; or any bytes.
    Raw(Vec<u8>),
    /// A string, as it stands between its quotes.
    Text(Vec<u8>),
    /// An array.
    List(Vec<Json>),
    /// An object, with its keys as they stand between their quotes.
    Map(Vec<(Vec<u8>, Json)>),
}

/// Deeper than anything that is sent or answered.
const MOST_LEVELS: usize = 200;

impl Json {
    /// Reads a whole text; None where it is not JSON.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        (reader.at == text.len()).then_some(value)
    }

    /// Writes the value at the end of `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Raw(bytes) => out.extend_from_slice(bytes),
            Json::Text(bytes) => quoted(bytes, out),
            Json::List(list) => {
                out.push(b'[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    value.write(out);
                }
                out.push(b']');
            }
            Json::Map(fields) => {
                out.push(b'{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    quoted(key, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// The field of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Map(fields) = self else { return None };
        fields.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value)
    }

    /// The text of a string field, where it needs no escapes.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Json::Text(bytes) => std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\\')),
            _ => None,
        }
    }

    /// The number of a field.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Json::Raw(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The members of an array, of an array's field; nothing where there is none.
    pub fn list(&self, key: &str) -> &[Json] {
        match self.get(key) {
            Some(Json::List(list)) => list,
            _ => &[],
        }
    }

    /// How many values it is made of, itself among them.
    pub fn count(&self) -> usize {
        let inner: usize = match self {
            Json::Raw(_) | Json::Text(_) => 0,
            Json::List(list) => list.iter().map(Json::count).sum(),
            Json::Map(fields) => fields.iter().map(|(_, value)| value.count()).sum(),
        };
        1 + inner
    }

    /// The value with this number, counted from 0 as they are written.
    pub fn nth(&mut self, number: usize) -> Option<&mut Json> {
        fn walk<'j>(value: &'j mut Json, left: &mut usize) -> Option<&'j mut Json> {
            if *left == 0 {
                return Some(value);
            }
            *left -= 1;
            match value {
                Json::Raw(_) | Json::Text(_) => None,
                Json::List(list) => list.iter_mut().find_map(|value| walk(value, left)),
                Json::Map(fields) => fields.iter_mut().find_map(|(_, value)| walk(value, left)),
            }
        }
        walk(self, &mut { number })
    }
}

fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(bytes);
    out.push(b'"');
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            self.at += 1;
        }
    }

    /// Takes this byte, if it is the next after any space.
    fn takes(&mut self, byte: u8) -> bool {
        self.space();
        let is_there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn value(&mut self, level: usize) -> Option<Json> {
        if level > MOST_LEVELS {
            return None;
        }
        self.space();
        match self.text.get(self.at)? {
            b'{' => self.map(level),
            b'[' => self.list(level),
            b'"' => self.string().map(Json::Text),
            _ => self.word(),
        }
    }

    fn map(&mut self, level: usize) -> Option<Json> {
        self.at += 1;
        let mut fields = Vec::new();
        if self.takes(b'}') {
            return Some(Json::Map(fields));
        }
        loop {
            self.space();
            let key = self.string()?;
            if !self.takes(b':') {
                return None;
            }
            fields.push((key, self.value(level + 1)?));
            if self.takes(b'}') {
                return Some(Json::Map(fields));
            }
            if !self.takes(b',') {
                return None;
            }
        }
    }

    fn list(&mut self, level: usize) -> Option<Json> {
        self.at += 1;
        let mut list = Vec::new();
        if self.takes(b']') {
            return Some(Json::List(list));
        }
        loop {
            list.push(self.value(level + 1)?);
            if self.takes(b']') {
                return Some(Json::List(list));
            }
            if !self.takes(b',') {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if self.text.get(self.at) != Some(&b'"') {
            return None;
        }
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.text.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                byte if *byte < 0x20 => return None,
                _ => at += 1,
            }
        }
        self.at = at + 1;
        let bytes = &self.text[start..at];
        std::str::from_utf8(bytes).ok().map(|text| text.as_bytes().to_vec())
    }

    fn word(&mut self) -> Option<Json> {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|byte| b",]} \t\r\n".contains(byte)).unwrap_or(rest.len());
        let word = std::str::from_utf8(&rest[..len]).ok()?;
        let is_number = word.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
            && word.parse::<f64>().is_ok();
        if !is_number && !["true", "false", "null"].contains(&word) {
            return None;
        }
        self.at += len;
        Some(Json::Raw(word.as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    fn written(value: &Json) -> String {
        let mut out = Vec::new();
        value.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_read_is_written_again() {
        let text = r#"{"a":[1,-2.5e3,true,null,"x\"y\u0000"],"b":{},"c":[]}"#;
        let value = Json::read(text.as_bytes()).unwrap();
        assert_eq!(written(&value), text);
        assert_eq!(value.count(), 9);
        assert_eq!(Json::read(b" { \"a\" : 7 } \n").unwrap().number("a"), Some(7));
        for wrong in ["", "{", "[1,]", "{\"a\"}", "{'a':1}", "01x", "nul", "\"a", "1 2", "\"\n\"", "NaN"] {
            assert_eq!(Json::read(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Json::read(b"\"\xff\""), None);
        assert_eq!(Json::read("[".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn values_are_counted_as_they_are_written() {
        let mut value = Json::read(br#"{"a":[1,2],"b":"x"}"#).unwrap();
        *value.nth(3).unwrap() = Json::Raw(b"1e999".to_vec());
        *value.nth(4).unwrap() = Json::Text(b"\\ud800".to_vec());
        assert_eq!(written(&value), r#"{"a":[1,1e999],"b":"\ud800"}"#);
        assert_eq!(value.nth(5), None);
        assert_eq!(value.list("a").len(), 2);
        assert_eq!(value.text("b"), None, "an escape");
    }
}
