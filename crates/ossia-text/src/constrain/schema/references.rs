//! `$ref`: every schema that is referred to becomes one definition under a name of our own, found by its pointer.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

/// The schemas that were referred to.
#[derive(Default)]
pub(super) struct References<'s> {
    /// Names by pointer, in the one form that a schema's place has.
    names: BTreeMap<String, String>,
    pointers: BTreeMap<String, String>,
    waiting: VecDeque<(String, String, &'s Value)>,
}

impl<'s> References<'s> {
    /// The name of the definition for a reference; None for one that leads nowhere, or out of the schema.
    pub fn name_of(&mut self, root: &'s Value, reference: &str) -> Option<String> {
        let (pointer, found) = resolve(root, reference)?;
        if let Some(name) = self.names.get(&pointer) {
            return Some(name.clone());
        }
        let name = format!("r{}", self.names.len());
        self.names.insert(pointer.clone(), name.clone());
        self.pointers.insert(name.clone(), pointer.clone());
        self.waiting.push_back((name.clone(), pointer, found));
        Some(name)
    }

    /// A definition that is yet to be lowered: its name, pointer and schema.
    pub fn next(&mut self) -> Option<(String, String, &'s Value)> {
        self.waiting.pop_front()
    }

    /// The place of a definition; the root's where there is none of the name.
    pub fn pointer_of(&self, name: &str) -> &str {
        self.pointers.get(name).map_or("", String::as_str)
    }
}

/// The schema that a reference is to, and its pointer.
pub(super) fn resolve<'s>(root: &'s Value, reference: &str) -> Option<(String, &'s Value)> {
    let pointer = unescape(reference.strip_prefix('#')?)?;
    let pointer = if pointer == "/" { String::new() } else { pointer };
    let found = root.pointer(&pointer)?;
    Some((pointer, found))
}

/// Undoes percent signs, which a pointer in a URI may have.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        out.push(u8::from_str_radix(code, 16).ok()?);
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).ok()
}
