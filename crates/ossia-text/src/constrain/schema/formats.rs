//! Formats of strings as expressions: what every reader takes for a date is a date here. Narrower than the standards
//! (no leap second, no quoted local part), and short.

/// A day that the calendar has.
const DATE: &str = concat!(
    r"([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))",
    r"|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][48]|[2468]0|[13579][26])00)-02-29)"
);
const TIME: &str = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const HOST: &str = r"[a-zA-Z0-9]{1,20}(-[a-zA-Z0-9]{1,20}){0,2}(\.[a-zA-Z0-9]{1,20}(-[a-zA-Z0-9]{1,20}){0,2}){0,2}";
const DURATION: &str = concat!(
    r"P([0-9]{1,6}W|([0-9]{1,6}Y([0-9]{1,6}M([0-9]{1,6}D)?)?|[0-9]{1,6}M([0-9]{1,6}D)?|[0-9]{1,6}D)",
    r"(T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S))?",
    r"|T([0-9]{1,6}H([0-9]{1,6}M([0-9]{1,6}S)?)?|[0-9]{1,6}M([0-9]{1,6}S)?|[0-9]{1,6}S))"
);

/// How a format is enforced.
pub(super) enum Enforced {
    /// By an expression, which the whole string matches.
    Pattern(String),
    /// By the compiler, which knows it by this name.
    Known,
}

/// None for a format that is an annotation only, as JSON schema has it for all.
pub(super) fn enforced(name: &str) -> Option<Enforced> {
    let text = match name {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{DATE}T{TIME}"),
        "duration" => DURATION.to_owned(),
        "hostname" => HOST.to_owned(),
        "email" => format!(r"[a-zA-Z0-9_+-]{{1,30}}(\.[a-zA-Z0-9_+-]{{1,15}}){{0,2}}@{HOST}"),
        "ipv4" | "ipv6" | "uuid" | "uri" => return Some(Enforced::Known),
        _ => return None,
    };
    Some(Enforced::Pattern(format!("^({text})$")))
}
