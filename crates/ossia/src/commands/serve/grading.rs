//! The graders of the program that trains, for the routes on which they are tried.

use ossia_serve::grading::{Graded, GraderFault, Grading};
use ossia_train::finetune::graders::{Error, Grader, Sample, Score};
use serde_json::Value;

/// See the module.
pub struct Graders;

impl Grading for Graders {
    fn check(&self, grader: &Value, place: &str) -> Result<(), GraderFault> {
        Grader::read_at(grader, place).map(drop).map_err(fault)
    }

    fn grade(&self, grader: &Value, item: &Value, answer: &str) -> Result<Graded, GraderFault> {
        let grader = Grader::from_json(grader).map_err(fault)?;
        if let Err(error) = grader.check(item) {
            return Ok(Graded { missing: Some(error.to_string()), ..Graded::default() });
        }
        let Score { value, parts, problem } = grader.grade(item, &Sample::of_text(answer));
        Ok(Graded { value, parts, missing: None, problem })
    }
}

fn fault(error: Error) -> GraderFault {
    GraderFault { field: error.at().to_owned(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn graders_are_looked_at_and_tried() {
        let check = json!({ "type": "string_check", "operation": "eq", "input": "{{sample.output_text}}",
            "reference": "{{item.answer}}" });
        let json =
            json!({ "type": "string_check", "operation": "eq", "input": "{{sample.output_json.n}}", "reference": "7" });
        let multi = json!({ "type": "multi", "graders": { "a": check, "b": json },
            "calculate_output": "0.25 * a + 0.75 * b" });
        let grade = |item: Value, answer: &str| Graders.grade(&multi, &item, answer).unwrap();
        assert!(Graders.check(&multi, "grader").is_ok());
        let both = grade(json!({ "answer": "{\"n\": 7}" }), "{\"n\": 7}");
        assert_eq!((both.value, both.parts), (1.0, vec![("a".to_owned(), 1.0), ("b".to_owned(), 1.0)]));
        let text = grade(json!({ "answer": "x" }), "x");
        assert!(text.value == 0.25 && text.problem.unwrap().starts_with("b: "), "an answer that is no JSON");
        let missing = grade(json!({}), "x");
        assert!(missing.value == 0.0 && missing.missing.unwrap().contains("item.answer"));
        let wrong = json!({ "type": "multi", "graders": { "a": check }, "calculate_output": "a +" });
        for (grader, field) in [
            (json!({ "type": "string_check", "operation": "is" }), "method.x.grader.operation"),
            (wrong, "method.x.grader.calculate_output"),
            (json!(7), "method.x.grader"),
        ] {
            let fault = Graders.check(&grader, "method.x.grader").unwrap_err();
            assert!(fault.field == field && fault.problem.starts_with(field), "{fault:?}");
        }
    }
}
