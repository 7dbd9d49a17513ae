//! Unit vectors of the published implementation: MXFP4 values in both byte orders, RoPE tables of the real models.

mod common;

use ossia_kernels::ops::rope::{Rope, rotate};
use ossia_kernels::quantize_mxfp4::{fake_quantize, quantize_group, to_blocks, to_planes};
use ossia_kernels::{Bytes, DType, Matrix};
use ossia_model::gpt_oss::config::Config;
use safetensors::SafeTensors;

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn bytes(file: &SafeTensors, name: &str) -> Bytes {
    Bytes::new(file.tensor(name).unwrap().data().to_vec())
}

#[test]
fn mxfp4_values_are_exact_in_both_byte_orders() {
    let data = std::fs::read(common::data("mxfp4_vectors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    for rule in ["up", "down"] {
        let want = floats(&file, &format!("dequant_{rule}"));
        let rows = want.len() / 32;
        let scales = bytes(&file, &format!("scales_{rule}"));
        let hf = Matrix::mxfp4(rows, 32, bytes(&file, &format!("hf_blocks_{rule}")), scales).unwrap();
        let gguf = Matrix::new(DType::Mxfp4, rows, 32, bytes(&file, &format!("gguf_block_{rule}"))).unwrap();
        for row in 0..rows {
            assert_eq!(hf.group(row, 0), want[row * 32..][..32], "{rule} {row}");
            assert_eq!(gguf.group(row, 0), want[row * 32..][..32], "{rule} {row}");
        }
    }
}

#[test]
fn mxfp4_bytes_are_those_of_the_published_kernels() {
    let data = std::fs::read(common::data("mxfp4_vectors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let x: Vec<f32> = match file.tensor("x").unwrap().dtype() {
        safetensors::Dtype::F32 => floats(&file, "x"),
        other => panic!("{other:?}"),
    };
    let (codes, scales) = (bytes(&file, "codes_up"), bytes(&file, "scales_up"));
    for (row, group) in x.as_chunks::<32>().0.iter().enumerate() {
        let (scale, found) = quantize_group(group);
        assert_eq!((scale, &found[..]), (scales[row], &codes[row * 32..][..32]), "{row}");
    }
    let (mut blocks, mut planes) = (vec![0; x.len() / 2], vec![0; x.len() / 32]);
    to_planes(&x, &mut blocks, &mut planes);
    assert_eq!((&blocks[..], &planes[..]), (&*bytes(&file, "hf_blocks_up"), &*scales));
    let mut gguf = vec![0; x.len() / 32 * 17];
    to_blocks(&x, &mut gguf);
    assert_eq!(gguf, *bytes(&file, "gguf_block_up"));
    let mut fake = x;
    fake_quantize(&mut fake);
    assert_eq!(fake, floats(&file, "dequant_up"));
}

#[test]
fn rope_tables_equal_the_references() {
    let data = std::fs::read(common::data("rope_vectors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let config = Config::preset("20b", None).unwrap();
    let rope = Rope::new(config.rope.theta, config.rope.factor, config.rope.ramp(64), 64);
    for (got, want) in rope.inv_freq.iter().zip(floats(&file, "inv_freq_f32")) {
        assert!((got - want).abs() <= 2e-7 * want, "{got} {want}");
    }
    let positions = file.tensor("positions").unwrap().data().as_chunks().0.to_vec();
    let (cos, sin) = (floats(&file, "cos"), floats(&file, "sin"));
    for (i, position) in positions.into_iter().map(u32::from_le_bytes).enumerate() {
        // A head of (1, 0) turns into (cos, sin).
        let mut head: Vec<f32> = (0..64).map(|c| if c < 32 { 1.0 } else { 0.0 }).collect();
        rotate(&mut head, &rope, position as usize, 64);
        for c in 0..32 {
            // A frequency may be off by 2e-7 (above) and the product by its rounding; both grow with the angle.
            let angle = position as f32 * rope.inv_freq[c];
            let tolerance = 4e-7 + rope.concentration * (2e-7 + f32::EPSILON) * angle;
            assert!((head[c] - cos[32 * i + c]).abs() <= tolerance, "{position} cos {c}");
            assert!((head[c + 32] - sin[32 * i + c]).abs() <= tolerance, "{position} sin {c}");
        }
    }
}
