//! A step that is broken off: the layers that are left are not computed, and nothing of it is left in the sequence.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{bits, data, load, options, prompt};
use ossia_kernels::{Precision, Tap, Tensor};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Stop, Work};

fn model() -> Model {
    load(&data("nano"), Options { chunk: 16, ..options(Precision::Fast, 2) })
}

/// Raises the flag once a layer is done.
struct AfterOne {
    flag: Arc<AtomicBool>,
    layers: usize,
}

impl Tap for AfterOne {
    fn see(&mut self, op: &'static str, _: &Tensor) {
        self.layers += usize::from(op == "experts");
        self.flag.store(self.layers > 0, Ordering::Relaxed);
    }
}

#[test]
fn a_step_ends_with_the_layer_in_which_its_flag_is_raised() {
    let mut model = model();
    assert!(model.config().num_layers > 1);
    let flag = Arc::new(AtomicBool::new(false));
    model.transformer_mut().stop = Stop::at(flag.clone());
    let mut tap = AfterOne { flag, layers: 0 };
    let (mut held, tokens) = (Held::default(), prompt(1, 9));
    model.step_tapped(&mut [Work { held: &mut held, tokens: &tokens, logits: Logits::Last }], &mut tap).unwrap();
    assert_eq!(tap.layers, 1);
}

#[test]
fn a_prompt_that_is_stopped_goes_on_as_if_it_had_not_been() {
    let tokens = prompt(2, 50);
    let on = &mut |_| ControlFlow::Continue(());
    let want = bits(model().prefill(&mut Held::default(), &tokens, on).unwrap().unwrap().row(0).unwrap());

    let (mut model, flag) = (model(), Arc::new(AtomicBool::new(true)));
    model.stop_at(flag.clone());
    let mut held = Held::default();
    assert!(model.prefill(&mut held, &tokens, on).unwrap().is_none() && held.len == 0, "stopped before anything");
    flag.store(false, Ordering::Relaxed);
    let raise = &mut |done| {
        flag.store(done == 32, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    assert!(model.prefill(&mut held, &tokens, raise).unwrap().is_none());
    assert_eq!(held.len, 32, "the chunk that was stopped counts for nothing");
    flag.store(false, Ordering::Relaxed);
    let logits = model.prefill(&mut held, &tokens[32..], on).unwrap().unwrap();
    assert_eq!(bits(logits.row(0).unwrap()), want);
    drop(logits);

    // Only prompts are stopped: a token that is decoded goes through all layers.
    let mut decode = |raised| {
        flag.store(raised, Ordering::Relaxed);
        let work = &mut [Work { held: &mut held, tokens: &[7], logits: Logits::Last }];
        bits(model.look_ahead(work).unwrap().row(0).unwrap())
    };
    assert_eq!(decode(true), decode(false));
}

/// Counts rows of what blocks make.
#[derive(Default)]
struct Rows(Vec<usize>);

impl Tap for Rows {
    fn see(&mut self, op: &'static str, result: &Tensor) {
        if op == "experts" {
            self.0.push(result.rows());
        }
    }
}

#[test]
fn rows_without_logits_end_with_the_last_attention() {
    let tokens = prompt(3, 40);
    let layers = model().config().num_layers;
    let step = |model: &mut Model, held: &mut Held, tokens: &[u32], logits| {
        let mut seen = Rows::default();
        let out = model.step_tapped(&mut [Work { held, tokens, logits }], &mut seen).unwrap();
        (bits(out.host()), seen.0)
    };
    let (mut one, mut other) = (model(), model());
    let (all, rows) = step(&mut one, &mut Held::default(), &tokens, Logits::All);
    assert_eq!(rows, vec![40; layers]);
    let held = &mut Held::default();
    let (none, rows) = step(&mut other, held, &tokens[..16], Logits::None);
    assert_eq!((none.len(), rows), (0, vec![16; layers - 1]));
    let (last, rows) = step(&mut other, held, &tokens[16..], Logits::Last);
    assert_eq!(rows, [vec![24; layers - 1], vec![1]].concat());
    assert_eq!(last, all[all.len() - last.len()..], "the same bits as with everybody's logits");
}
