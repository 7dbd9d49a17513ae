//! Runs made from formulas, drawn whole: every picture is there and no text covers another.

use super::*;
use crate::metrics::ClassLosses;

/// Pseudo-random, -1 to 1, from a step and a stream.
fn noise(step: u64, stream: u64) -> f64 {
    let mut bits = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) as f64 / (u64::MAX / 2) as f64 - 1.0
}

/// A small model's run as it should go: warm-up, constant rate, decay; losses that fall by powers of the step.
pub fn synthetic(num_steps: u64, num_layers: usize, num_experts: usize) -> Vec<Record> {
    (1..=num_steps).map(|step| record(step, num_steps, num_layers, num_experts)).collect()
}

fn record(step: u64, num_steps: u64, num_layers: usize, num_experts: usize) -> Record {
    let done = step as f64 / num_steps as f64;
    let decayed = ((1.0 - done) / 0.35).min(1.0);
    let clean = 0.16 + 6.5 / (1.0 + 60.0 * done).powf(1.05) - 0.04 * (1.0 - decayed);
    let class = |share: f64, stream| Some(clean * share * (1.0 + 0.07 * noise(step, stream)));
    let loss_per_class = ClassLosses {
        analysis: class(0.92, 11),
        commentary: step.is_multiple_of(3).then(|| clean * 1.5 * (1.0 + 0.2 * noise(step, 12))),
        r#final: class(1.15, 13),
        call: class(0.7, 14),
    };
    let spike = if step == num_steps * 3 / 5 { 6.0 } else { 1.0 };
    Record {
        step,
        tokens: step * 16_384,
        documents: step * 163,
        loss: clean * (1.0 + 0.06 * noise(step, 1)) * (1.0 + 0.1 * (spike - 1.0)),
        loss_per_class,
        valid_loss: step.is_multiple_of((num_steps / 20).max(1)).then(|| clean * 1.06 + 0.004 * noise(step, 2)),
        aux_loss: 0.01,
        z_loss: 1e-4,
        grad_norm: (0.25 + 3.0 / (1.0 + 50.0 * done)) * (1.0 + 0.3 * noise(step, 3)) * spike,
        lr: 4e-3 * (done / 0.03).min(1.0) * decayed,
        tok_s: 8_800.0 + 200.0 * noise(step, 4),
        flops_share: 0.52,
        elapsed_s: step as f64 * 1.86,
        peak_rss_bytes: 600 << 20,
        expert_load: (0..num_layers).map(|layer| shares(step, done, layer, num_experts)).collect(),
        ..Record::default()
    }
}

/// Uneven at first, then nearly even, less so in deep layers.
fn shares(step: u64, done: f64, layer: usize, num_experts: usize) -> Vec<f32> {
    let spread = 0.9 / (1.0 + 12.0 * done) + 0.06 * (1.0 + layer as f64 / 2.0);
    let lasting = |expert: usize| noise(expert as u64, 100 + layer as u64);
    let passing = |expert: usize| noise(step, 1000 + (layer * num_experts + expert) as u64);
    let weight = |expert| (spread * (lasting(expert) + 0.3 * passing(expert))).exp();
    let sum: f64 = (0..num_experts).map(weight).sum();
    (0..num_experts).map(|expert| (weight(expert) / sum) as f32).collect()
}

/// Draws into a folder that goes away; into `$OSSIA_PLOTS/<name>` to look at the pictures.
fn draw_somewhere(name: &str, records: &[Record]) -> Vec<PathBuf> {
    let scratch = tempfile::tempdir().unwrap();
    let root = std::env::var_os("OSSIA_PLOTS").map_or(scratch.path().to_owned(), PathBuf::from);
    let paths = draw(records, &root.join(name)).unwrap();
    assert!(paths.iter().all(|path| std::fs::metadata(path).unwrap().len() > 1000));
    paths
}

fn assert_no_text_covers_another(records: &[Record]) {
    for (name, title, diagrams) in pictures(records) {
        let scene = picture(records, title, &diagrams);
        let texts: Vec<&String> = scene.shapes.iter().filter_map(|shape| shape.text.as_ref()).collect();
        let boxes = &scene.text_boxes;
        for (index, a) in boxes.iter().enumerate() {
            let inside = a.left >= 0.0 && a.top >= 0.0 && a.right() <= scene.width && a.bottom() <= scene.height;
            assert!(inside, "{name}: {} leaves the picture", texts[index]);
            for (other, b) in boxes.iter().enumerate().skip(index + 1) {
                let apart = a.right() + 2.0 <= b.left
                    || b.right() + 2.0 <= a.left
                    || a.bottom() + 2.0 <= b.top
                    || b.bottom() + 2.0 <= a.top;
                assert!(apart, "{name}: {} touches {}", texts[index], texts[other]);
            }
        }
    }
}

#[test]
fn a_run_gives_all_pictures() {
    let records = synthetic(2400, 6, 8);
    let names: Vec<String> = draw_somewhere("nano", &records)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let expected = ["loss", "learning_rate", "gradient_norm", "expert_load", "run"];
    assert_eq!(names, expected.iter().flat_map(|n| [format!("{n}.svg"), format!("{n}.png")]).collect::<Vec<_>>());
    assert_no_text_covers_another(&records);
}

#[test]
fn a_large_model_is_drawn_without_a_crowd_of_labels() {
    let records = synthetic(300, 36, 128);
    draw_somewhere("large", &records);
    assert_no_text_covers_another(&records);
}

#[test]
fn a_run_that_diverges_says_so() {
    let mut records = synthetic(500, 2, 4);
    records[380..].iter_mut().for_each(|record| {
        record.loss = f64::NAN;
        record.grad_norm = f64::INFINITY;
    });
    draw_somewhere("diverged", &records);
    let scene = picture(&records, "", &[curves::loss]);
    let says = |text: &str| scene.shapes.iter().any(|shape| shape.text.as_deref() == Some(text));
    assert!(says("not finite at 120 steps, first 381"));
    assert_no_text_covers_another(&records);
}

#[test]
fn short_and_bare_runs_are_drawn() {
    assert!(matches!(draw(&[], Path::new("none")), Err(Error::Empty)));
    for num_steps in [1, 2, 3, 7] {
        let records = synthetic(num_steps, 1, 2);
        draw_somewhere(&format!("short{num_steps}"), &records);
        assert_no_text_covers_another(&records);
    }
    let bare = [Record { step: 1, ..Record::default() }];
    assert_eq!(draw_somewhere("bare", &bare).len(), 8);
    let broken = [Record { loss: f64::NAN, lr: f64::NAN, grad_norm: f64::NAN, ..bare[0].clone() }];
    draw_somewhere("broken", &broken);
    assert_no_text_covers_another(&broken);
}

#[test]
fn spans_of_time_and_tokens_are_short() {
    assert_eq!(["0 s", "59 min", "1 h 1 min", "2 d 3 h"], [0.0, 3599.0, 3660.0, 183_600.0].map(duration));
    assert_eq!(["999", "39.3 million", "1.2 trillion"], [999.0, 39_321_600.0, 1.2e12].map(amount));
}
