//! A safetensors file taken apart, changed and put together again, right or wrong.

use std::path::Path;

use serde_json::{Map, Value, json};

/// A tensor: all that a header says of it but its place, and its bytes.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// A file's tensors, in the order in which they lie.
#[derive(Clone)]
pub struct Safetensors(pub Vec<Tensor>);

impl Safetensors {
    pub fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap();
        let (length, rest) = bytes.split_first_chunk().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        let numbers = |value: &Value| value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect::<Vec<_>>();
        let tensor = |(name, entry): (&String, &Value)| {
            let range = numbers(&entry["data_offsets"]);
            Tensor {
                name: name.clone(),
                dtype: entry["dtype"].as_str().unwrap().to_owned(),
                shape: numbers(&entry["shape"]),
                bytes: data[range[0] as usize..range[1] as usize].to_vec(),
            }
        };
        Self(header.iter().filter(|(name, _)| *name != "__metadata__").map(tensor).collect())
    }

    pub fn write(&self, file: &Path) {
        self.write_with(file, |_| ());
    }

    /// Writes the file, its header changed by `edit`.
    pub fn write_with(&self, file: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for tensor in &self.0 {
            let range = [data.len(), data.len() + tensor.bytes.len()];
            let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": range });
            header.insert(tensor.name.clone(), entry);
            data.extend(&tensor.bytes);
        }
        edit(&mut header);
        let header = Value::from(header).to_string();
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(file, [&length, header.as_bytes(), &data].concat()).unwrap();
    }

    pub fn get(&mut self, name: &str) -> &mut Tensor {
        self.0.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn remove(&mut self, name: &str) -> Tensor {
        let at = self.0.iter().position(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"));
        self.0.remove(at)
    }
}

impl Tensor {
    /// Another shape and format, with zeros for bytes.
    pub fn reform(&mut self, dtype: &str, shape: &[u64]) {
        let size = match dtype {
            "F32" | "I32" => 4,
            "BF16" | "F16" => 2,
            _ => 1,
        };
        self.dtype = dtype.to_owned();
        self.shape = shape.to_vec();
        self.bytes = vec![0; size * shape.iter().product::<u64>() as usize];
    }

    /// Another first dimension, with zeros for bytes.
    pub fn regrow(&mut self, first: u64) {
        let shape: Vec<u64> = std::iter::once(first).chain(self.shape[1..].iter().copied()).collect();
        self.reform(&self.dtype.clone(), &shape);
    }

    /// Element `at` of BF16 numbers becomes `value`.
    pub fn set_bf16(&mut self, at: usize, value: f32) {
        assert_eq!(self.dtype, "BF16");
        self.bytes[2 * at..2 * at + 2].copy_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
    }
}
