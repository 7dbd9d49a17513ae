//! Shards and tokenizers that are torn, altered or missing.

use std::path::{Path, PathBuf};

use super::program::{Place, RECIPE, damaged, text};

/// A place whose recipe reads a folder of shards, and that folder.
fn with_shards() -> (Place, PathBuf) {
    let place = Place::with_run();
    let shards = place.path("shards");
    std::fs::rename(place.run().join("data"), &shards).unwrap();
    std::fs::remove_dir_all(place.run()).unwrap();
    from_shards(&place, &shards);
    (place, shards)
}

fn from_shards(place: &Place, shards: &Path) {
    place.change_recipe("\"generated\"", &format!("{{ shards = \"{}\" }}", text(shards)));
}

/// Every way of damaging `file` must be said in a line with its name; afterwards it is whole again.
#[track_caller]
fn damage_is_named(place: &Place, file: &Path) {
    let whole = std::fs::read(file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    for bytes in damaged(&whole) {
        std::fs::write(file, &bytes).unwrap();
        let output = place.train();
        // A bit of a tokenizer may be flipped into another good tokenizer: then the shards are not its own.
        let name = if String::from_utf8_lossy(&output.stderr).contains("the vocabulary") { ".shard" } else { name };
        super::program::assert_failed(&output, 1, &[name]);
    }
    std::fs::write(file, whole).unwrap();
}

#[test]
fn shards_are_a_source() {
    let (place, _) = with_shards();
    let weights = place.works();
    assert!(!place.run().join("data").exists());
    let generated = Place::new();
    assert!(generated.works() == weights, "the same data give the same weights");
}

#[test]
fn folders_that_are_none() {
    let (place, shards) = with_shards();
    from_shards(&place, &place.path("nowhere"));
    place.fails(&["nowhere", "tokenizer.json"]);
    from_shards(&place, &place.recipe());
    place.fails(&["micro.toml", "tokenizer.json"]);
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::copy(shards.join("tokenizer.json"), empty.join("tokenizer.json")).unwrap();
    from_shards(&place, &empty);
    place.fails(&["empty", "data.source: wanted a folder with *.shard files, found none"]);
    std::fs::create_dir(empty.join("a.shard")).unwrap();
    place.fails(&["a.shard", "something that is no file"]);
}

#[test]
fn torn_and_altered_shards_are_named() {
    let (place, shards) = with_shards();
    damage_is_named(&place, &shards.join("00000.shard"));
    damage_is_named(&place, &shards.join("tokenizer.json"));
    std::fs::rename(shards.join("tokenizer.json"), shards.join("elsewhere.json")).unwrap();
    place.fails(&["tokenizer.json"]);
    std::fs::rename(shards.join("elsewhere.json"), shards.join("tokenizer.json")).unwrap();
    place.works();
}

#[test]
fn data_of_a_run_are_checked_and_made_again() {
    let place = Place::with_run();
    let (data, want) = (place.run().join("data"), place.works());
    place.point_at(2);
    damage_is_named(&place, &data.join("00000.shard"));
    damage_is_named(&place, &data.join("tokenizer.json"));
    for name in ["00000.shard", "tokenizer.json"] {
        std::fs::remove_file(data.join(name)).unwrap();
    }
    // What a writer that was killed leaves.
    std::fs::write(data.join(".00000.shard.1.tmp"), "torn").unwrap();
    assert!(place.works() == want);
    let mut names: Vec<_> = std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["00000.shard", "origin.json", "tokenizer.json"]);
}

#[test]
fn other_data_than_the_checkpoint_had() {
    let (place, shards) = with_shards();
    place.works();
    let other = Place::new();
    other.write_recipe(RECIPE.replace("documents = 100", "documents = 90").as_bytes());
    other.works();
    place.point_at(2);
    std::fs::copy(other.run().join("data/00000.shard"), shards.join("00000.shard")).unwrap();
    std::fs::copy(other.run().join("data/tokenizer.json"), shards.join("tokenizer.json")).unwrap();
    place.fails(&["the data cursor", "90 documents", "100 documents"]);
}
