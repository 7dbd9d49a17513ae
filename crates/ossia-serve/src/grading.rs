//! Grades answers as the training program would: the door to it, since graders are a part of training, which this crate
//! does not know. Only graders that compute from texts come through: `routes::fine_tuning` sees to that.

use serde_json::Value;

/// Who knows graders.
pub trait Grading: Send + Sync {
    /// Fails where something is wrong with the description of a grader, which stands at `place` of a request.
    fn check(&self, grader: &Value, place: &str) -> Result<(), GraderFault>;

    /// What `answer` is worth as an answer to `item`; an error where the description is wrong.
    fn grade(&self, grader: &Value, item: &Value, answer: &str) -> Result<Graded, GraderFault>;
}

/// What is wrong with a grader's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraderFault {
    /// The field, such as `grader.operation`.
    pub field: String,
    /// What is wrong, the field's name first.
    pub problem: String,
}

/// What an answer is worth.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graded {
    /// Finite.
    pub value: f64,
    /// What the graders inside gave, by their names.
    pub parts: Vec<(String, f64)>,
    /// What a template takes and the item lacks, if so; then the value is 0.
    pub missing: Option<String>,
    /// Why the answer could not be graded, if so.
    pub problem: Option<String>,
}
