//! Chain of thought that a client put in front of the words: Open WebUI and others keep an answer as one text, with the
//! thinking in `<think>` tags or, as their page shows it, in a `<details type="reasoning">` element.

/// The thoughts at the beginning of an assistant's text, and the text after them. What has no end is no thought.
pub fn split(said: &str) -> (Vec<String>, &str) {
    let (mut thoughts, mut rest) = (Vec::new(), said);
    while let Some((thought, after)) = tagged(rest.trim_start()).or_else(|| element(rest.trim_start())) {
        thoughts.extend((!thought.is_empty()).then_some(thought));
        rest = after.trim_start();
    }
    (thoughts, rest)
}

/// True where two texts differ at most in what such clients change: spaces, line ends, marks of quotation.
pub fn are_alike(one: &str, other: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = char> {
        text.chars().filter(|c| !c.is_whitespace() && *c != '>')
    }
    letters(one).eq(letters(other))
}

fn tagged(text: &str) -> Option<(String, &str)> {
    let (thought, after) = text.strip_prefix("<think>")?.split_once("</think>")?;
    Some((thought.trim().to_owned(), after))
}

/// A quotation with a summary above it: its lines begin with `>`, where the whole was escaped with `&gt;`.
fn element(text: &str) -> Option<(String, &str)> {
    let (attributes, inside) = text.strip_prefix("<details")?.split_once('>')?;
    if !attributes.contains("type=\"reasoning\"") {
        return None;
    }
    let (inside, after) = inside.split_once("</details>")?;
    let inside = inside.trim();
    let quote = match inside.strip_prefix("<summary>").and_then(|rest| rest.split_once("</summary>")) {
        Some((_, quote)) => quote.trim(),
        None => inside,
    };
    let is_escaped = quote.starts_with("&gt;");
    let mark = if is_escaped { "&gt;" } else { ">" };
    let line = |line: &str| match line.strip_prefix(mark) {
        Some(line) => line.strip_prefix(' ').unwrap_or(line).to_owned(),
        None => line.to_owned(),
    };
    let thought = quote.lines().map(line).collect::<Vec<_>>().join("\n");
    Some((if is_escaped { unescaped(&thought) } else { thought }, after))
}

/// The five characters that HTML escapes; the ampersand last, or it would make new ones.
fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (name, character)| text.replace(name, character))
}

#[cfg(test)]
mod tests {
    use super::{are_alike, split};

    #[test]
    fn thinking_in_front_of_the_words() {
        let details =
            "<details type=\"reasoning\" done=\"true\" duration=\"3\">\n<summary>Thought for 3 seconds</summary>\n";
        for (said, thoughts, words) in [
            ("Hello", vec![], "Hello"),
            ("<think>Hm.</think>\nHello", vec!["Hm."], "Hello"),
            (
                "\n<think>\nOne.\n</think>\n\n<think>Two.</think>Hello <think>x</think>",
                vec!["One.", "Two."],
                "Hello <think>x</think>",
            ),
            ("<think></think>Hello", vec![], "Hello"),
            ("<think>never ended", vec![], "<think>never ended"),
            (&format!("{details}> One\n> \n> Two\n</details>\nHello"), vec!["One\n\nTwo"], "Hello"),
            (
                &format!("{details}&gt; a &lt; b &amp;&amp; &quot;c&quot;\n&gt; It&#x27;s &amp;lt;\n</details>"),
                vec!["a < b && \"c\"\nIt's &lt;"],
                "",
            ),
            ("<details type=\"reasoning\" done=\"false\">\n> a &lt; b\n</details>Hello", vec!["a &lt; b"], "Hello"),
            ("<details type=\"tool_calls\">x</details>", vec![], "<details type=\"tool_calls\">x</details>"),
            ("<details type=\"reasoning\">no end", vec![], "<details type=\"reasoning\">no end"),
            ("<details type=\"reasoning\"", vec![], "<details type=\"reasoning\""),
        ] {
            let (found, rest) = split(said);
            assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>(), rest), (thoughts, words), "{said}");
        }
    }

    #[test]
    fn spaces_and_marks_of_quotation_are_no_change() {
        assert!(are_alike(" One\n\n> two ", "One\ntwo"));
        assert!(are_alike("", " "));
        assert!(!are_alike("One two", "One three"));
    }
}
