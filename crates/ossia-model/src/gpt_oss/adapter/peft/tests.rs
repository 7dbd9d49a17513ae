//! Folders are read back to the bit, what is wrong is named, and nothing that a file holds makes reading panic.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use ossia_kernels::Bytes;

use super::*;
use crate::checkpoint::safetensors::Budget;
use crate::gpt_oss::synth::rng::Rng;

fn folder(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("ossia-peft-{}-{name}-{call}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn model() -> Config {
    Config::preset("nano", None).unwrap()
}

fn adapter(experts: Option<ExpertSharing>, all: bool) -> AdapterConfig {
    AdapterConfig { rank: 3, alpha: 6.0, targets: Targets { attention: true, router: all, unembedding: all, experts } }
}

/// Numbers that are all different.
fn values(parameters: &AdapterParameters) -> Vec<f32> {
    (0..parameters.len()).map(|i| 0.5 + i as f32 / 1024.0).collect()
}

#[test]
fn what_was_written_is_read() {
    let kinds = [None, Some(ExpertSharing::Each), Some(ExpertSharing::SharedOuter)];
    for (which, experts) in kinds.into_iter().enumerate() {
        for all in [false, true] {
            let adapter = adapter(experts, all);
            let parameters = AdapterParameters::of(&model(), &adapter);
            let (dir, values) = (folder(&format!("round-{which}-{all}")), values(&parameters));
            save(&dir, &parameters, &values, "some/model").unwrap();
            let (read, numbers) = load(&dir, &model()).unwrap();
            assert_eq!(read.config(), &adapter);
            assert!(same(&numbers, &values) && numbers.len() == values.len());
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

/// Names and places as PEFT 0.21 writes them for transformers' module (see docs/weights.md).
#[test]
fn experts_lie_as_peft_has_them() {
    let config = model();
    let parameters = AdapterParameters::of(&config, &adapter(Some(ExpertSharing::SharedOuter), true));
    let (dir, values) = (folder("layout"), values(&parameters));
    save(&dir, &parameters, &values, "m").unwrap();
    let tensors = safetensors::open(&dir.join(MODEL)).unwrap();
    let get = |name: &str| {
        let name = format!("base_model.model.model.layers.1.{name}.weight");
        let tensor = tensors.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("{name}"));
        (tensor.shape.clone(), floats(tensor).unwrap())
    };
    let of = |name: &str| &values[parameters.get(&format!("model.layers.1.{name}.weight")).unwrap().range.clone()];
    let (r, e, d, i) = (3, config.num_experts, config.hidden_size, config.intermediate_size);
    let (shape, a) = get("mlp.experts.base_layer.lora_A");
    assert_eq!(shape, [r * e, d]);
    assert!(a.chunks_exact(r * d).all(|a| same(a, of("mlp.experts.gate_up_proj.lora_A"))));
    let (shape, b) = get("mlp.experts.base_layer.lora_B");
    assert_eq!(shape, [2 * i, r * e]);
    let ours = of("mlp.experts.gate_up_proj.lora_B");
    let (expert, row, col) = (2, 7, 1);
    assert_eq!(b[row * r * e + col * e + expert], ours[(expert * 2 * i + row) * r + col]);
    let (shape, a) = get("mlp.experts.lora_A");
    assert_eq!(shape, [r * e, i]);
    assert!(same(&a, of("mlp.experts.down_proj.lora_A")));
    assert_eq!(get("mlp.experts.lora_B").0, [d, r * e]);
    assert_eq!(get("mlp.router.lora_B").0, [e, r]);
    let text = std::fs::read_to_string(dir.join(CONFIG)).unwrap();
    assert!(text.contains("mlp.router.weight") && text.contains("\"lora_alpha\": 6"), "{text}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_no_adapter_says_what_to_do() {
    let dir = folder("wrong");
    let fails = |place: &Path, parts: &[&str]| {
        let line = load(place, &model()).unwrap_err().to_string();
        assert!(!line.contains('\n') && parts.iter().all(|part| line.contains(part)), "{line}");
    };
    fails(&dir, &["wrong", "adapter_config.json and adapter_model.safetensors", "found nothing", "is the path right?"]);
    let parameters = AdapterParameters::of(&model(), &adapter(None, false));
    save(&dir.join("adapter"), &parameters, &values(&parameters), "a/base").unwrap();
    fails(&dir, &["the folder of a run; name", "adapter"]);
    fails(&dir.join("adapter").join(CONFIG), &["a file; name the folder"]);
    let wider = Config { hidden_size: 64, ..model() };
    let line = load(&dir.join("adapter"), &wider).unwrap_err().to_string();
    assert!(line.contains("made for \"a/base\": use it with that model"), "{line}");
    let fewer = Config { num_layers: 1, ..model() };
    let line = load(&dir.join("adapter"), &fewer).unwrap_err().to_string();
    assert!(line.contains("no place for; the adapter was made for \"a/base\""), "{line}");
    for (name, part) in [("config.json", "a whole model; name it with -m"), (CONFIG, "one without adapter_model")] {
        let other = dir.join(name.replace('.', "-"));
        std::fs::create_dir_all(&other).unwrap();
        fails(&other, &["a folder without them"]);
        std::fs::write(other.join(name), "{}").unwrap();
        fails(&other, &[part]);
    }
    std::fs::create_dir_all(dir.join("run/checkpoints")).unwrap();
    fails(&dir.join("run"), &["not at its end", "one of its checkpoints"]);
    std::fs::remove_dir_all(dir).unwrap();
}

/// A folder's two files in memory.
fn files() -> (String, Vec<u8>) {
    let parameters = AdapterParameters::of(&model(), &adapter(Some(ExpertSharing::Each), true));
    let dir = folder("parts");
    save(&dir, &parameters, &values(&parameters), "m").unwrap();
    let files = (std::fs::read_to_string(dir.join(CONFIG)).unwrap(), std::fs::read(dir.join(MODEL)).unwrap());
    std::fs::remove_dir_all(dir).unwrap();
    files
}

fn read(settings: &str, model_bytes: &[u8]) -> std::result::Result<AdapterParameters, String> {
    let settings = serde_json::from_str(settings).map_err(|e| e.to_string())?;
    let file = Path::new("a/adapter_model.safetensors");
    let tensors = safetensors::parse(&Bytes::new(model_bytes.to_vec()), file, &mut Budget::default());
    let tensors = tensors.map_err(|e| e.to_string())?;
    from_parts(Path::new("a"), settings, tensors, &model()).map(|(p, _)| p).map_err(|e| e.to_string())
}

#[test]
fn what_is_wrong_is_named() {
    let (settings, bytes) = files();
    let with = |from: &str, to: &str| {
        assert!(settings.contains(from), "{from}");
        read(&settings.replace(from, to), &bytes).map(|_| ()).unwrap_err()
    };
    for (from, to, says) in [
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias"),
        ("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save"),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 4}", "rank_pattern"),
        ("\"r\": 3", "\"r\": 0", "a rank of 1 to 1024"),
        ("\"r\": 3", "\"r\": 4", "wanted shape [4, 32], found shape [3, 32]"),
        ("\"lora_alpha\": 6", "\"lora_alpha\": 0", "lora_alpha"),
        ("\"q_proj\"", "\"q_prj\"", "q_prj"),
        ("\"q_proj\"", "7", "target_modules"),
        // Not among the targets any more, but still in the file.
        ("\"lm_head\"", "\"k_proj\"", "lm_head.lora_A.weight"),
        ("\"mlp.router.weight\"", "\"lm_head\"", "mlp.router.lora_A.weight"),
    ] {
        let error = with(from, to);
        assert!(error.contains(says) && error.starts_with("a/adapter"), "{from} -> {to}: {error}");
    }
    // A tensor under another name of the same length is both missing and unknown.
    let at = bytes.windows(6).position(|w| w == b"v_proj").unwrap();
    let mut renamed = bytes.clone();
    renamed[at] = b'w';
    let error = read(&settings, &renamed).unwrap_err();
    assert!(error.contains("v_proj.lora_"), "{error}");
    let mut broken = bytes.clone();
    let last = broken.len() - 4;
    broken[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(read(&settings, &broken).unwrap_err().contains("finite"));
}

#[test]
fn rank_stabilised_scales_and_fewer_targets_are_understood() {
    let (settings, bytes) = files();
    let read = read(&settings.replace("\"use_rslora\": false", "\"use_rslora\": true"), &bytes).unwrap();
    assert!((read.config().scale() - 6.0 / 3f32.sqrt()).abs() < 1e-6);
}

/// PEFT writes the base's unembedding beside its adapter; it is no adapter, and none of ours where nothing adapts it.
#[test]
fn the_bases_own_unembedding_is_passed_over() {
    for (all, is_read) in [(true, true), (false, false)] {
        let parameters = AdapterParameters::of(&model(), &adapter(None, all));
        let dir = folder(&format!("copy-{all}"));
        save(&dir, &parameters, &values(&parameters), "m").unwrap();
        let mut tensors = safetensors::open(&dir.join(MODEL)).unwrap();
        tensors.push(RawTensor { name: COPY.into(), ..tensors[0].clone() });
        let settings = read_json(&dir.join(CONFIG), 1 << 20).unwrap();
        let read = from_parts(&dir, settings, tensors, &model());
        assert_eq!(read.as_ref().err().map(ToString::to_string).unwrap_or_default().is_empty(), is_read);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

/// Damaged files are refused or read; nothing panics.
#[test]
fn damaged_files_do_not_panic() {
    let (settings, bytes) = files();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    let (mut refused, rounds) = (0, 6000);
    for round in 0..rounds {
        let mut rng = Rng::new(1706, round);
        let (mut text, mut data) = (settings.clone().into_bytes(), bytes.clone());
        let damaged = if round % 2 == 0 { &mut text } else { &mut data };
        let most = if round % 2 == 0 { damaged.len() } else { header };
        for _ in 0..1 + rng.next() % 3 {
            let at = rng.next() as usize % most;
            match rng.next() % 4 {
                0 => damaged[at] = rng.next() as u8,
                1 => damaged[at] = b"0123456789{}[],:\"-"[rng.next() as usize % 18],
                2 => damaged[at] ^= 1 << (rng.next() % 8),
                _ => damaged.swap(at, (at + 1) % most),
            }
        }
        let Ok(text) = String::from_utf8(text) else { continue };
        refused += usize::from(read(&text, &data).is_err());
    }
    assert!(refused > rounds as usize / 2, "{refused}");
}
