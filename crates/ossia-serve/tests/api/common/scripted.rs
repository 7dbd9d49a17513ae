//! A model without weights that says what it is told to, token by token: one script for each generation, in order. What
//! it is asked to compute is counted, so that a test sees which tokens came from the prefix cache. And one who grades
//! without the program that trains.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use ossia_engine::{AttachError, NewAdapter, Rows, Runner, Shape, StepError};
use ossia_model::gpt_oss::config::LayerKind;
use ossia_model::kv_cache::PageCounts;
use ossia_model::{Logits, Paged};
use ossia_serve::grading::{Graded, GraderFault, Grading};
use serde_json::Value;

/// What is still to be said.
#[derive(Clone, Default)]
pub struct Scripts(Arc<Mutex<VecDeque<Vec<u32>>>>);

impl Scripts {
    /// The next generation says this.
    pub fn add(&self, tokens: Vec<u32>) {
        self.0.lock().unwrap().push_back(tokens);
    }
}

/// The model. One sequence at a time.
pub struct Scripted {
    scripts: Scripts,
    script: Vec<u32>,
    said: usize,
    vocab: usize,
}

/// Logits that leave one token.
pub struct Row(Vec<f32>);

impl Scripted {
    /// Over a vocabulary of so many tokens.
    pub fn new(scripts: Scripts, vocab: usize) -> Self {
        Self { scripts, script: Vec::new(), said: 0, vocab }
    }

    fn next(&mut self) -> Row {
        if self.said == self.script.len() {
            self.script = self.scripts.0.lock().unwrap().pop_front().expect("a script for each generation");
            self.said = 0;
        }
        let mut row = vec![0.0; self.vocab];
        row[self.script[self.said] as usize] = 100.0;
        self.said += 1;
        Row(row)
    }
}

impl Rows for Row {
    fn row(&self, _: usize) -> Result<&[f32], String> {
        Ok(&self.0)
    }

    fn best(&self, _: usize) -> Option<u32> {
        None
    }
}

impl Runner for Scripted {
    type Logits = Row;

    fn shape(&self) -> Shape {
        let (context, tokens) = (super::CONTEXT, 512);
        let pages = PageCounts { full: 512, sliding: 512 };
        Shape { vocab: self.vocab, context, sequences: 1, tokens, logits_rows: 1, window: 128, pages }
    }

    fn step(&mut self, work: &[Paged]) -> Result<Row, StepError> {
        let is_last = work.iter().any(|work| matches!(work.logits, Logits::Last));
        Ok(if is_last { self.next() } else { Row(Vec::new()) })
    }

    fn attach(&mut self, _: &NewAdapter) -> Result<usize, AttachError> {
        Err(AttachError::Refused("this model takes no adapters".to_owned()))
    }

    fn detach(&mut self, _: usize) {}

    fn copy_page(&mut self, _: LayerKind, _: u32, _: u32) {}
}

/// Knows one grader: an answer is worth 1 where it is the item's `answer`.
pub struct Equal;

impl Grading for Equal {
    fn check(&self, grader: &Value, place: &str) -> Result<(), GraderFault> {
        let field = format!("{place}.operation");
        let fault = || GraderFault { problem: format!("{field}: wanted \"eq\""), field: field.clone() };
        if grader["operation"] == "eq" { Ok(()) } else { Err(fault()) }
    }

    fn grade(&self, grader: &Value, item: &Value, answer: &str) -> Result<Graded, GraderFault> {
        self.check(grader, "grader")?;
        let Some(wanted) = item["answer"].as_str() else {
            return Ok(Graded { missing: Some("the item has no item.answer".into()), ..Graded::default() });
        };
        let value = f64::from(u8::from(wanted == answer));
        Ok(Graded { value, parts: vec![("equal".into(), value)], ..Graded::default() })
    }
}
