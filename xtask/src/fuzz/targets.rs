//! Odd paths, ids, queries and methods on the routes that there are.

use super::bases::BASES;
use super::values;
use crate::rng::Rng;

/// What stands in an id's place. None of them is one.
const IDS: [&str; 34] = [
    "..",
    ".",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc%2fhosts",
    "..%2f..%2f",
    "%00",
    "a%00b",
    "%ff%fe",
    "%c0%af",
    "%ed%a0%80",
    "%",
    "%zz",
    "%2",
    "%25",
    "%2F",
    "%5c",
    "%0d%0aset-cookie:a=b",
    "%20",
    "%3f",
    "%23",
    "*",
    "~",
    ";a=b",
    "a;b",
    "resp_",
    "resp_0",
    "RESP_000000000000000000000000000000000000000000000000",
    "file-00000000000000000000000000000000000000000000000'",
    "{id}",
    "{*rest}",
    ":id",
    "-1",
    "9223372036854775808",
    "null",
];

const METHODS: [&str; 19] = [
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "Post",
    "PRI",
    "QUERY",
    "BREW",
    "M-SEARCH",
    "G",
    "_",
    "!#$%&'*+-.^_`|~",
    "GET\u{7f}",
];

/// Names of parameters that some route has.
const PARAMETERS: [&str; 12] = [
    "limit",
    "after",
    "before",
    "order",
    "purpose",
    "stream",
    "starting_after",
    "include",
    "include[]",
    "include_obfuscation",
    "x",
    "",
];

const PARAMETER_VALUES: [&str; 24] = [
    "",
    "0",
    "-1",
    "1",
    "100",
    "101",
    "1e3",
    "NaN",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "true",
    "false",
    "TRUE",
    "asc",
    "desc",
    "ASC",
    "%00",
    "%ff",
    "%",
    "null",
    "a%26b",
];

/// A method and a target, from a base's.
pub fn odd(rng: &mut Rng) -> (String, String) {
    let base = rng.pick(BASES);
    let mut method = base.method.to_owned();
    let mut target = base.target.to_owned();
    for _ in 0..1 + rng.below(2) {
        match rng.below(7) {
            0 => method = rng.pick(&METHODS).to_string(),
            1 | 2 => target = with_odd_id(&target, rng),
            3 | 4 => target = with_query(&target, rng),
            5 => target = with_odd_path(&target, rng),
            _ => {
                target =
                    format!("{target}{}", rng.pick(&["/", "//", "?", "#a", "/..", "/%2e%2e/", "%20", "/x/y", ".json"]))
            }
        }
    }
    if rng.once_in(60) {
        method = "A".repeat(1 << rng.below(17));
    }
    (method, target)
}

/// An odd id for the last segment that could be one.
fn with_odd_id(target: &str, rng: &mut Rng) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    let at = segments.iter().rposition(|segment| segment.contains(['{', '_', '-'])).unwrap_or(segments.len() - 1);
    segments[at] = match rng.below(5) {
        0 => rng.pick(&["a", "%41", "_", "%00", "0"]).repeat(1 + rng.below(8000)),
        1 => percent_encoded(&values::text(rng)),
        2 => format!("{}{}", segments[at], rng.pick(&IDS)),
        _ => rng.pick(&IDS).to_string(),
    };
    let path = segments.join("/");
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn with_query(target: &str, rng: &mut Rng) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let pair = |rng: &mut Rng| {
        let value = match rng.below(8) {
            0 => percent_encoded(&values::text(rng)),
            1 => "9".repeat(1 + rng.below(4000)),
            _ => rng.pick(&PARAMETER_VALUES).to_string(),
        };
        format!("{}{}{value}", rng.pick(&PARAMETERS), rng.pick(&["=", "=", "=", "", "==", "%3d"]))
    };
    let num = if rng.once_in(12) { rng.below(900) } else { 1 + rng.below(4) };
    let pairs: Vec<String> = (0..num).map(|_| pair(rng)).collect();
    format!("{path}?{}", pairs.join(rng.pick(&["&", "&", "&", ";", "&&"])))
}

fn with_odd_path(target: &str, rng: &mut Rng) -> String {
    match rng.below(9) {
        0 => target.to_uppercase(),
        1 => target.replace('/', "//"),
        2 => format!("/..{target}"),
        3 => format!("/%2e{target}"),
        4 => target.replacen("/v1", rng.pick(&["/v2", "/V1", "/v1/v1", "", "/v1%2f", "/v1/.."]), 1),
        5 => format!(
            "/ui/{}",
            rng.pick(&["../Cargo.toml", "%2e%2e%2fmod.rs", "app.js%00", "app.js/", "APP.JS", "", "\\..\\mod.rs"])
        ),
        6 => rng
            .pick(&[
                "/.env",
                "/.git/config",
                "/admin",
                "/debug/pprof",
                "/v1",
                "/api",
                "/v1/",
                "/ui",
                "/favicon.ico",
                "/v1/engines",
                "/v1/embeddings",
                "/v1/audio/speech",
                "/v1/images/generations",
                "/api/delete",
                "/api/create",
                "/api/blobs/sha256:x",
            ])
            .to_string(),
        7 => format!("{target}{}", "/a".repeat(1 + rng.below(4000))),
        _ => percent_encoded(target.as_bytes()).replacen("%2F", "/", 1),
    }
}

/// Every byte as `%XX`, but those that need it least.
pub fn percent_encoded(bytes: &[u8]) -> String {
    let encode = |byte: &u8| match byte.is_ascii_alphanumeric() {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.iter().take(4000).map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::odd;
    use crate::rng::Rng;

    #[test]
    fn odd_targets_of_many_kinds() {
        let all: Vec<(String, String)> = (0..3000).map(|seed| odd(&mut Rng(seed))).collect();
        for part in ["%00", "%2e%2e", "limit=-1", "/v1/models/", "//", "%ED%A0%80", "starting_after="] {
            assert!(all.iter().any(|(_, target)| target.contains(part)), "{part}");
        }
        for method in ["TRACE", "get", "HEAD", "PRI"] {
            assert!(all.iter().any(|(own, _)| own == method), "{method}");
        }
        assert_eq!(odd(&mut Rng(5)), odd(&mut Rng(5)));
    }
}
