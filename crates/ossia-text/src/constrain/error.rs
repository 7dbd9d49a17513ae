//! Why rules cannot be followed, or a generation went against them.

/// Which part of the rules an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The tool with this index and name.
    Tool {
        /// Its index among the rules' tools.
        index: usize,
        /// Its name.
        name: String,
    },
    /// The final message's format.
    Format,
    /// The rules as a whole.
    Rules,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tool { name, .. } => write!(f, "tool {name:?}"),
            Place::Format => f.write_str("response format"),
            Place::Rules => f.write_str("tools"),
        }
    }
}

/// What can go wrong with constrained answers. The first four are the request's fault, the others a generation's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstrainError {
    /// A schema that is malformed or uses what is not supported.
    #[error("{place}: schema at {}: {problem}", shown(.pointer))]
    Schema {
        /// Whose schema.
        place: Place,
        /// Where in it, as a JSON pointer; empty for the whole.
        pointer: String,
        /// What is wrong.
        problem: String,
    },
    /// A grammar or an expression that cannot be used.
    #[error("{place}: {problem}")]
    Grammar {
        /// Whose grammar.
        place: Place,
        /// What is wrong.
        problem: String,
    },
    /// A tool's name that a header cannot carry, or that is given twice; no tool where one is required.
    #[error("{place}: {problem}")]
    Tools {
        /// Which tool.
        place: Place,
        /// What is wrong.
        problem: String,
    },
    /// More than may be spent on one request.
    #[error("{place}: too complex: {problem}")]
    TooComplex {
        /// Whose schema or grammar.
        place: Place,
        /// What was counted, found and allowed.
        problem: String,
    },
    /// A token that may not come here.
    #[error("token {0} may not come here")]
    Token(u32),
    /// The turn has ended, nothing may come.
    #[error("the turn has ended, no token may follow")]
    Ended,
    /// A grammar needed more memory or time than a generation may take, or failed.
    #[error("the grammar cannot go on: {0}")]
    Exhausted(String),
}

/// A pointer as it stands in a message: its end, where it is long.
pub(super) fn shown(pointer: &str) -> String {
    const MOST: usize = 100;
    match pointer.chars().count() {
        0 => "its root".to_owned(),
        num if num > MOST => "…".chars().chain(pointer.chars().skip(num - MOST)).collect(),
        _ => pointer.to_owned(),
    }
}
