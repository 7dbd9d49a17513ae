//! What can be wrong with a grader's description, or with an item that it is to grade by.

/// An error of a grader. What a model writes is never one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field of the description.
    #[error("{at}: wanted {wanted}, found {found}")]
    Field {
        /// Where it stands, such as `grader.graders.style.operation`.
        at: String,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A formula that cannot be read.
    #[error("{at}: {problem} at character {place} of {formula:?}")]
    Formula {
        /// Where it stands.
        at: String,
        /// The formula.
        formula: String,
        /// From 0.
        place: usize,
        /// What is wrong.
        problem: String,
    },
    /// An item lacks what a template takes from it.
    #[error("the item has no {path}, which the grader's {at} takes")]
    Item {
        /// What is missing, such as `item.answer`.
        path: String,
        /// The template's place.
        at: String,
    },
    /// Something that is not there on this machine.
    #[error("{at}: {problem}")]
    Machine {
        /// Where it stands.
        at: String,
        /// What is missing, and what to do.
        problem: String,
    },
}

impl Error {
    /// The field that is to blame.
    pub fn at(&self) -> &str {
        match self {
            Self::Field { at, .. } | Self::Formula { at, .. } | Self::Item { at, .. } | Self::Machine { at, .. } => at,
        }
    }

    pub(super) fn field(at: &str, wanted: impl Into<String>, found: impl ToString) -> Self {
        Self::Field { at: at.to_owned(), wanted: wanted.into(), found: found.to_string() }
    }
}

/// Result of this folder.
pub type Result<T> = std::result::Result<T, Error>;
