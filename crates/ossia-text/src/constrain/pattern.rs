//! Checks users' expressions before they are compiled: syntax, nesting, size. Matching itself takes time linear in the
//! text, whatever the expression.

use regex_automata::util::syntax;

/// The deepest nesting of groups.
const MAX_NESTING: u32 = 32;
/// The longest expression, in bytes.
const MAX_BYTES: usize = 4096;
/// The most that counted repetitions may multiply to, in characters.
const MAX_REPEATED: usize = 20_000;

/// Says what is wrong with an expression.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_BYTES {
        return Err(format!("an expression of {} bytes, at most {MAX_BYTES}", text.len()));
    }
    let config = syntax::Config::new().nest_limit(MAX_NESTING);
    match syntax::parse_with(text, &config) {
        Ok(hir) => match hir.properties().minimum_len() {
            Some(least) if least > MAX_REPEATED => {
                Err(format!("an expression that matches at least {least} bytes, at most {MAX_REPEATED}"))
            }
            _ => Ok(()),
        },
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            Err(format!("not an expression that is supported: {}", last.trim_start_matches("error: ")))
        }
    }
}
