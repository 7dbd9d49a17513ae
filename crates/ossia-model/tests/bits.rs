//! Fixed order of sums: a token's logits have the same bits however its sequence was cut, whoever else was in the batch,
//! with one thread or two, on every instruction set.

mod common;

use common::{bits, data, options, prompt, run};
use ossia_kernels::Precision;
use ossia_kernels::cpu::isa::Isa;
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::synth;
use ossia_model::gpt_oss::tensors::Dense;
use ossia_model::{Model, Options};

/// Sequences of one batch at most.
const BATCH: usize = 8;

fn checkpoints() -> Vec<(&'static str, Checkpoint, usize)> {
    let mini = synth::checkpoint(&Config::preset("mini", None).unwrap(), 3).unwrap();
    let open = |name| Checkpoint::open(&data(name)).unwrap();
    vec![("nano", open("nano"), 90), ("tiny gguf", open("tiny/model.gguf"), 90), ("mini", mini, 200)]
}

#[test]
fn chunks_threads_and_batches_do_not_change_a_bit() {
    for (name, checkpoint, len) in checkpoints() {
        for (precision, dense) in [(Precision::F32, None), (Precision::Fast, None), (Precision::Fast, Some(Dense::Q8))]
        {
            for isa in Isa::all() {
                let load = |threads| {
                    let options = Options {
                        dense,
                        isa,
                        sequences: BATCH,
                        chunk: len * BATCH,
                        logits_rows: len * BATCH,
                        context: len,
                        ..options(precision, threads)
                    };
                    Model::load(&checkpoint, options, None, &mut |_, _| {}).unwrap()
                };
                let what = format!("{name} {precision:?} {dense:?} {isa:?}");
                let sequences: Vec<Vec<u32>> = (0..BATCH).map(|s| prompt(s, len - 11 * s)).collect();
                let (mut one, mut two) = (load(1), load(2));
                let alone: Vec<Vec<u32>> =
                    sequences.iter().map(|s| bits(&run(&mut one, std::slice::from_ref(s), len)[0])).collect();
                for chunk in [1, 7, 64] {
                    let got = bits(&run(&mut two, &sequences[..1], chunk)[0]);
                    assert!(got == alone[0], "{what}: chunks of {chunk}, two threads");
                }
                let got = bits(&run(&mut one, &sequences[..1], 7)[0]);
                assert!(got == alone[0], "{what}: chunks of 7, one thread");
                for batch in [3, 8] {
                    for chunk in [1, 64, len] {
                        for (got, want) in run(&mut two, &sequences[..batch], chunk).iter().zip(&alone) {
                            assert!(bits(got) == *want, "{what}: {batch} together, chunks of {chunk}");
                        }
                    }
                }
            }
        }
    }
}

/// Integer dot products have one definition, so only the float ops can differ between instruction sets.
#[test]
fn instruction_sets_agree_closely() {
    for (name, checkpoint, len) in checkpoints() {
        let logits: Vec<Vec<f32>> = Isa::all()
            .into_iter()
            .map(|isa| {
                let options = Options { isa, ..options(Precision::F32, 2) };
                let mut model = Model::load(&checkpoint, options, None, &mut |_, _| {}).unwrap();
                run(&mut model, &[prompt(0, len)], len).remove(0)
            })
            .collect();
        for other in &logits[1..] {
            let error = common::largest_error(other, &logits[0]);
            assert!(error <= 1e-5, "{name}: {error:.2e}");
        }
    }
}
