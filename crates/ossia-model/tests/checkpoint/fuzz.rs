//! Random wrong files: 200,000 of each kind, from a seed, on a small stack. Nothing may panic, and whatever is accepted
//! must keep its promises. A failure prints the number that makes it again.

use std::hint::black_box;
use std::path::Path;

use ossia_kernels::Bytes;
use ossia_model::checkpoint::{Checkpoint, Metadata, RawTensor, gguf, safetensors};
use ossia_model::gpt_oss::config::Config;
use serde_json::{Value, json};

use super::support::{Gguf, array, data, safetensors as safetensors_file, string};

const INPUTS: u64 = 200_000;
const STACK: usize = 256 << 10;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A number where bugs live.
    fn number(&mut self) -> u64 {
        let edges = [
            0,
            1,
            2,
            3,
            4,
            8,
            31,
            32,
            33,
            127,
            128,
            255,
            256,
            65_535,
            65_536,
            1 << 31,
            (1 << 32) - 1,
            1 << 32,
            1 << 53,
            1 << 61,
            1 << 62,
            1 << 63,
        ];
        let edge = edges[self.below(edges.len())];
        match self.below(5) {
            0 => self.next(),
            1 => u64::MAX - edge,
            2 => edge.wrapping_sub(1),
            _ => edge,
        }
    }

    /// Changes bytes without knowing what they mean.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => return,
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next() as u8),
                4 => drop(bytes.drain(at..(at + 1 + self.below(16)).min(bytes.len()))),
                _ => {
                    let number = self.number().to_le_bytes();
                    bytes.iter_mut().skip(at).zip(number).for_each(|(b, n)| *b = n);
                }
            }
        }
    }

    /// Any small JSON value.
    fn json(&mut self) -> Value {
        match self.below(10) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!("yarn"),
            3 => json!([self.number(), 1]),
            4 => json!({"a": self.number()}),
            5 => json!(-(self.number() as i64).unsigned_abs().min(1 << 62).cast_signed()),
            6 => json!(f64::from_bits(self.next())),
            7 => json!(self.number() as f64 * 0.25),
            _ => json!(self.number()),
        }
    }

    /// Replaces, removes or doubles something inside `value`.
    fn mutate(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) if !map.is_empty() && self.below(8) > 0 => {
                let key = map.keys().nth(self.below(map.len())).unwrap().clone();
                match self.below(8) {
                    0 => drop(map.remove(&key)),
                    1 => drop(map.insert(format!("{key}{}", self.below(3)), self.json())),
                    _ => self.mutate(&mut map[&key]),
                }
            }
            Value::Array(list) if !list.is_empty() && self.below(8) > 0 => match self.below(6) {
                0 => list.push(self.json()),
                1 => drop(list.pop()),
                _ => {
                    let at = self.below(list.len());
                    self.mutate(&mut list[at]);
                }
            },
            _ => *value = self.json(),
        }
    }
}

/// Runs `one` on every number from 0 to [`INPUTS`] and says which one panicked; returns how many gave `true`.
fn run(one: fn(&mut Rng) -> bool) -> u64 {
    let work = move || {
        let attempt = |n| std::panic::catch_unwind(|| one(&mut Rng(n))).unwrap_or_else(|_| panic!("input number {n}"));
        (0..INPUTS).filter(|&n| attempt(n)).count() as u64
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().expect("no panic")
}

/// What every accepted file promises.
fn check_tensors(tensors: &[RawTensor], whole: usize) {
    let mut sum = 0;
    for tensor in tensors {
        let elements = tensor.shape.iter().product();
        assert_eq!(tensor.dtype.size_of(elements), Some(tensor.bytes.len()));
        black_box((tensor.bytes.first(), tensor.bytes.last()));
        sum += tensor.bytes.len();
    }
    assert!(sum <= whole, "tensors overlap");
}

fn safetensors_input(rng: &mut Rng) -> Vec<u8> {
    let mut header = json!({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "U8", "shape": [3], "data_offsets": [16, 19]},
        "c": {"dtype": "F32", "shape": [], "data_offsets": [19, 23]},
        "d": {"dtype": "I32", "shape": [0, 7], "data_offsets": [23, 23]},
    });
    let mut length = 23;
    for _ in 0..rng.below(3) {
        rng.mutate(&mut header);
    }
    let mut text = header.to_string().into_bytes();
    match rng.below(6) {
        0 => rng.damage(&mut text),
        1 => length = rng.below(40),
        _ => (),
    }
    let mut file = safetensors_file(&String::from_utf8_lossy(&text), &vec![7; length]);
    if rng.below(8) == 0 {
        rng.damage(&mut file);
    }
    file
}

fn safetensors_one(rng: &mut Rng) -> bool {
    let file = Bytes::new(safetensors_input(rng));
    let tensors = safetensors::parse(&file, Path::new("x"), &mut safetensors::Budget::default());
    if let Ok(tensors) = &tensors {
        check_tensors(tensors, file.len());
    }
    tensors.is_ok()
}

#[test]
fn safetensors_headers() {
    let accepted = run(safetensors_one);
    assert!((INPUTS / 20..INPUTS / 2).contains(&accepted), "{accepted} accepted: the mutator is too tame or too wild");
}

/// Changes one part of a GGUF file.
fn mutate_gguf(file: &mut Gguf, rng: &mut Rng) {
    let (key, tensor) = (rng.below(file.keys.len()), rng.below(file.tensors.len()));
    match rng.below(14) {
        0 => file.num_keys = Some(rng.number()),
        1 => file.num_tensors = Some(rng.number()),
        2 => file.version = rng.number() as u32,
        3 => file.keys[key].1 = rng.number() as u32 % 16,
        4 => file.keys[key].2 = rng.number().to_le_bytes()[..rng.below(9)].to_vec(),
        5 => file.keys[key].2 = u32::to_le_bytes(rng.number() as u32).to_vec(),
        6 => rng.damage(&mut file.keys[key].2),
        7 => {
            let elements = (0..rng.below(4)).flat_map(|_| string("zz")).collect::<Vec<_>>();
            file.keys[key] = (file.keys[key].0.clone(), 9, array(rng.below(14) as u32, rng.number(), &elements));
        }
        8 => file.tensors[tensor].1 = (0..rng.below(6)).map(|_| rng.number()).collect(),
        9 => file.tensors[tensor].2 = rng.number() as u32 % 48,
        10 => file.tensors[tensor].3 = rng.number() / 32 * 32,
        11 => file.data.truncate(rng.below(200)),
        12 => file.keys.push(("general.alignment".into(), 4, u32::to_le_bytes(rng.number() as u32).to_vec())),
        _ => drop(file.keys.remove(key)),
    }
}

fn gguf_one(rng: &mut Rng) -> bool {
    let mut file = Gguf::small();
    for _ in 0..rng.below(3) {
        mutate_gguf(&mut file, rng);
    }
    let mut bytes = file.bytes();
    if rng.below(4) == 0 {
        rng.damage(&mut bytes);
    }
    let bytes = Bytes::new(bytes);
    let Ok((metadata, tensors)) = gguf::parse(&bytes, Path::new("x")) else { return false };
    check_tensors(&tensors, bytes.len());
    for (key, value) in metadata.iter() {
        black_box(
            (metadata.u64(key), metadata.f64(key), metadata.bool(key), metadata.str(key), value.to_string()).3.is_ok(),
        );
        black_box((metadata.strings(key), metadata.integers(key), metadata.bools(key)).0.is_ok());
    }
    let checkpoint = Checkpoint::from_parts("x".into(), Metadata::Gguf(metadata), tensors);
    checkpoint.is_ok_and(|c| Config::from_checkpoint(&c).is_ok())
}

#[test]
fn gguf_files() {
    let accepted = run(gguf_one);
    assert!(
        (INPUTS / 20..INPUTS * 2 / 3).contains(&accepted),
        "{accepted} accepted: the mutator is too tame or too wild"
    );
}

fn config_one(rng: &mut Rng) -> bool {
    thread_local! {
        static BASES: [Value; 2] = ["nano/config.json", "nano/original/config.json"]
            .map(|name| serde_json::from_slice(&std::fs::read(data(name)).unwrap()).unwrap());
    }
    let mut value = BASES.with(|bases| bases[rng.below(2)].clone());
    for _ in 0..rng.below(4) {
        rng.mutate(&mut value);
    }
    let mut text = value.to_string().into_bytes();
    if rng.below(8) == 0 {
        rng.damage(&mut text);
    }
    let Ok(value) = serde_json::from_slice::<Value>(&text) else { return false };
    let Ok(config) = Config::from_json(&value, Path::new("x")) else { return false };
    // What follows must hold for whatever was accepted.
    let again = Config::from_json(&config.to_hf_json(), Path::new("x")).unwrap();
    assert_eq!(Config { dialect: config.dialect, ..again }, config);
    assert!(config.param_counts().total > 0 && config.rope.ramp(config.head_dim).0.is_finite());
    true
}

#[test]
fn config_json() {
    let accepted = run(config_one);
    assert!(
        (INPUTS / 20..INPUTS * 2 / 3).contains(&accepted),
        "{accepted} accepted: the mutator is too tame or too wild"
    );
}
