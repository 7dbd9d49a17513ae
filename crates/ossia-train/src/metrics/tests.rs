//! The log over kills, resumes and files that somebody else wrote.

use super::*;

/// A record that depends on its step only, as a run that repeats its bits would write it.
fn record(step: u64) -> Record {
    Record {
        step,
        tokens: step * 16_384,
        documents: step * 120,
        loss: 6.6 / step as f64,
        loss_per_class: ClassLosses { analysis: Some(0.1 * step as f64), call: Some(1.0 / 3.0), ..Default::default() },
        valid_loss: step.is_multiple_of(5).then_some(2.0 / 7.0),
        grad_norm: 1.0 / step as f64,
        lr: 4e-3,
        tok_s: 9_000.0,
        expert_load: vec![vec![0.1, 0.2, 0.3, 0.4]; 2],
        ..Record::default()
    }
}

fn write(log: &mut Log, steps: std::ops::RangeInclusive<u64>) {
    steps.for_each(|step| log.append(&record(step)).unwrap());
}

#[test]
fn what_is_written_is_read_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut log = Log::open(&path, None).unwrap();
    write(&mut log, 1..=20);
    log.sync().unwrap();
    assert_eq!(log.last_step(), Some(20));
    assert_eq!(read(&path).unwrap(), (1..=20).map(record).collect::<Vec<_>>());
}

#[test]
fn a_resumed_run_leaves_the_file_of_an_unbroken_one() {
    let dir = tempfile::tempdir().unwrap();
    let (unbroken, broken) = (dir.path().join("unbroken.jsonl"), dir.path().join("broken.jsonl"));
    write(&mut Log::open(&unbroken, None).unwrap(), 1..=20);
    let whole = std::fs::read(&unbroken).unwrap();
    let line_ends: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] == b'\n').collect();
    // Killed after any number of bytes of its last line, with the checkpoint of step 10 behind it.
    for len in line_ends[11]..=line_ends[12] + 1 {
        std::fs::write(&broken, &whole[..len]).unwrap();
        let mut log = Log::open(&broken, Some(10)).unwrap();
        assert_eq!(log.last_step(), Some(10));
        write(&mut log, 11..=20);
        assert_eq!(std::fs::read(&broken).unwrap(), whole, "killed after {len} bytes");
    }
}

#[test]
fn a_kill_between_a_record_and_its_newline_keeps_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&mut Log::open(&path, None).unwrap(), 1..=3);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    Log::open(&path, Some(3)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn a_new_run_does_not_overwrite_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&mut Log::open(&path, None).unwrap(), 1..=3);
    assert!(matches!(Log::open(&path, None), Err(Error::Occupied { num_records: 3, .. })));
    assert_eq!(Log::open(&path, Some(0)).unwrap().last_step(), None);
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn a_torn_last_line_is_passed_over_and_any_other_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&mut Log::open(&path, None).unwrap(), 1..=3);
    let whole = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
    std::fs::write(&path, [whole.as_bytes(), b"{\"step\":4,\"lo\xff"].concat()).unwrap();
    assert_eq!(read(&path).unwrap().len(), 3);

    std::fs::write(&path, whole.replacen("\"step\":2", "\"step\":two", 1)).unwrap();
    let message = read(&path).err().unwrap().to_string();
    assert!(message.contains("metrics.jsonl:2: wanted one record"), "{message}");

    std::fs::write(&path, format!("{whole}{whole}")).unwrap();
    let message = read(&path).err().unwrap().to_string();
    assert!(message.contains("metrics.jsonl:4:") && message.contains("step 1 after step 3"), "{message}");

    let message = read(&dir.path().join("none.jsonl")).err().unwrap().to_string();
    assert!(message.contains("none.jsonl"), "{message}");
}

#[test]
fn a_run_that_diverges_is_kept_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let diverged = Record { loss: f64::NAN, grad_norm: f64::INFINITY, valid_loss: Some(f64::NAN), ..record(1) };
    Log::open(&path, None).unwrap().append(&diverged).unwrap();
    let back = &read(&path).unwrap()[0];
    assert!(back.loss.is_nan() && back.valid_loss.unwrap().is_nan());
    assert_eq!(back.grad_norm, f64::INFINITY);
}

#[test]
fn an_even_layer_has_load_one() {
    let shares = vec![vec![0.25; 4], vec![0.7, 0.1, 0.1, 0.1], vec![]];
    let loads = Record { expert_load: shares, ..Record::default() }.max_over_mean();
    assert_eq!(loads[0], 1.0);
    assert!((loads[1] - 2.8).abs() < 1e-6);
    assert_eq!(loads[2], 0.0);
}
