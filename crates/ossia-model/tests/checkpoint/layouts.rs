//! Every published layout opens and holds the same weights.

use std::collections::HashSet;

use ossia_kernels::DType;
use ossia_model::checkpoint::write::{TensorSpec, Writer, shard_name, split_into_shards, write_index};
use ossia_model::checkpoint::{Checkpoint, Layout, Metadata, RawTensor};
use ossia_model::gpt_oss::config::Config;

use super::support::{assert_says, copy_files, data, scratch};

fn get<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a RawTensor {
    checkpoint.get(name).unwrap_or_else(|| panic!("no {name} in {}", checkpoint.source()))
}

/// Numbers of a dense tensor.
fn values(tensor: &RawTensor) -> Vec<f32> {
    match tensor.dtype {
        DType::F32 => tensor.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        DType::BF16 => {
            let widen = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            tensor.bytes.as_chunks::<2>().0.iter().map(widen).collect()
        }
        other => panic!("{} is {other}", tensor.name),
    }
}

#[test]
fn nano_and_tiny_open_as_hugging_face_with_the_tensors_of_their_config() {
    for name in ["nano", "tiny"] {
        let checkpoint = Checkpoint::open(&data(name)).unwrap();
        assert_eq!(checkpoint.layout(), Layout::HuggingFace);
        assert_eq!(checkpoint.folder(), Some(data(name).as_path()));
        let config = Config::from_checkpoint(&checkpoint).unwrap();
        let wanted = ossia_model::gpt_oss::synth::tensors(&config);
        assert_eq!(checkpoint.tensors().count(), wanted.len());
        for spec in &wanted {
            let found = get(&checkpoint, &spec.name);
            assert_eq!(
                (found.dtype, &found.shape, found.bytes.len()),
                (spec.dtype, &spec.shape, spec.bytes().unwrap())
            );
        }
    }
}

#[test]
fn the_reader_agrees_with_the_safetensors_crate() {
    for name in ["nano/model.safetensors", "nano/original/model.safetensors", "tiny/model.safetensors"] {
        let bytes = std::fs::read(data(name)).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ours = ossia_model::checkpoint::safetensors::open(&data(name)).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for tensor in &ours {
            let view = theirs.tensor(&tensor.name).unwrap();
            assert_eq!((view.shape(), view.data()), (tensor.shape.as_slice(), &*tensor.bytes));
            assert_eq!(format!("{:?}", view.dtype()), tensor.dtype.to_string());
        }
    }
}

#[test]
fn original_holds_the_same_bytes() {
    let hf = Checkpoint::open(&data("nano")).unwrap();
    let original = Checkpoint::open(&data("nano/original")).unwrap();
    assert_eq!(original.layout(), Layout::Original);
    let same = |a: &str, b: &str| assert_eq!(*get(&original, a).bytes, *get(&hf, b).bytes, "{a}");
    same("embedding.weight", "model.embed_tokens.weight");
    same("unembedding.weight", "lm_head.weight");
    same("norm.scale", "model.norm.weight");
    for layer in 0..2 {
        for (a, b) in [
            ("attn.norm.scale", "input_layernorm.weight"),
            ("attn.out.weight", "self_attn.o_proj.weight"),
            ("attn.sinks", "self_attn.sinks"),
            ("mlp.gate.weight", "mlp.router.weight"),
            ("mlp.mlp1_weight.blocks", "mlp.experts.gate_up_proj_blocks"),
            ("mlp.mlp2_weight.scales", "mlp.experts.down_proj_scales"),
        ] {
            same(&format!("block.{layer}.{a}"), &format!("model.layers.{layer}.{b}"));
        }
        let parts = ["q", "k", "v"]
            .map(|p| get(&hf, &format!("model.layers.{layer}.self_attn.{p}_proj.weight")).bytes.to_vec());
        assert_eq!(*get(&original, &format!("block.{layer}.attn.qkv.weight")).bytes, parts.concat());
    }
}

/// One HF block of 16 code bytes and its scale as GGUF's 17 bytes: SPEC 3.1.
fn gguf_block(codes: &[u8], scale: u8) -> Vec<u8> {
    let element = |e: usize| (codes[e / 2] >> (4 * (e % 2))) & 15;
    let mut out = vec![scale];
    out.extend((0..16).map(|j| element(j) | element(j + 16) << 4));
    out
}

#[test]
fn gguf_holds_the_same_weights() {
    for name in ["nano", "tiny"] {
        let hf = Checkpoint::open(&data(name)).unwrap();
        let gguf = Checkpoint::open(&data(name).join("model.gguf")).unwrap();
        assert_eq!((gguf.layout(), gguf.folder()), (Layout::Gguf, None));
        let config = Config::from_checkpoint(&gguf).unwrap();
        assert_eq!(
            Config { dialect: Config::from_checkpoint(&hf).unwrap().dialect, ..config.clone() },
            Config::from_checkpoint(&hf).unwrap()
        );
        assert_eq!(*get(&gguf, "output.weight").bytes, *get(&hf, "lm_head.weight").bytes);
        assert_eq!(get(&gguf, "output.weight").shape, [config.vocab_size, config.hidden_size]);
        assert_eq!(values(get(&gguf, "output_norm.weight")), values(get(&hf, "model.norm.weight")));
        for layer in 0..config.num_layers {
            let (ours, theirs) = (format!("blk.{layer}."), format!("model.layers.{layer}."));
            let router = get(&gguf, &format!("{ours}ffn_gate_inp.weight"));
            assert_eq!(values(router), values(get(&hf, &format!("{theirs}mlp.router.weight"))));
            let down = get(&gguf, &format!("{ours}ffn_down_exps.weight"));
            assert_eq!(down.shape, [config.num_experts, config.hidden_size, config.intermediate_size]);
            let blocks = get(&hf, &format!("{theirs}mlp.experts.down_proj_blocks"));
            let scales = get(&hf, &format!("{theirs}mlp.experts.down_proj_scales"));
            let packed = blocks.bytes.chunks(16).zip(scales.bytes.iter());
            assert_eq!(*down.bytes, packed.flat_map(|(codes, &scale)| gguf_block(codes, scale)).collect::<Vec<_>>());
        }
        let Metadata::Gguf(metadata) = gguf.metadata() else { panic!("no GGUF metadata") };
        let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
        assert_eq!((tokens.len(), tokens[0]), (config.vocab_size, "Ā"));
        assert_eq!(metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap(), vec![1; config.vocab_size]);
        assert_says(
            &metadata.u64("tokenizer.ggml.model").unwrap_err(),
            &["model.gguf", "tokenizer.ggml.model", "integer", "gpt2"],
        );
    }
}

#[test]
fn a_folder_is_hugging_face_where_both_layouts_are_there_and_original_otherwise() {
    let dir = scratch("layouts_both");
    copy_files(&data("nano/original"), &dir.join("original"));
    assert_eq!(Checkpoint::open(&dir).unwrap().layout(), Layout::Original);
    assert_eq!(Checkpoint::open(&dir).unwrap().folder(), Some(dir.as_path()));
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    assert_eq!(Checkpoint::open(&dir).unwrap().layout(), Layout::Original, "config.json alone has no weights");
    copy_files(&data("nano"), &dir);
    assert_eq!(Checkpoint::open(&dir).unwrap().layout(), Layout::HuggingFace);
}

#[test]
fn shards_with_openai_names_and_an_index_are_one_checkpoint() {
    let whole = Checkpoint::open(&data("nano")).unwrap();
    let dir = scratch("layouts_shards");
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    let specs = whole.tensors().map(|t| TensorSpec { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() });
    let shards = split_into_shards(specs.collect(), 30_000);
    assert!(shards.len() > 2);
    for (index, shard) in shards.iter().enumerate() {
        let mut writer =
            Writer::create(&dir.join(shard_name(index, shards.len())), shard, &[("format", "pt")]).unwrap();
        // Pieces end anywhere.
        let bytes: Vec<u8> = shard.iter().flat_map(|s| get(&whole, &s.name).bytes.to_vec()).collect();
        bytes.chunks(1001).for_each(|piece| writer.write(piece).unwrap());
        writer.finish().unwrap();
    }
    write_index(&dir, &shards).unwrap();
    assert!(dir.join(format!("model-00000-of-{:05}.safetensors", shards.len() - 1)).exists());
    let parts = Checkpoint::open(&dir).unwrap();
    assert_eq!(parts.tensors().count(), whole.tensors().count());
    for tensor in whole.tensors() {
        let part = get(&parts, &tensor.name);
        assert_eq!((part.dtype, &part.shape, &*part.bytes), (tensor.dtype, &tensor.shape, &*tensor.bytes));
    }
    std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap();
    assert_eq!(
        Checkpoint::open(&dir).unwrap().tensors().count(),
        whole.tensors().count(),
        "all shards without an index"
    );
    assert!(std::fs::read_dir(&dir).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().contains("tmp")));
}

#[test]
fn the_cache_of_links_opens() {
    let dir = scratch("layouts_links");
    for file in ["config.json", "model.safetensors"] {
        std::os::unix::fs::symlink(data("nano").join(file), dir.join(file)).unwrap();
    }
    assert!(Checkpoint::open(&dir).unwrap().tensors().count() > 30);
}

#[test]
fn a_writer_refuses_too_few_and_too_many_bytes_and_leaves_nothing_behind() {
    let dir = scratch("layouts_writer");
    let spec = [TensorSpec { name: "a".into(), dtype: DType::F32, shape: vec![2] }];
    let mut writer = Writer::create(&dir.join("x.safetensors"), &spec, &[]).unwrap();
    writer.write(&[0; 7]).unwrap();
    assert_says(&writer.finish().unwrap_err(), &["x.safetensors", "1 fewer"]);
    let mut writer = Writer::create(&dir.join("x.safetensors"), &spec, &[]).unwrap();
    assert_says(&writer.write(&[0; 10]).unwrap_err(), &["x.safetensors", "2 more"]);
    drop(writer);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    let packed = [TensorSpec { name: "a".into(), dtype: DType::Mxfp4, shape: vec![32] }];
    assert_says(&Writer::create(&dir.join("x"), &packed, &[]).unwrap_err(), &["tensor a", "MXFP4"]);
}

#[test]
fn unused_tensors_are_named() {
    let checkpoint = Checkpoint::open(&data("nano")).unwrap();
    let mut names: HashSet<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
    checkpoint.check_unused(&names).unwrap();
    names.remove("lm_head.weight");
    assert_says(
        &checkpoint.check_unused(&names).unwrap_err(),
        &["model.safetensors", "tensor lm_head.weight", "BF16", "[128, 32]"],
    );
    let scales = get(&checkpoint, "model.layers.0.mlp.experts.down_proj_scales");
    let error = ossia_model::checkpoint::Error::nan_scale(scales, 17);
    assert_says(&error, &["model.safetensors", "down_proj_scales", "255", "scale 17"]);
}

#[test]
fn parts_in_memory_must_fit_their_shapes() {
    let file: std::sync::Arc<std::path::Path> = std::path::Path::new("memory").into();
    let tensor = |name: &str, n: usize| RawTensor {
        name: name.into(),
        dtype: DType::U8,
        shape: vec![3],
        bytes: ossia_kernels::Bytes::new(vec![0; n]),
        file: file.clone(),
    };
    let open = |tensors| {
        let metadata = Metadata::Json { value: serde_json::json!({}), file: "memory".into() };
        Checkpoint::from_parts("memory".into(), metadata, tensors)
    };
    assert_eq!(open(vec![tensor("b", 3), tensor("a", 3)]).unwrap().get("a").unwrap().name, "a");
    assert_says(&open(vec![tensor("a", 4)]).unwrap_err(), &["memory", "tensor a", "[3]", "4 bytes"]);
    assert_says(&open(vec![tensor("a", 3), tensor("a", 3)]).unwrap_err(), &["memory", "tensor a", "once"]);
}
