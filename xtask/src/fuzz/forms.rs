//! Uploads: forms that are whole, and forms with every trick that their parts and boundaries allow.

use super::mutate::change_bytes;
use super::values;
use crate::rng::Rng;

const BOUNDARIES: [&str; 9] = ["x", "----a b", "\"quoted\"", "", "-", "ü", "a\"b", "=", "''()+_,-./:=?"];
const TYPES: [&str; 8] = [
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=\"x",
    "multipart/form-data; boundary=x; boundary=y",
    "multipart/mixed; boundary=x",
    "application/json",
    "text/plain; boundary=x",
    "multipart/form-data; charset=utf-16; boundary=x",
];
const FILE_NAMES: [&str; 14] = [
    "a.jsonl",
    "../../../../etc/passwd",
    "/etc/hosts",
    "..\\..\\a",
    "C:\\a",
    "",
    " ",
    "a\\\"b",
    "%00",
    "con",
    "ü\u{202e}lnosj",
    ".",
    "a/b",
    "<script>alert(1)</script>",
];
const PURPOSES: [&str; 6] = ["batch", "user_data", "", "BATCH", "batch_output", "fine-tuning"];
const EXPIRY: [&str; 9] = ["3600", "3599", "2592000", "2592001", "-1", "1e9", "9223372036854775808", "", "NaN"];

/// An upload's content type and its body.
pub fn upload(rng: &mut Rng) -> (String, Vec<u8>) {
    let boundary = if rng.once_in(4) { rng.pick(&BOUNDARIES) } else { "x" };
    let mut kind = match rng.below(10) {
        0 => rng.pick(&TYPES).to_string(),
        1 => format!("multipart/form-data; boundary={}", "b".repeat(1 + rng.below(9000))),
        _ => format!("multipart/form-data; boundary={boundary}"),
    };
    if rng.once_in(30) {
        kind.make_ascii_uppercase();
    }
    let mut body = Vec::new();
    for _ in 0..if rng.once_in(20) { rng.below(2000) } else { 1 + rng.below(4) } {
        part(boundary, rng, &mut body);
    }
    match rng.below(10) {
        0 => {}
        1 => body.extend_from_slice(format!("--{boundary}\r\n").as_bytes()),
        2 => body.extend_from_slice(format!("--{boundary}--\r\n--{boundary}\r\n\r\nafter the end").as_bytes()),
        _ => body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes()),
    }
    if rng.once_in(5) {
        change_bytes(&mut body, rng);
    }
    (kind, body)
}

fn part(boundary: &str, rng: &mut Rng, out: &mut Vec<u8>) {
    let name =
        rng.pick(&["file", "file", "purpose", "purpose", "expires_after[seconds]", "expires_after[anchor]", "x", ""]);
    let mut head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
    if name == "file" {
        head.push_str(&format!("; filename=\"{}\"", rng.pick(&FILE_NAMES)));
    }
    match rng.below(16) {
        0 => head.push_str("; filename*=UTF-8''%2e%2e%2fa%00"),
        1 => head.push_str(&format!("; a=\"{}\"", "b".repeat(1 << rng.below(18)))),
        2 => head.push_str("\r\nContent-Type: multipart/mixed; boundary=y\r\nContent-Transfer-Encoding: base64"),
        3 => head = head.replace("form-data;", rng.pick(&["attachment;", "", "form-data", "FORM-DATA ;"])),
        4 => head = format!("--{boundary}\r\nX: y"),
        5 => head.push_str(&"\r\nX: y".repeat(1 + rng.below(3000))),
        6 => head.push_str("\r\n folded"),
        7 => head.push_str("\r\nContent-Encoding: gzip\r\nContent-Length: 99999999999"),
        _ => {}
    }
    out.extend_from_slice(head.as_bytes());
    // Sometimes the head of a part does not end.
    out.extend_from_slice(if rng.once_in(20) { b"\r\n" } else { b"\r\n\r\n" });
    match name {
        "purpose" => out.extend_from_slice(rng.pick(&PURPOSES).as_bytes()),
        "expires_after[seconds]" => out.extend_from_slice(rng.pick(&EXPIRY).as_bytes()),
        "file" => out.extend(content(rng)),
        _ => out.extend(values::text(rng)),
    }
    out.extend_from_slice(b"\r\n");
}

/// Lines of a batch, good and bad ones, or anything.
fn content(rng: &mut Rng) -> Vec<u8> {
    if rng.once_in(8) {
        return vec![b'a' + rng.below(26) as u8; rng.below(300_000)];
    }
    let mut content = Vec::new();
    for _ in 0..rng.below(4) {
        let id = String::from_utf8_lossy(&values::text(rng)).into_owned();
        let line = format!(
            r#"{{"custom_id":"{id}{}","method":"POST","url":"/v1/chat/completions","body":{{"messages":[{{"role":"user","content":"x"}}],"max_tokens":1,"n":"#,
            rng.below(9)
        );
        content.extend_from_slice(line.as_bytes());
        values::any(rng).write(&mut content);
        content.extend_from_slice(b"}}\n");
    }
    content
}

#[cfg(test)]
mod tests {
    use super::upload;
    use crate::rng::Rng;

    #[test]
    fn most_forms_are_near_to_good_ones() {
        let forms: Vec<(String, Vec<u8>)> = (0..500).map(|seed| upload(&mut Rng(seed))).collect();
        let ends = |(kind, body): &&(String, Vec<u8>)| kind.ends_with("boundary=x") && body.ends_with(b"--x--\r\n");
        assert!(forms.iter().filter(ends).count() > 150);
        assert!(forms.iter().any(|(_, body)| body.windows(9).any(|bytes| bytes == b"../../../")));
        assert_eq!(upload(&mut Rng(7)), upload(&mut Rng(7)));
    }
}
