//! Adapters as folders that PEFT reads and writes: adapter_config.json and adapter_model.safetensors.
//!
//! Linear layers are `target_modules`. The router and the experts are parameters of their modules, not layers, so they
//! are `target_parameters`: PEFT wraps the experts' module twice, gate and up inside (`experts.base_layer`), down
//! outside, and lays all experts' factors side by side: A [E r, inputs], expert by expert; B [outputs, r E], an expert's
//! columns E apart. PEFT knows no factor that experts share. A shared one is written once for each expert, and experts
//! whose outer factors are all the same bits are read as sharing them.
//!
//! Reading refuses, by name: what it does not know, what is missing, and settings that would change the sum.

use std::collections::HashSet;
use std::path::Path;

use ossia_kernels::DType;
use serde_json::{Map, Value, json};

use super::{AdapterConfig, AdapterParameters, ExpertSharing, MOST_RANK, Targets, attention};
use crate::checkpoint::safetensors;
use crate::checkpoint::write::{TensorSpec, Writer, sort_for_file, write_json};
use crate::checkpoint::{Error, RawTensor, Result, limits, read_json};
use crate::gpt_oss::config::Config;
use crate::gpt_oss::parameters::Parameter;
use crate::gpt_oss::tensors::floats;

const CONFIG: &str = "adapter_config.json";
const MODEL: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
/// The base's unembedding, as it is kept inside the wrapper.
const COPY: &str = "base_model.model.lm_head.base_layer.weight";
/// What is wrapped: our name of a factor's matrix, and PEFT's place of it.
const WRAPPED: [(&str, &str); 2] =
    [("mlp.experts.gate_up_proj.", "mlp.experts.base_layer."), ("mlp.experts.down_proj.", "mlp.experts.")];
/// Settings that change the sum, with the only values that are understood.
const PLAIN: [(&str, &[&str]); 16] = [
    ("peft_type", &["\"LORA\""]),
    ("bias", &["\"none\""]),
    ("fan_in_fan_out", &["false"]),
    ("use_dora", &["false"]),
    ("lora_bias", &["false"]),
    ("modules_to_save", &["[]"]),
    ("layers_to_transform", &["[]"]),
    ("layers_pattern", &["[]"]),
    ("layer_replication", &["[]"]),
    ("rank_pattern", &["{}"]),
    ("alpha_pattern", &["{}"]),
    ("trainable_token_indices", &["[]", "{}"]),
    ("alora_invocation_tokens", &["[]"]),
    ("use_bdlora", &["false", "{}"]),
    ("velora_config", &["{}"]),
    ("kasa_config", &["{}"]),
];

/// Writes the folder `folder`; `base` names the model that is adapted. The configuration comes last, so a folder that
/// was not finished does not open.
pub fn save(folder: &Path, parameters: &AdapterParameters, values: &[f32], base: &str) -> Result<()> {
    assert_eq!(values.len(), parameters.len(), "values of this adapter");
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
    let mut outputs: Vec<(TensorSpec, &Parameter)> =
        parameters.tensors().iter().map(|p| (spec(parameters, p), p)).collect();
    outputs.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let mut specs: Vec<TensorSpec> = outputs.iter().map(|(spec, _)| spec.clone()).collect();
    sort_for_file(&mut specs);
    let mut writer = Writer::create(&folder.join(MODEL), &specs, &[("format", "pt")])?;
    for (_, parameter) in &outputs {
        let laid_out = to_peft(parameters, parameter, &values[parameter.range.clone()]);
        let bytes: Vec<u8> = laid_out.iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(&bytes)?;
    }
    writer.finish()?;
    write_json(&folder.join(CONFIG), &config_json(parameters.config(), base))
}

/// The name and shape that PEFT gives a factor.
fn spec(parameters: &AdapterParameters, parameter: &Parameter) -> TensorSpec {
    let wrapped = WRAPPED.iter().find(|(ours, _)| parameter.name.contains(ours));
    let name = wrapped.map_or(parameter.name.clone(), |(ours, theirs)| parameter.name.replace(ours, theirs));
    let shape = match wrapped {
        None => parameter.shape.clone(),
        Some(_) => {
            let (e, [rows, cols]) = (parameters.model().num_experts, matrix(parameter));
            if is_a(parameter) { vec![e * rows, cols] } else { vec![rows, cols * e] }
        }
    };
    TensorSpec { name: format!("{PREFIX}{name}"), dtype: DType::F32, shape }
}

fn is_a(parameter: &Parameter) -> bool {
    parameter.name.ends_with("lora_A.weight")
}

/// The rows and columns of one matrix of a factor.
fn matrix(parameter: &Parameter) -> [usize; 2] {
    let shape = &parameter.shape;
    [shape[shape.len() - 2], shape[shape.len() - 1]]
}

/// A factor's numbers as PEFT lays them out.
fn to_peft(parameters: &AdapterParameters, parameter: &Parameter, values: &[f32]) -> Vec<f32> {
    if !parameter.name.contains("mlp.experts.") {
        return values.to_vec();
    }
    let (e, [rows, cols]) = (parameters.model().num_experts, matrix(parameter));
    // One that is shared stands for each expert's.
    let of = |expert: usize| if values.len() == rows * cols { 0 } else { expert * rows * cols };
    if is_a(parameter) {
        return (0..e).flat_map(|expert| values[of(expert)..of(expert) + rows * cols].to_vec()).collect();
    }
    let mut out = Vec::with_capacity(e * rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            out.extend((0..e).map(|expert| values[of(expert) + row * cols + col]));
        }
    }
    out
}

/// The other way; `shared` takes the first expert's for all.
fn from_peft(values: &[f32], e: usize, is_a: bool, [rows, cols]: [usize; 2], shared: bool) -> Vec<f32> {
    let count = if shared { 1 } else { e };
    if is_a {
        return values[..count * rows * cols].to_vec();
    }
    let element = |expert: usize, at: usize| values[at * e + expert];
    (0..count).flat_map(|expert| (0..rows * cols).map(move |at| element(expert, at))).collect()
}

fn config_json(adapter: &AdapterConfig, base: &str) -> Value {
    let Targets { attention, router, unembedding, experts } = adapter.targets;
    let mut modules = if attention { vec!["k_proj", "o_proj", "q_proj", "v_proj"] } else { Vec::new() };
    modules.extend(unembedding.then_some("lm_head"));
    let mut parameters =
        if experts.is_some() { vec!["mlp.experts.down_proj", "mlp.experts.gate_up_proj"] } else { vec![] };
    parameters.extend(router.then_some("mlp.router.weight"));
    let alpha = if adapter.alpha.fract() == 0.0 { json!(adapter.alpha as i64) } else { json!(adapter.alpha) };
    json!({
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": base, "bias": "none",
        "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layers_pattern": null,
        "layers_to_transform": null, "lora_alpha": alpha, "lora_dropout": 0.0, "modules_to_save": null,
        "peft_type": "LORA", "r": adapter.rank, "rank_pattern": {}, "revision": null, "target_modules": modules,
        "target_parameters": if parameters.is_empty() { Value::Null } else { json!(parameters) },
        "task_type": "CAUSAL_LM", "use_dora": false, "use_rslora": false,
    })
}

/// Reads the folder `folder` for a model of the shape `config`. Attention matrices that the folder leaves out are
/// adapted by zero.
pub fn load(folder: &Path, config: &Config) -> Result<(AdapterParameters, Vec<f32>)> {
    check_folder(folder)?;
    let settings = read_json(&folder.join(CONFIG), limits::CONFIG_BYTES)?;
    let tensors = safetensors::open(&folder.join(MODEL))?;
    from_parts(folder, settings, tensors, config)
}

/// Fails where `folder` is none of an adapter, and says what to do.
pub fn check_folder(folder: &Path) -> Result<()> {
    let has = |folder: &Path| [CONFIG, MODEL].iter().all(|name| folder.join(name).is_file());
    if has(folder) {
        return Ok(());
    }
    let wanted = format!("an adapter's folder, as ossia finetune and PEFT leave them, with {CONFIG} and {MODEL}");
    let found = match folder {
        _ if !folder.exists() => "nothing; is the path right?".to_owned(),
        _ if folder.is_file() => "a file; name the folder that it is in".to_owned(),
        _ if has(&folder.join("adapter")) => {
            format!("the folder of a run; name {}", folder.join("adapter").display())
        }
        _ if folder.join("checkpoints").is_dir() => {
            "the folder of a run that is not at its end; run it to its end, or name one of its checkpoints".to_owned()
        }
        _ if folder.join("config.json").is_file() => "a whole model; name it with -m instead".to_owned(),
        _ if folder.join(CONFIG).is_file() => format!("one without {MODEL}; get both files from where it was made"),
        _ if folder.join(MODEL).is_file() => format!("one without {CONFIG}; get both files from where it was made"),
        _ => "a folder without them".to_owned(),
    };
    Err(Error::file(folder, wanted, found))
}

/// The same for what the folder's files hold.
fn from_parts(
    folder: &Path,
    settings: Value,
    tensors: Vec<RawTensor>,
    config: &Config,
) -> Result<(AdapterParameters, Vec<f32>)> {
    let settings = Settings::read(&folder.join(CONFIG), settings)?;
    Reader { config, settings, tensors, file: folder.join(MODEL) }.read()
}

/// What a configuration says.
struct Settings {
    /// The model that was adapted, as a sentence's end.
    base: String,
    rank: usize,
    alpha: f32,
    targets: HashSet<String>,
}

impl Settings {
    fn read(file: &Path, value: Value) -> Result<Self> {
        let Value::Object(map) = value else { return Err(Error::file(file, "a JSON object", "another value")) };
        for (key, allowed) in PLAIN {
            let found = map.get(key).map_or(String::new(), Value::to_string);
            let is_unset = found.is_empty() || found == "null";
            if !is_unset && !allowed.contains(&found.as_str()) {
                return Err(Error::key(file, key, format!("nothing or {}", allowed.join(" or ")), found));
            }
        }
        let rank = map.get("r").and_then(Value::as_u64).and_then(|r| usize::try_from(r).ok());
        let rank = rank.filter(|r| (1..=MOST_RANK).contains(r)).ok_or_else(|| wrong(file, &map, "r"))?;
        let alpha = map.get("lora_alpha").and_then(Value::as_f64).map(|a| a as f32);
        let alpha = alpha.filter(|a| a.is_finite() && *a != 0.0).ok_or_else(|| wrong(file, &map, "lora_alpha"))?;
        // s = alpha / sqrt(r) is (alpha sqrt(r)) / r.
        let root = map.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        let alpha = if root { alpha * (rank as f32).sqrt() } else { alpha };
        let mut targets = HashSet::new();
        for key in ["target_modules", "target_parameters"] {
            match map.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::Array(names)) => {
                    for name in names {
                        let name = name.as_str().ok_or_else(|| wrong(file, &map, key))?;
                        let known = target(name).ok_or_else(|| unknown(file, key, name))?;
                        targets.insert(known.to_owned());
                    }
                }
                Some(_) => return Err(wrong(file, &map, key)),
            }
        }
        let base = map.get("base_model_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
        let base = base.map_or("another model".to_owned(), |name| format!("{name:?}"));
        Ok(Self { base: format!("the adapter was made for {base}: use it with that model"), rank, alpha, targets })
    }
}

/// The part of a model that a target's name means.
fn target(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 8] = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "lm_head",
        "mlp.router",
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    ];
    let name = name.strip_suffix(".weight").unwrap_or(name);
    NAMES.into_iter().find(|known| *known == name || known.strip_suffix(name).is_some_and(|head| head.ends_with('.')))
}

fn unknown(file: &Path, key: &str, name: &str) -> Error {
    let wanted =
        "q_proj, k_proj, v_proj, o_proj, lm_head, mlp.router.weight, mlp.experts.gate_up_proj or mlp.experts.down_proj";
    Error::key(file, key, wanted, format!("{name:?}"))
}

fn wrong(file: &Path, map: &Map<String, Value>, key: &str) -> Error {
    let wanted = match key {
        "r" => format!("a rank of 1 to {MOST_RANK}"),
        "lora_alpha" => "a number other than 0".into(),
        _ => "a list of names".into(),
    };
    Error::key(file, key, wanted, map.get(key).map_or("nothing".into(), Value::to_string))
}

struct Reader<'a> {
    config: &'a Config,
    settings: Settings,
    tensors: Vec<RawTensor>,
    file: std::path::PathBuf,
}

impl Reader<'_> {
    fn read(&self) -> Result<(AdapterParameters, Vec<f32>)> {
        let has = |name: &str| self.settings.targets.contains(name);
        let attended = attention(self.config).iter().any(|t| has(t.name));
        let any_expert = has("mlp.experts.gate_up_proj") || has("mlp.experts.down_proj");
        let adapter = |experts| AdapterConfig {
            rank: self.settings.rank,
            alpha: self.settings.alpha,
            targets: Targets { attention: attended, router: has("mlp.router"), unembedding: has("lm_head"), experts },
        };
        let each = adapter(any_expert.then_some(ExpertSharing::Each));
        if let Some(fault) = each.fault() {
            return Err(Error::file(&self.file, "an adapter of this model", fault));
        }
        let all = AdapterParameters::of(self.config, &each);
        let (mut read, mut used) = (Vec::with_capacity(all.tensors().len()), HashSet::new());
        for parameter in all.tensors() {
            let spec = spec(&all, parameter);
            read.push(self.find(parameter, &spec, &mut used)?);
        }
        // PEFT puts the model's own unembedding beside its adapter, unasked and unchanged.
        used.extend(self.tensors.iter().filter(|t| has("lm_head") && t.name == COPY).map(|t| t.name.as_str()));
        if let Some(first) = self.tensors.iter().find(|t| !used.contains(t.name.as_str())) {
            let (count, base) = (self.tensors.len() - used.len(), &self.settings.base);
            let found = format!(
                "{} of shape {:?}, one of {count} that this model has no place for; {base}",
                first.dtype, first.shape
            );
            return Err(Error::tensor(&self.file, &first.name, "only factors of this model's weights", found));
        }
        let shared = any_expert && self.config.num_experts > 1 && self.is_shared(&all, &read);
        let sharing = if shared { ExpertSharing::SharedOuter } else { ExpertSharing::Each };
        let parameters = AdapterParameters::of(self.config, &adapter(any_expert.then_some(sharing)));
        let mut values = Vec::with_capacity(parameters.len());
        for (parameter, numbers) in parameters.tensors().iter().zip(read) {
            if parameter.name.contains("mlp.experts.") {
                let one = parameter.shape.len() == 2;
                values.extend(from_peft(&numbers, self.config.num_experts, is_a(parameter), matrix(parameter), one));
            } else {
                values.extend(numbers);
            }
        }
        Ok((parameters, values))
    }

    /// The numbers of a factor as the file has them; zeros where its matrix is none of the targets.
    fn find<'t>(&'t self, parameter: &Parameter, spec: &TensorSpec, used: &mut HashSet<&'t str>) -> Result<Vec<f32>> {
        let stem = parameter.name.rsplit_once(".lora_").map_or("", |(stem, _)| stem);
        let is_target = self.settings.targets.iter().any(|target| stem.ends_with(target.as_str()));
        let tensor = self.tensors.iter().find(|t| t.name == self.place(spec));
        let Some(tensor) = tensor.filter(|_| is_target) else {
            if is_target {
                let (wanted, base) = (format!("a factor of shape {:?}", spec.shape), &self.settings.base);
                return Err(Error::tensor(&self.file, &spec.name, wanted, format!("no tensor of this name; {base}")));
            }
            return Ok(vec![0.0; spec.shape.iter().product()]);
        };
        used.insert(&tensor.name);
        if tensor.shape != spec.shape {
            let found = format!("shape {:?}; {}", tensor.shape, self.settings.base);
            return Err(Error::tensor(&tensor.file, &tensor.name, format!("shape {:?}", spec.shape), found));
        }
        floats(tensor)
    }

    /// Where one of the experts' two parameters alone is adapted, nothing is nested.
    fn place(&self, spec: &TensorSpec) -> String {
        let down = self.settings.targets.contains("mlp.experts.down_proj");
        if down { spec.name.clone() } else { spec.name.replace("mlp.experts.base_layer.", "mlp.experts.") }
    }

    /// Whether all experts have the same outer factors, in every block.
    fn is_shared(&self, all: &AdapterParameters, read: &[Vec<f32>]) -> bool {
        let e = self.config.num_experts;
        all.tensors().iter().zip(read).all(|(parameter, values)| {
            let outer_a = parameter.name.ends_with("gate_up_proj.lora_A.weight");
            let outer_b = parameter.name.ends_with("down_proj.lora_B.weight");
            if outer_a {
                let (first, rest) = values.split_at(values.len() / e);
                rest.chunks_exact(first.len()).all(|other| same(first, other))
            } else if outer_b && parameter.name.contains("mlp.experts.") {
                values.chunks_exact(e).all(|row| row.iter().all(|v| v.to_bits() == row[0].to_bits()))
            } else {
                true
            }
        })
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests;
