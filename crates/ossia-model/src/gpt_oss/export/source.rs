//! The parts of a model out of a checkpoint of any layout, one at a time: matrices stay where the file has them, and
//! only a dequantized safetensors expert, which lies transposed, is copied, by itself.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use ossia_kernels::{Bytes, DType, Matrix};

use super::items::{Item, Linear, Which};
use crate::checkpoint::{Checkpoint, Error, Layout, RawTensor, Result};
use crate::gpt_oss::config::Config;
use crate::gpt_oss::tensors::names::Names;
use crate::gpt_oss::tensors::{floats, transpose};

/// Finds tensors and remembers which.
pub(super) struct Source<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    used: RefCell<HashSet<&'a str>>,
}

/// How a tensor holds rows.
enum Form<'a> {
    /// One after the other.
    Rows,
    /// The same, as codes with these scales apart.
    Packed(&'a RawTensor),
    /// As columns: [K, N] for each expert.
    Columns,
}

/// Rows of a tensor.
struct Place<'a> {
    tensor: &'a RawTensor,
    form: Form<'a>,
    /// Rows of the whole tensor, and those that are meant.
    height: usize,
    range: Range<usize>,
}

/// A matrix that has not been read yet.
pub(super) struct Stored<'a> {
    /// One; or gate and up, whose rows alternate.
    places: Vec<Place<'a>>,
    cols: usize,
    /// Only every other row, from this one on.
    half: Option<usize>,
}

/// A matrix that is ready.
pub(super) struct Rows<'a> {
    /// Row r is row r / n of part r % n.
    parts: Vec<(Matrix, &'a RawTensor)>,
}

impl<'a> Rows<'a> {
    /// N.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|(matrix, _)| matrix.rows()).sum()
    }

    /// K / 32.
    pub fn groups(&self) -> usize {
        self.parts[0].0.groups()
    }

    /// The matrix that holds row `row`, the row's number in it, and the tensor that it came from.
    pub fn at(&self, row: usize) -> (&Matrix, usize, &'a RawTensor) {
        let n = self.parts.len();
        let (matrix, tensor) = &self.parts[row % n];
        (matrix, row / n, tensor)
    }
}

impl<'a> Stored<'a> {
    /// The matrix; a copy where it lies transposed.
    pub fn read(&self) -> Result<Rows<'a>> {
        let one = |place: &Place<'a>| {
            let matrix = place.read(self.cols).map_err(|e| broken(place.tensor, &e))?;
            Ok((self.half.map_or_else(|| matrix.clone(), |first| matrix.every_other(first)), place.tensor))
        };
        Ok(Rows { parts: self.places.iter().map(one).collect::<Result<_>>()? })
    }
}

impl Place<'_> {
    fn read(&self, cols: usize) -> ossia_kernels::Result<Matrix> {
        let (bytes, dtype) = (&self.tensor.bytes, self.tensor.dtype);
        match self.form {
            Form::Rows => Ok(Matrix::new(dtype, self.height, cols, bytes.clone())?.rows_of(self.range.clone())),
            Form::Packed(scales) => {
                let all = Matrix::mxfp4(self.height, cols, bytes.clone(), scales.bytes.clone())?;
                Ok(all.rows_of(self.range.clone()))
            }
            Form::Columns => {
                let (rows, size) = (self.range.len(), dtype.block().1);
                let own = &bytes[self.range.start * cols * size..self.range.end * cols * size];
                Matrix::new(dtype, rows, cols, Bytes::new(transpose(own, cols, rows, size)))
            }
        }
    }
}

impl<'a> Source<'a> {
    /// Over `checkpoint`, whose config `config` is.
    pub fn new(checkpoint: &'a Checkpoint, config: &'a Config) -> Self {
        Self { checkpoint, config, used: RefCell::default() }
    }

    /// Fails where one of `items`, which are all of the model, is missing or misshapen, where a vector holds numbers
    /// that are not finite, and where the checkpoint has more than these. Reads no matrices.
    pub fn check(&self, items: &[Item]) -> Result<()> {
        for &item in items {
            match item {
                Item::Experts(layer, which) => drop(self.experts(layer, which)?),
                Item::Embedding | Item::Unembedding | Item::Weight(..) => drop(self.matrix(item)?),
                _ => drop(self.vector(item)?),
            }
        }
        self.checkpoint.check_unused(&self.used.borrow())
    }

    fn layout(&self) -> Layout {
        self.checkpoint.layout()
    }

    fn find(&self, name: &str) -> Option<&'a RawTensor> {
        let tensor = self.checkpoint.get(name)?;
        self.used.borrow_mut().insert(&tensor.name);
        Some(tensor)
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<&'a RawTensor> {
        let missing = || Error::missing_tensor(self.checkpoint.source(), name, format!("one of shape {shape:?}"));
        let tensor = self.find(name).ok_or_else(missing)?;
        if tensor.shape == shape { Ok(tensor) } else { Err(Error::wrong_shape(tensor, shape)) }
    }

    /// The names of a linear layer, and the first row and all rows of the matrix that holds it.
    fn linear(&self, layer: usize, linear: Linear) -> (String, usize, usize) {
        let layout = self.layout();
        let name = |stem: &str| Names::of_layout(layout).in_block(layer, stem);
        let has = |stem: &str| self.checkpoint.get(&format!("{stem}.weight")).is_some();
        let own = name(linear.stem(layout));
        let rows = linear.shape(self.config)[0];
        if let Some((stem, first)) = linear.fused(layout, self.config) {
            // Where neither form is there, the layout's own is what is missing.
            if has(&name(stem)) || layout == Layout::Original && !has(&own) {
                return (name(stem), first, self.config.query_size() + 2 * self.config.kv_size());
            }
        }
        let nested = format!("{own}.linear");
        if linear == Linear::Router && has(&nested) { (nested, 0, rows) } else { (own, 0, rows) }
    }

    /// The matrix of a linear layer, the embedding or the unembedding.
    pub fn matrix(&self, item: Item) -> Result<Stored<'a>> {
        let shape = item.shape(self.config);
        let (rows, cols) = (shape[0], shape[1]);
        let (name, first, height) = match item {
            Item::Weight(layer, linear) => {
                let (stem, first, height) = self.linear(layer, linear);
                (format!("{stem}.weight"), first, height)
            }
            _ => (item.name(self.layout()), 0, rows),
        };
        let tensor = self.get(&name, &[height, cols])?;
        check_weights(tensor)?;
        let place = Place { tensor, form: Form::Rows, height, range: first..first + rows };
        Ok(Stored { places: vec![place], cols, half: None })
    }

    /// Whether BF16 holds every number of `item`; of matrices it is their type that says so.
    pub fn is_bf16(&self, item: Item) -> Result<bool> {
        let is_held = |stored: &Stored| {
            stored.places.iter().all(|place| matches!(place.tensor.dtype, DType::BF16 | DType::Mxfp4 | DType::U8))
        };
        Ok(match item {
            Item::Experts(layer, which) => self.experts(layer, which)?.iter().all(is_held),
            Item::Embedding | Item::Unembedding | Item::Weight(..) => is_held(&self.matrix(item)?),
            _ => self.vector(item)?.iter().all(|&v| half::bf16::from_f32(v).to_f32() == v),
        })
    }

    /// A norm, a bias, sinks, or the biases [E, N] of all experts.
    pub fn vector(&self, item: Item) -> Result<Vec<f32>> {
        match item {
            Item::Bias(layer, linear) => {
                let (stem, first, height) = self.linear(layer, linear);
                let all = floats(self.get(&format!("{stem}.bias"), &[height])?)?;
                Ok(all[first..first + linear.shape(self.config)[0]].to_vec())
            }
            Item::ExpertBiases(layer, which) => self.expert_biases(layer, which),
            _ => floats(self.get(&item.name(self.layout()), &item.shape(self.config))?),
        }
    }

    fn expert_biases(&self, layer: usize, which: Which) -> Result<Vec<f32>> {
        let layout = self.layout();
        let read = |which| {
            let item = Item::ExpertBiases(layer, which);
            floats(self.get(&item.name(layout), &item.shape(self.config))?)
        };
        if layout == Layout::Gguf {
            if which != Which::GateUp {
                return read(which);
            }
            let pairs = read(Which::Gate)?.into_iter().zip(read(Which::Up)?);
            return Ok(pairs.flat_map(|(gate, up)| [gate, up]).collect());
        }
        let all = match self.single(layer, which, 0) {
            None => read(whole(which))?,
            Some(_) => {
                let rows = whole(which).shape(self.config)[0];
                let stem = Names::of_layout(layout).in_block(layer, which.stem(layout));
                let one = |e: usize| floats(self.get(&format!("{stem}s.{e}.bias"), &[rows])?);
                (0..self.config.num_experts).map(one).collect::<Result<Vec<_>>>()?.concat()
            }
        };
        Ok(match half(which) {
            None => all,
            Some(first) => all.into_iter().skip(first).step_by(2).collect(),
        })
    }

    /// The name of one expert's own matrix, where the checkpoint has such.
    fn single(&self, layer: usize, which: Which, expert: usize) -> Option<String> {
        let stem = |e: usize| match self.layout() {
            Layout::HuggingFace => Some(
                Names::of_layout(Layout::HuggingFace)
                    .in_block(layer, &format!("{}s.{e}.weight", which.stem(Layout::HuggingFace))),
            ),
            Layout::Original | Layout::Gguf => None,
        };
        self.checkpoint.get(&stem(0)?)?;
        stem(expert)
    }

    /// One matrix [N, K] for each expert.
    pub fn experts(&self, layer: usize, which: Which) -> Result<Vec<Stored<'a>>> {
        let e = self.config.num_experts;
        if self.layout() == Layout::Gguf {
            let [_, cols] = which.shape(self.config);
            let tensors: &[Which] = if which == Which::GateUp { &[Which::Gate, Which::Up] } else { &[which] };
            let tensors = tensors.iter().map(|&w| self.gguf_experts(layer, w)).collect::<Result<Vec<_>>>()?;
            let rows = tensors[0].shape[1];
            let place = |e: usize, tensor| Place {
                tensor,
                form: Form::Rows,
                height: self.config.num_experts * rows,
                range: e * rows..(e + 1) * rows,
            };
            let expert = |e| Stored { places: tensors.iter().map(|&t| place(e, t)).collect(), cols, half: None };
            return Ok((0..e).map(expert).collect());
        }
        let [_, cols] = whole(which).shape(self.config);
        let one = |place| Stored { places: vec![place], cols, half: half(which) };
        Ok(self.safetensors_experts(layer, which)?.into_iter().map(one).collect())
    }

    fn gguf_experts(&self, layer: usize, which: Which) -> Result<&'a RawTensor> {
        let item = Item::Experts(layer, which);
        let tensor = self.get(&item.name(Layout::Gguf), &item.shape(self.config))?;
        check_weights(tensor).map(|()| tensor)
    }

    /// The whole matrices, gate and up in one.
    fn safetensors_experts(&self, layer: usize, which: Which) -> Result<Vec<Place<'a>>> {
        let (e, [rows, cols]) = (self.config.num_experts, whole(which).shape(self.config));
        if self.single(layer, which, 0).is_some() {
            let one = |e| {
                let tensor = self.get(&self.single(layer, which, e).unwrap_or_default(), &[rows, cols])?;
                check_weights(tensor)?;
                Ok(Place { tensor, form: Form::Rows, height: rows, range: 0..rows })
            };
            return (0..e).map(one).collect();
        }
        let (packed, scales) = match self.layout() {
            Layout::Original => (".blocks", ".scales"),
            _ => ("_blocks", "_scales"),
        };
        let bare = Item::Experts(layer, which).name(self.layout());
        let packed = format!("{bare}{packed}");
        let Some(tensor) = self.find(&packed).or_else(|| self.find(&bare)) else {
            return Err(Error::missing_tensor(self.checkpoint.source(), &packed, "the experts' weights"));
        };
        // Some writers store dequantized experts under the names of packed ones: rank and type tell them apart.
        let is_packed = tensor.dtype == DType::U8 && tensor.shape == [e, rows, cols / 32, 16];
        let is_float = matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16) && tensor.shape == [e, cols, rows];
        if !is_packed && !is_float {
            let wanted = format!("U8 blocks {:?} or floats {:?}", [e, rows, cols / 32, 16], [e, cols, rows]);
            return Err(Error::wrong_dtype(tensor, &wanted));
        }
        let scales =
            if is_packed { Some(self.scales(&format!("{bare}{scales}"), &[e, rows, cols / 32])?) } else { None };
        let form = || scales.map_or(Form::Columns, Form::Packed);
        let one = |i: usize| Place { tensor, form: form(), height: e * rows, range: i * rows..(i + 1) * rows };
        Ok((0..e).map(one).collect())
    }

    fn scales(&self, name: &str, shape: &[usize]) -> Result<&'a RawTensor> {
        let tensor = self.get(name, shape)?;
        if tensor.dtype == DType::U8 { Ok(tensor) } else { Err(Error::wrong_dtype(tensor, "U8")) }
    }
}

/// The matrix that safetensors have this one in.
fn whole(which: Which) -> Which {
    if which == Which::Down { Which::Down } else { Which::GateUp }
}

/// The first of every other row of [`whole`], where not all rows are meant.
fn half(which: Which) -> Option<usize> {
    match which {
        Which::GateUp | Which::Down => None,
        Which::Gate => Some(0),
        Which::Up => Some(1),
    }
}

fn check_weights(tensor: &RawTensor) -> Result<()> {
    match tensor.dtype {
        DType::U8 | DType::I32 => Err(Error::wrong_dtype(tensor, "F32, F16, BF16, Q8_0 or MXFP4")),
        _ => Ok(()),
    }
}

fn broken(tensor: &RawTensor, error: &ossia_kernels::Error) -> Error {
    Error::tensor(&tensor.file, &tensor.name, "a readable matrix", error.to_string())
}

/// The tensor holds a number that cannot be written, at `place`.
pub(super) fn not_finite(tensor: &RawTensor, place: &str) -> Error {
    Error::tensor(
        &tensor.file,
        &tensor.name,
        "numbers that are finite where they go",
        format!("one that is not, {place}"),
    )
}
