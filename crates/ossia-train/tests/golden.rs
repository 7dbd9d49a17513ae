//! Loss and every gradient against the published implementation's, on one and two threads.

use std::path::PathBuf;

use ossia_model::checkpoint::Checkpoint;
use ossia_train::check;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ossia-model/tests/data").join(name)
}

#[test]
fn loss_and_gradients_equal_the_golden() {
    for layout in ["nano", "nano/original", "nano/model.gguf"] {
        let checkpoint = Checkpoint::open(&data(layout)).unwrap();
        for threads in [1, 2] {
            let compared = check::compare(&checkpoint, &data("nano.train.safetensors"), threads).unwrap();
            let worst = compared.iter().max_by(|a, b| a.error.total_cmp(&b.error)).unwrap();
            println!("{layout}: {} quantities, worst {} {:.1e}", compared.len(), worst.name, worst.error);
            assert!(compared.len() >= 40, "{} quantities", compared.len());
            assert!(compared.iter().all(|c| c.error <= 1e-5), "{layout}: {} {:.2e}", worst.name, worst.error);
        }
    }
}
