//! Recipes that are wrong: each is refused in one line that names the key or the line.

use super::program::{Place, RECIPE, assert_failed, ossia, text};

/// [`RECIPE`] with `from` replaced must be refused, and nothing made.
#[track_caller]
fn refused(from: &str, to: &str, parts: &[&str]) {
    let place = Place::new();
    place.change_recipe(from, to);
    place.fails(&[parts, &["micro.toml"]].concat());
    assert!(!place.run().join("data").exists(), "nothing was made");
}

#[test]
fn unknown_keys_at_each_level() {
    refused("seed = 3", "seed = 3\nsead = 3", &["line", "unknown field `sead`"]);
    refused("[quantize]", "[quantise]\nfrom = 1\n[quantize]", &["unknown field `quantise`"]);
    refused("hidden_size = 32", "hiden_size = 32", &["model.hiden_size: wanted one of"]);
    refused("factor = 4.0", "factor = 4.0, betafast = 2.0", &["model.rope_scaling.betafast: wanted one of"]);
    for (table, key) in [("data", "max_len"), ("training", "lr"), ("checkpoints", "every"), ("validation", "documents")]
    {
        refused(&format!("[{table}]"), &format!("[{table}]\nx{key} = 1"), &["line", &format!("`x{key}`")]);
    }
    refused("context = 0.05", "contex = 0.05", &["line", "`contex`"]);
    refused("[quantize]", "[init]\nstdd = 1.0\n[quantize]", &["line", "`stdd`"]);
}

#[test]
fn wrong_types() {
    refused("seed = 3", "seed = \"3\"", &["line 3", "string"]);
    refused("hidden_size = 32", "hidden_size = \"32\"", &["hidden_size: wanted a whole number"]);
    refused("hidden_size = 32", "hidden_size = 32.5", &["hidden_size: wanted a whole number"]);
    refused("hidden_size = 32", "hidden_size = 2026-01-01", &["hidden_size: wanted a whole number"]);
    refused("hidden_size = 32", "hidden_size = -32", &["hidden_size: wanted a whole number"]);
    refused("rope_theta = 150000.0", "rope_theta = nan", &["rope_theta: wanted a finite number"]);
    refused("rope_theta = 150000.0", "rope_theta = [1]", &["rope_theta: wanted a finite number"]);
    refused("steps = 4", "steps = -4", &["line", "-4"]);
    refused("lr = 0.02", "lr = true", &["line", "boolean"]);
    refused("\"muon\"", "\"sgd\"", &["line", "sgd"]);
    refused("source = \"generated\"", "source = 7", &["line"]);
    refused("[quantize]\nfrom = 0.5", "quantize = 3", &["line"]);
    refused("\"yarn\"", "\"linear\"", &["rope_type: wanted yarn"]);
}

#[test]
fn shapes_that_cannot_be() {
    refused("hidden_size = 32", "hidden_size = 40", &["hidden_size: wanted a multiple of 32, found 40"]);
    refused("intermediate_size = 32", "intermediate_size = 33", &["intermediate_size: wanted a multiple of 32"]);
    refused(
        "experts_per_tok = 2",
        "experts_per_tok = 5",
        &["num_experts_per_tok: wanted at most the number of experts, 4"],
    );
    refused("key_value_heads = 2", "key_value_heads = 3", &["num_attention_heads: wanted a multiple of the 3"]);
    refused("key_value_heads = 2", "key_value_heads = 0", &["num_key_value_heads: wanted 1 to"]);
    refused("layers = 2", "layers = 0", &["num_hidden_layers: wanted 1 to"]);
    refused("layers = 2", "layers = 100000", &["num_hidden_layers: wanted 1 to"]);
    refused("hidden_size = 32", "hidden_size = 1000000000", &["hidden_size: wanted 1 to"]);
    refused("local_experts = 4", "local_experts = 9223372036854775807", &["num_local_experts: wanted 1 to"]);
    refused("max_len = 128", "max_len = 257", &["micro_tokens: wanted at least data.max_len, 257"]);
    refused(
        "embeddings = 256",
        "embeddings = 100",
        &["data.max_len: wanted at most model.max_position_embeddings, 100"],
    );
}

/// Nothing is made for a plan, and what a run would refuse is refused.
#[test]
fn plans_of_what_cannot_be() {
    let sizes = "num_local_experts = 4\nnum_experts_per_tok = 2";
    let large = "num_local_experts = 16384\nnum_experts_per_tok = 16384";
    for (from, to, parts) in [
        ("vocabulary = 300", "vocabulary = 3", &["data.vocabulary: wanted 265", "to 1048576, found 3"][..]),
        ("vocabulary = 300", "vocabulary = 1048577", &["data.vocabulary: wanted 265", "found 1048577"]),
        ("vocabulary = 300\n", "", &["data.vocabulary: wanted 265", "found 0"]),
        (
            "hidden_size = 32",
            "hidden_size = 32\nvocab_size = 299",
            &["model.vocab_size: wanted none, or at least data.vocabulary, 300, found 299"],
        ),
        (
            "context = 0.05",
            "context = 0.0, analysis = 0.0, commentary = 0.0, final = 0.0, tool_call = 0.0",
            &["data.weights: wanted a class of tokens that counts"],
        ),
        (
            "source = \"generated\"",
            "source = { shards = \"nowhere\" }",
            &["model.vocab_size: wanted the size of the shards' vocabulary"],
        ),
        ("head_dim = 8", "head_dim = 12", &["head_dim: wanted a multiple of 8, found 12"]),
        (sizes, large, &["micro_tokens: wanted at most", "by what this shape keeps of a token, found 16777216"]),
    ] {
        let place = Place::new();
        let mut recipe = RECIPE.replace(from, to);
        assert_ne!(recipe, RECIPE, "{from}");
        if to == large {
            let (layers, tokens) = ("num_hidden_layers = 1024", "batch_tokens = 16777216\nmicro_tokens = 16777216");
            recipe = recipe
                .replace("num_hidden_layers = 2", layers)
                .replace("\nintermediate_size = 32", "\nintermediate_size = 16384");
            recipe = recipe.replace("batch_tokens = 400\nmicro_tokens = 200", tokens);
        }
        place.write_recipe(recipe.as_bytes());
        let parts = [&["micro.toml"], parts].concat();
        assert_failed(&ossia(&["train", text(&place.recipe()), "--dry-run"]), 1, &parts);
    }
}

#[test]
fn numbers_that_cannot_be() {
    refused("steps = 4", "steps = 9223372036854775808", &["training.steps: wanted at most 99999999"]);
    refused("steps = 4", "steps = 18446744073709551616", &["line"]);
    refused("batch_tokens = 400", "batch_tokens = 9223372036854775808", &["training.batch_tokens: wanted at most"]);
    refused("steps = 4", "steps = 0", &["training.steps: wanted a count above 0"]);
    refused("micro_tokens = 200", "micro_tokens = 9223372036854775807", &["training.micro_tokens: wanted at most"]);
    refused("documents = 100", "documents = 9223372036854775807", &["data.documents: wanted at most"]);
    refused("documents = 100", "documents = 0", &["data.documents: wanted how many"]);
    refused("lr = 0.02", "lr = nan", &["training.lr: wanted a number above 0, found NaN"]);
    refused("lr = 0.02", "lr = 1e39", &["training.lr: wanted a number above 0, found inf"]);
    refused("lr = 0.02", "lr = 0.02\nweight_decay = nan", &["training.weight_decay: wanted a number"]);
    refused("lr = 0.02", "lr = 0.02\naux_loss = [0.1, -1.0]", &["training.aux_loss: wanted a number"]);
    refused("lr = 0.02", "lr = 0.02\nbetas = [0.9, 1.0]", &["training.betas: wanted numbers from 0 to below 1"]);
    refused("warmup = 0.2", "warmup = 0.9", &["training.decay: wanted a share that leaves room"]);
    refused("from = 0.5", "from = nan", &["quantize.from: wanted a share"]);
    refused("context = 0.05", "context = -1.0", &["data.weights: wanted numbers that are not negative"]);
    for name in ["", "../up", "a/b", ".hidden"] {
        refused("\"micro\"", &format!("\"{name}\""), &["name: wanted a name that a folder can have"]);
    }
}

/// What only shows when data are there.
#[test]
fn what_does_not_fit_the_data_or_the_machine() {
    let place = Place::new();
    place.change_recipe("vocabulary = 300", "vocabulary = 1000000");
    place.fails(&["wanted 1000000 tokens", "smaller vocabulary"]);
    let place = Place::new();
    place.change_recipe("hidden_size = 32\nintermediate_size = 32", "hidden_size = 65536\nintermediate_size = 65536");
    place.fails(&["the run needs", "GB", "the machine has", "lower training.micro_tokens"]);
}

#[test]
fn documents_that_teach_nothing() {
    let place = Place::new();
    let recipe = RECIPE.replace("max_len = 128", "max_len = 8");
    place.write_recipe(recipe.replace("context = 0.05", "context = 0.0").as_bytes());
    place.fails(&["micro.toml", "data.max_len: wanted documents in which something is learned"]);
    // With the given tokens alone there is a loss, but none that can be measured on the held-out answers.
    let place = Place::new();
    place.write_recipe(recipe.as_bytes());
    place.works();
    let log = std::fs::read_to_string(place.run().join("metrics.jsonl")).unwrap();
    assert!(log.lines().count() == 4 && !log.contains("valid_loss"), "{log}");
}

#[test]
fn files_that_are_no_recipes() {
    let place = Place::new();
    for (bytes, part) in [
        (&b"\xff\xfe\x00"[..], "wanted UTF-8, found other bytes after 0"),
        (b"name = \"a\xe9\"", "wanted UTF-8, found other bytes after 9"),
        (b"", "missing field `name`"),
        (b"name = ", "line 1"),
        (b"\"a\\u001b[31m\" = 1", "unknown field"),
        (&[0; 1000], "line 1"),
    ] {
        place.write_recipe(bytes);
        place.fails(&["micro.toml", part]);
    }
    let zeros = std::fs::OpenOptions::new().write(true).open(place.recipe()).unwrap();
    zeros.set_len(100 << 20).unwrap();
    place.fails(&["micro.toml", "wanted a recipe of at most 1048576 bytes"]);
    // An array in an array, and so on.
    place.write_recipe(format!("name = {}", "[".repeat(100_000)).as_bytes());
    place.fails(&["micro.toml", "line 1"]);
    std::fs::remove_file(place.recipe()).unwrap();
    place.fails(&["micro.toml", "could not read the recipe"]);
    std::fs::create_dir(place.recipe()).unwrap();
    place.fails(&["micro.toml", "could not read the recipe"]);
    assert_failed(&ossia(&["train", "/dev/zero", "--dry-run"]), 1, &["/dev/zero", "at most"]);
    assert!(!place.run().exists());
}

#[test]
fn arguments_that_are_none() {
    let place = Place::new();
    let recipe = place.recipe();
    for args in [&["train"][..], &["train", text(&recipe), "--threads", "0"], &["train", text(&recipe), "--what"]] {
        let output = ossia(args);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn another_recipe_for_a_run_that_is_there() {
    let place = Place::with_run();
    let folder = place.run();
    let before = std::fs::read(place.latest()).unwrap();
    for (from, to, parts) in [
        ("lr = 0.02", "lr = 0.01", ["training.lr was 0.02", "has 0.01"]),
        ("hidden_size = 32", "hidden_size = 64", ["model.hidden_size was 32", "has 64"]),
        ("factor = 4.0", "factor = 8.0", ["model.rope_scaling.factor was 4.0", "has 8.0"]),
        ("seed = 3", "seed = 4", ["seed was 3", "has 4"]),
        ("\"muon\"", "\"adamw\"", ["training.optimizer was \"muon\"", "has \"adamw\""]),
        ("hidden_size = 32", "hidden_size = 32\nswiglu_limit = 7.0", ["model.swiglu_limit was not given", "has 7.0"]),
        ("context = 0.05", "context = 0.25", ["data.weights.context was 0.05", "has 0.25"]),
    ] {
        place.change_recipe(from, to);
        place.fails(&[&parts[..], &["step-00000004", "micro.toml", "another --out"]].concat());
    }
    assert_eq!(std::fs::read(place.latest()).unwrap(), before);
    place.write_recipe(RECIPE.as_bytes());
    place.works();
    // Before the first checkpoint there are data, which are the recipe's too.
    std::fs::remove_dir_all(folder.join("checkpoints")).unwrap();
    std::fs::remove_file(folder.join("metrics.jsonl")).unwrap();
    place.change_recipe("documents = 100", "documents = 90");
    place.fails(&["origin.json", "\"documents\": 100", "\"documents\": 90", "another --out"]);
}
