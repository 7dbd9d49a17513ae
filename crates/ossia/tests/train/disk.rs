//! Places that cannot be written, and disks that fill: the last checkpoint stays, and with room the run goes on.

use std::path::Path;

use super::program::{Place, assert_failed, ossia, text};

#[test]
fn run_folders_that_cannot_be() {
    let place = Place::new();
    std::fs::write(place.run(), "mine").unwrap();
    place.fails(&["run", "could not make the folder"]);
    assert_eq!(std::fs::read(place.run()).unwrap(), b"mine");
    let recipe = place.recipe();
    for out in ["/proc/nowhere", "/dev/null/run"] {
        assert_failed(
            &ossia(&["train", text(&recipe), "--out", out, "--json"]),
            1,
            &[out, "could not make the folder"],
        );
    }
}

#[test]
fn a_folder_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    std::fs::create_dir(place.run()).unwrap();
    std::fs::set_permissions(place.run(), std::fs::Permissions::from_mode(0o555)).unwrap();
    // Nothing is closed to root.
    if std::fs::write(place.run().join("probe"), "").is_err() {
        place.fails(&["run", "could not make the folder"]);
    }
    std::fs::set_permissions(place.run(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn files_where_others_belong() {
    for (name, part) in [("metrics.jsonl", "metrics.jsonl"), ("data/tokenizer.json", "tokenizer.json")] {
        let place = Place::new();
        std::fs::create_dir_all(place.run().join(name)).unwrap();
        place.fails(&[part]);
    }
    for name in ["data", "checkpoints", "events"] {
        let place = Place::new();
        std::fs::create_dir(place.run()).unwrap();
        std::fs::write(place.run().join(name), "mine").unwrap();
        place.fails(&[name]);
        assert_eq!(std::fs::read(place.run().join(name)).unwrap(), b"mine");
    }
}

#[test]
fn a_log_that_somebody_changed() {
    let place = Place::with_run();
    let (log, want) = (place.run().join("metrics.jsonl"), place.works());
    place.point_at(2);
    let whole = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, whole.replacen("\"step\":1", "\"step\":x", 1)).unwrap();
    place.fails(&["metrics.jsonl:1", "wanted one record"]);
    // A torn end, and one that is missing, are cut and made again.
    for kept in [whole.len() - 9, 0] {
        place.point_at(2);
        std::fs::write(&log, &whole[..kept]).unwrap();
        assert!(place.works() == want);
    }
}

/// Lets files grow to `blocks` of 512 bytes: the system then refuses to write more, as a full disk does.
fn full_after(blocks: u64) -> String {
    format!("trap '' XFSZ; ulimit -f {blocks};")
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Names in a folder of the run that no reader knows.
fn left_behind(place: &Place, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(place.run().join(folder)).into_iter().flatten();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn a_disk_that_fills_keeps_the_last_checkpoint() {
    let reference = Place::with_run();
    let want = reference.works();
    let model = size(&reference.checkpoint(4).join("model.safetensors"));
    let shard = size(&reference.run().join("data/00000.shard"));
    assert!(shard < model, "so that a limit can be between them");
    let place = Place::new();
    let fails = |blocks: u64, parts: &[&str]| {
        assert_failed(&place.command(&full_after(blocks)).output().unwrap(), 1, parts);
        assert_eq!((left_behind(&place, "data"), left_behind(&place, "checkpoints")), (vec![], vec![]));
    };
    fails(2, &["tokenizer.json"]);
    fails(shard / 512 - 1, &[".shard"]);
    // Before the first checkpoint: the weights, then the moments, which are twice as large.
    fails(model / 512 - 1, &["model.safetensors"]);
    fails(model / 512 + 8, &["optimizer.safetensors"]);
    assert!(!place.latest().exists());
    assert!(place.works() == want, "with room it is the same run");
    // After one.
    for limit in [model / 512 - 1, model / 512 + 8] {
        place.point_at(2);
        let before = std::fs::read(place.latest()).unwrap();
        fails(limit, &["safetensors"]);
        assert_eq!(std::fs::read(place.latest()).unwrap(), before, "the checkpoint stays the newest");
        assert!(place.works() == want);
    }
    // The log: its first record is longer than a block.
    place.point_at(0);
    fails(1, &["metrics.jsonl"]);
    assert!(place.works() == want);
}
