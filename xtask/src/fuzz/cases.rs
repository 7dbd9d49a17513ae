//! The cases of a run: each is made from the seed and its number alone, but for the ids that the server gave.

use std::net::SocketAddr;

use super::bases::{BASES, bodies};
use super::mutate::{NUM_SYSTEMATIC, random, systematic};
use super::wire::Wire;
use super::{Case, End, forms, targets, values};
use crate::client::request;
use crate::json::Json;
use crate::rng::Rng;

/// Things that exist on the server.
#[derive(Debug, Clone)]
pub struct Ids {
    /// A response.
    pub resp: String,
    /// A conversation.
    pub conv: String,
    /// An item, once of that conversation.
    pub item: String,
    /// A file.
    pub file: String,
    /// A batch.
    pub batch: String,
}

impl Ids {
    /// Puts ids in the places that bases leave for them.
    pub fn fill(&self, bytes: &[u8]) -> Vec<u8> {
        let names = [
            ("{resp}", &self.resp),
            ("{conv}", &self.conv),
            ("{item}", &self.item),
            ("{file}", &self.file),
            ("{batch}", &self.batch),
        ];
        let mut out = Vec::with_capacity(bytes.len() + 256);
        let mut at = 0;
        while at < bytes.len() {
            let here = names.iter().find(|(name, _)| bytes[at..].starts_with(name.as_bytes()));
            match here {
                Some((name, id)) => {
                    out.extend_from_slice(id.as_bytes());
                    at += name.len();
                }
                None => {
                    out.push(bytes[at]);
                    at += 1;
                }
            }
        }
        out
    }

    /// The same in a request, whose body may get another length by it.
    pub fn fill_request(&self, bytes: &[u8]) -> Vec<u8> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let (head, body) = bytes.split_at(end);
        let (mut head, filled) = (self.fill(head), self.fill(body));
        let told = format!("content-length: {}\r\n", body.len()).into_bytes();
        if let Some(at) = head.windows(told.len()).position(|bytes| bytes == told) {
            let now = format!("content-length: {}\r\n", filled.len());
            head.splice(at..at + told.len(), now.into_bytes());
        }
        head.extend(filled);
        head
    }

    /// Goes on with what an answer has made.
    pub fn learn(&mut self, answer: &[u8]) {
        let Some(value) = Json::read(answer) else { return };
        let Some(id) = value.text("id") else { return };
        let is_kept = value.get("store") != Some(&Json::Raw(b"false".to_vec()));
        for (prefix, own) in [
            ("resp_", &mut self.resp),
            ("conv_", &mut self.conv),
            ("file-", &mut self.file),
            ("batch_", &mut self.batch),
        ] {
            if is_kept && id.starts_with(prefix) && value.get("deleted").is_none() {
                id.clone_into(own);
            }
        }
    }
}

/// See the module.
pub struct Cases {
    seed: u64,
    at: SocketAddr,
    key: String,
    bodies: Vec<Option<Json>>,
    /// (base, place) of every value of every body.
    places: Vec<(usize, usize)>,
}

impl Cases {
    /// For a server.
    pub fn new(seed: u64, at: SocketAddr, key: &str) -> Result<Self, String> {
        let bodies = bodies()?;
        let places = bodies.iter().enumerate().filter_map(|(base, body)| Some((base, body.as_ref()?.count())));
        let places = places.flat_map(|(base, count)| (0..count).map(move |place| (base, place))).collect();
        Ok(Self { seed, at, key: key.to_owned(), bodies, places })
    }

    /// How many cases put each extreme in each place; the rest is drawn.
    pub fn num_systematic(&self) -> u64 {
        (self.places.len() * NUM_SYSTEMATIC) as u64
    }

    /// The case with this number, before its ids are filled in.
    pub fn make(&self, number: u64) -> Case {
        if number < self.num_systematic() {
            return self.systematic(number as usize);
        }
        let mut rng = Rng::of_case(self.seed, number);
        match rng.below(20) {
            0..=10 => self.body(&mut rng),
            11..=13 => self.target(&mut rng),
            14..=15 => {
                let (kind, body) = forms::upload(&mut rng);
                let bytes = upload(self.at, &self.key, &kind, &body);
                Case { kind: "upload", bytes, end: End::Reuse, may_close: false }
            }
            _ => Wire { at: self.at, key: &self.key }.case(&mut rng),
        }
    }

    fn systematic(&self, number: usize) -> Case {
        let (base, place) = self.places[number / NUM_SYSTEMATIC];
        let body = self.bodies[base].as_ref().map(|body| systematic(body, place, number % NUM_SYSTEMATIC));
        let BaseRequest { method, target } = BaseRequest::of(base);
        let bytes = request(method, target, self.at, &self.key, body.as_deref());
        Case { kind: "systematic", bytes, end: End::Reuse, may_close: false }
    }

    fn body(&self, rng: &mut Rng) -> Case {
        let with_body: Vec<usize> = (0..BASES.len()).filter(|base| self.bodies[*base].is_some()).collect();
        let base = rng.pick(&with_body);
        let BaseRequest { method, target } = BaseRequest::of(base);
        let mut body = match &self.bodies[base] {
            Some(body) => random(body, rng),
            None => Vec::new(),
        };
        if rng.once_in(300) {
            // A body of another route, or of none.
            body.clear();
            values::any(rng).write(&mut body);
        }
        let bytes = request(method, target, self.at, &self.key, Some(&body));
        Case { kind: "body", bytes, end: End::Reuse, may_close: body.len() > (4 << 20) }
    }

    fn target(&self, rng: &mut Rng) -> Case {
        let (method, target) = targets::odd(rng);
        let body = rng.once_in(3).then_some(b"{}".as_slice());
        let bytes = request(&method, &target, self.at, &self.key, body);
        Case { kind: "target", bytes, end: End::Reuse, may_close: true }
    }
}

struct BaseRequest {
    method: &'static str,
    target: &'static str,
}

impl BaseRequest {
    fn of(base: usize) -> Self {
        Self { method: BASES[base].method, target: BASES[base].target }
    }
}

/// An upload.
pub fn upload(at: SocketAddr, key: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Cases, Ids};

    fn cases() -> Cases {
        Cases::new(1, "127.0.0.1:1".parse().unwrap(), "sk").unwrap()
    }

    #[test]
    fn a_case_is_made_from_its_number() {
        let (cases, again) = (cases(), self::cases());
        let mut kinds = HashMap::new();
        for number in (0..4000).map(|number| number * 97) {
            let case = cases.make(number);
            assert_eq!(case, again.make(number), "{number}");
            *kinds.entry(case.kind).or_insert(0) += 1;
        }
        for kind in [
            "systematic",
            "body",
            "target",
            "upload",
            "lengths",
            "chunks",
            "lines",
            "headers",
            "versions",
            "pipeline",
            "cut",
        ] {
            assert!(kinds.contains_key(kind), "{kind} in {kinds:?}");
        }
        assert!(cases.num_systematic() > 20_000);
    }

    #[test]
    fn ids_are_filled_in_and_learnt() {
        let [resp, conv, item, file, batch] = ["r", "c", "i", "f", "b"].map(str::to_owned);
        let mut ids = Ids { resp, conv, item, file, batch };
        assert_eq!(ids.fill(b"/{resp}/{conv}/{x}{file}"), b"/r/c/{x}f");
        let request = b"POST /{conv} HTTP/1.1\r\ncontent-length: 12\r\n\r\n{\"a\":{resp}}";
        assert_eq!(ids.fill_request(request), b"POST /c HTTP/1.1\r\ncontent-length: 7\r\n\r\n{\"a\":r}");
        ids.learn(br#"{"id":"resp_7","store":true}"#);
        ids.learn(br#"{"id":"resp_8","store":false}"#);
        ids.learn(br#"{"id":"conv_9","deleted":true}"#);
        assert_eq!((ids.resp.as_str(), ids.conv.as_str()), ("resp_7", "c"));
    }
}
