//! Weights of other frameworks -> our names and layout.
//!
//! - SphereFace from the authors' Caffe models, by the order of the layers and not by their names: the "64"
//!   they released has 62 convolutions.
//! - SphereFace from PyTorch checkpoints with the authors' layer names (`conv1_1.weight`,
//!   `relu1_1.weight`, ..., `fc5.weight`); a classifier (`fc6`) is left out.
//! - MTCNN from its authors' Caffe models and from the PyTorch port that flattens (W, H, C):
//!   both give the same values, bit for bit.
//! - Embedding networks of other kinds (ArcFace, AdaFace, MobileFaceNet, SFace, ...) from ONNX
//!   and ESP-DL files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::caffe::{self, Layer};
use super::foreign::{self, PictureOptions};
use super::{FORMAT, Stored, Tensor, Weights, WeightsError, torch};
use crate::models::arch::{Architecture, DEPTHS};
use crate::models::plan::{PLANNED, Plan};

/// The network that a set of weights belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The three networks of the detector.
    Mtcnn,
    /// An embedding network.
    SphereFace(Architecture),
    /// An embedding network of another kind.
    Imported(Plan),
}

impl Network {
    /// The network that the metadata of a model file names.
    ///
    /// # Errors
    /// When it does not describe one of our networks.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, WeightsError> {
        if metadata.get("architecture").is_some_and(|name| name == "mtcnn") {
            return Ok(Self::Mtcnn);
        }
        if let Some(plan) = Plan::from_metadata(metadata) {
            return plan.map(Self::Imported).map_err(|error| WeightsError::Unsupported(error.to_string()));
        }
        let network = Architecture::from_metadata(metadata);
        network.map(Self::SphereFace).map_err(|error| WeightsError::Unsupported(error.to_string()))
    }

    /// Its name in metadata: `mtcnn`, `sphereface20`, ...
    pub fn name(&self) -> String {
        match self {
            Network::Mtcnn => "mtcnn".into(),
            Network::Imported(_) => PLANNED.into(),
            // Channels have their own key.
            Network::SphereFace(network) => {
                let name = network.to_string();
                name.split('-').next().unwrap_or_default().to_owned()
            }
        }
    }

    /// Every tensor it needs, with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Network::Mtcnn => mtcnn_tensors(),
            Network::SphereFace(network) => network.tensors(),
            Network::Imported(plan) => plan.tensors(),
        }
    }
}

/// Reads weights of another framework, or our own, and checks that every tensor fits.
///
/// The metadata says which network they are and in which order of channels it takes pixels:
/// Caffe models of SphereFace BGR, everything else RGB.
///
/// # Errors
/// Names the file and, where shapes do not fit, the first layer that is wrong.
pub fn import(sources: &[PathBuf]) -> Result<Weights, WeightsError> {
    import_as(sources, &PictureOptions::default())
}

/// The same, with properties of the network's input that the file may not state.
///
/// # Errors
/// As [`import`], and when those properties do not fit the network.
pub fn import_as(sources: &[PathBuf], pictures: &PictureOptions) -> Result<Weights, WeightsError> {
    let mut weights = Weights::default();
    for path in sources {
        let origin = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|source| WeightsError::Read { path: origin.clone(), source })?;
        let part = import_bytes(&bytes, path.parent(), pictures).map_err(|error| error.in_file(&origin))?;
        for (name, tensor) in part.tensors {
            if weights.tensors.insert(name.clone(), tensor).is_some() {
                let twice =
                    format!("tensor {name} is also in another of the files given: give each network once");
                return Err(WeightsError::Unsupported(twice).in_file(origin));
            }
        }
        weights.metadata.extend(part.metadata);
    }
    let complete = Network::from_metadata(&weights.metadata)
        .and_then(|network| weights.expect(&network.tensors()))
        .and_then(|()| weights.check_finite(super::Precision::F32));
    complete.map_err(|error| {
        let names: Vec<_> = sources.iter().map(|path| path.display().to_string()).collect();
        error.in_file(names.join(", "))
    })?;
    Ok(weights)
}

/// Reads a file of any format; `folder` is its folder.
pub(super) fn import_bytes(
    bytes: &[u8],
    folder: Option<&Path>,
    pictures: &PictureOptions,
) -> Result<Weights, WeightsError> {
    if is_safetensors(bytes) {
        let weights = Stored::new(bytes)?.weights()?;
        return match weights.metadata.get("format") {
            Some(format) if format == FORMAT => Ok(weights),
            _ => from_names(weights.tensors.into_iter().collect()),
        };
    }
    if torch::is_checkpoint(bytes) {
        return from_names(torch::read(bytes)?);
    }
    if caffe::is_model(bytes) {
        return from_caffe(caffe::read(bytes)?);
    }
    if foreign::espdl::is_model(bytes) {
        return foreign::translate(&foreign::espdl::read(bytes)?, pictures);
    }
    if foreign::onnx::is_model(bytes) {
        return foreign::translate(&foreign::onnx::read(bytes, folder)?, pictures);
    }
    Err(WeightsError::Unsupported(
        "this is not a Caffe model, ONNX model, ESP-DL file, PyTorch checkpoint or safetensors file, or it is damaged: download it again"
            .into(),
    ))
}

/// A length, then a JSON object of that length.
fn is_safetensors(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    bytes.get(8) == Some(&b'{') && length.is_some_and(|length| length < bytes.len() as u64)
}

/// The format of a file that is not safetensors, if its first bytes show it.
pub(super) fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        _ if is_safetensors(bytes) => None,
        _ if torch::is_checkpoint(bytes) => Some("PyTorch checkpoint"),
        _ if caffe::is_model(bytes) => Some("Caffe model"),
        _ if foreign::espdl::is_model(bytes) => Some("ESP-DL file"),
        _ if foreign::onnx::is_model(bytes) => Some("ONNX model"),
        _ => None,
    }
}

/// Refuses sizes far above any real network, which only damaged files have, before anything is
/// computed from them.
fn plausible(network: &Architecture) -> Result<(), WeightsError> {
    let Architecture { channels, embedding, .. } = network;
    if channels.iter().all(|c| (1..=8192).contains(c)) && (1..=65536).contains(embedding) {
        return Ok(());
    }
    Err(WeightsError::Unsupported(format!(
        "stages of {channels:?} channels and an embedding of {embedding} are not supported: 1 to 8192 and 1 to 65536 are"
    )))
}

fn sphereface(
    network: Architecture,
    order: &str,
    tensors: BTreeMap<String, Tensor>,
) -> Result<Weights, WeightsError> {
    let description = network.to_metadata().ok_or_else(|| {
        WeightsError::Unsupported(format!(
            "{:?} residual units per stage match no network of the paper",
            network.units
        ))
    })?;
    let mut metadata = BTreeMap::from(description);
    metadata.insert("format".into(), FORMAT.into());
    metadata.insert("channel_order".into(), order.into());
    Ok(Weights { tensors, metadata })
}

fn mtcnn(tensors: BTreeMap<String, Tensor>) -> Weights {
    let metadata = [("format", FORMAT), ("architecture", "mtcnn"), ("channel_order", "RGB")];
    Weights { tensors, metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into() }
}

/// Named tensors of a framework that names them.
pub(super) fn from_names(list: Vec<(String, Tensor)>) -> Result<Weights, WeightsError> {
    let tensors: BTreeMap<String, Tensor> = list.into_iter().collect();
    let has = |name: &str| tensors.contains_key(name);
    if has("conv1_1.weight") || has("fc5.weight") {
        return sphereface_from_names(tensors);
    }
    if let Some(net) = NETS.iter().find(|net| has(&format!("{}.weight", net.last_layer))) {
        return mtcnn_from_names(net, tensors);
    }
    let open = ["layer1.0.conv.weight", "layer1.0.conv1.weight", "backbone.layer1.0.conv.weight"];
    if open.iter().any(|name| has(name)) {
        return Err(WeightsError::Unsupported(
            "these are weights of OpenSphere's SFNet (architecture tag 'opensphere'): it uses ReLU and a 7x7 last map and is not compatible with the SphereFace networks computed here"
                .into(),
        ));
    }
    let some: Vec<_> = tensors.keys().take(3).cloned().collect();
    Err(WeightsError::Unsupported(format!(
        "no known network has tensors named {}: SphereFace needs conv1_1.weight, ..., fc5.weight; MTCNN conv1.weight, ...",
        some.join(", ")
    )))
}

fn sphereface_from_names(mut tensors: BTreeMap<String, Tensor>) -> Result<Weights, WeightsError> {
    let mut units = [0; 4];
    let mut channels = [0; 4];
    for (stage, (units, channels)) in units.iter_mut().zip(&mut channels).enumerate() {
        let prefix = format!("conv{}_", stage + 1);
        let convolutions =
            tensors.keys().filter(|name| name.starts_with(&prefix) && name.ends_with(".weight")).count();
        *units = convolutions.saturating_sub(1) / 2;
        *channels = outputs(&tensors, &format!("{prefix}1.weight"))?;
    }
    let embedding = outputs(&tensors, "fc5.weight")?;
    let network = Architecture { units, channels, embedding };
    plausible(&network)?;
    let mut expected = network.tensors();
    if tensors.contains_key("mean") {
        expected.push(("mean".into(), vec![embedding]));
    }
    let weights = Weights { tensors: std::mem::take(&mut tensors), ..Weights::default() };
    weights.expect(&expected)?;
    let mut tensors = weights.tensors;
    tensors.retain(|name, _| expected.iter().any(|(wanted, _)| wanted == name));
    sphereface(network, "RGB", tensors)
}

/// First size of a tensor of weights.
fn outputs(tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<usize, WeightsError> {
    let size = tensors.get(name).and_then(|tensor| tensor.shape.first());
    size.copied().ok_or_else(|| WeightsError::Missing { tensor: name.to_owned(), expected: Vec::new() })
}

/// One of the detector's networks: its layers in order, with the names of the PyTorch port.
struct Net {
    name: &'static str,
    /// A layer that no other network has.
    last_layer: &'static str,
    /// Name, inputs, outputs and side of the kernel of each layer before the heads, each
    /// followed by a PReLU of the same number.
    layers: &'static [(&'static str, &'static [usize])],
    heads: &'static [(&'static str, &'static [usize])],
    /// The first fully connected layer, its channels and the side of the map it flattens.
    flattened: Option<(&'static str, usize, usize)>,
}

const NETS: [Net; 3] = [
    Net {
        name: "pnet",
        last_layer: "conv4_2",
        layers: &[("conv1", &[10, 3, 3, 3]), ("conv2", &[16, 10, 3, 3]), ("conv3", &[32, 16, 3, 3])],
        heads: &[("conv4_1", &[2, 32, 1, 1]), ("conv4_2", &[4, 32, 1, 1])],
        flattened: None,
    },
    Net {
        name: "rnet",
        last_layer: "dense5_2",
        layers: &[
            ("conv1", &[28, 3, 3, 3]),
            ("conv2", &[48, 28, 3, 3]),
            ("conv3", &[64, 48, 2, 2]),
            ("dense4", &[128, 576]),
        ],
        heads: &[("dense5_1", &[2, 128]), ("dense5_2", &[4, 128])],
        flattened: Some(("dense4", 64, 3)),
    },
    Net {
        name: "onet",
        last_layer: "dense6_3",
        layers: &[
            ("conv1", &[32, 3, 3, 3]),
            ("conv2", &[64, 32, 3, 3]),
            ("conv3", &[64, 64, 3, 3]),
            ("conv4", &[128, 64, 2, 2]),
            ("dense5", &[256, 1152]),
        ],
        heads: &[("dense6_1", &[2, 256]), ("dense6_2", &[4, 256]), ("dense6_3", &[10, 256])],
        flattened: Some(("dense5", 128, 3)),
    },
];

impl Net {
    /// Its tensors without its prefix.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        for (index, (layer, shape)) in self.layers.iter().chain(self.heads).enumerate() {
            let outputs: Vec<usize> = shape.iter().take(1).copied().collect();
            list.push((format!("{layer}.weight"), shape.to_vec()));
            list.push((format!("{layer}.bias"), outputs.clone()));
            if index < self.layers.len() {
                list.push((format!("prelu{}.weight", index + 1), outputs));
            }
        }
        list
    }
}

/// Every tensor of the detector with its shape: `pnet.conv1.weight` [10, 3, 3, 3], ...
pub fn mtcnn_tensors() -> Vec<(String, Vec<usize>)> {
    let prefixed = |net: &Net| {
        net.tensors()
            .into_iter()
            .map(|(name, shape)| (format!("{}.{name}", net.name), shape))
            .collect::<Vec<_>>()
    };
    NETS.iter().flat_map(prefixed).collect()
}

fn mtcnn_from_names(net: &Net, tensors: BTreeMap<String, Tensor>) -> Result<Weights, WeightsError> {
    let weights = Weights { tensors, ..Weights::default() };
    let expected = net.tensors();
    weights.expect(&expected)?;
    let mut tensors = weights.tensors;
    tensors.retain(|name, _| expected.iter().any(|(wanted, _)| wanted == name));
    if let Some((layer, channels, side)) = net.flattened
        && let Some(tensor) = tensors.get_mut(&format!("{layer}.weight"))
    {
        // The port flattens (W, H, C).
        *tensor = reorder(tensor, |o, rest| {
            let (c, y, x) = (rest / (side * side), rest / side % side, rest % side);
            o * channels * side * side + (x * side + y) * channels + c
        });
    }
    Ok(mtcnn(tensors.into_iter().map(|(name, tensor)| (format!("{}.{name}", net.name), tensor)).collect()))
}

/// A tensor of the same shape whose value at (first index, flat rest) is taken from `source`.
fn reorder(tensor: &Tensor, source: impl Fn(usize, usize) -> usize) -> Tensor {
    // The product of the other sizes, which may overflow if there are no values.
    let rest = tensor.data.len() / tensor.shape.first().copied().unwrap_or(1).max(1);
    let value = |at: usize| tensor.data.get(source(at / rest, at % rest)).copied().unwrap_or_default();
    Tensor { shape: tensor.shape.clone(), data: (0..tensor.data.len()).map(value).collect() }
}

/// A Caffe model: MTCNN by its names, SphereFace by its layers.
pub(super) fn from_caffe(layers: Vec<Layer>) -> Result<Weights, WeightsError> {
    if layers.is_empty() {
        return Err(WeightsError::Unsupported(
            "this Caffe model holds no learned values: give the .caffemodel, not the .prototxt".into(),
        ));
    }
    let has = |name: &str| layers.iter().any(|layer| layer.name == name);
    let net = match () {
        () if has("conv6-3") => NETS.get(2),
        () if has("conv5-2") => NETS.get(1),
        () if has("conv4-2") => NETS.first(),
        () => None,
    };
    match net {
        Some(net) => mtcnn_from_caffe(net, layers),
        None => sphereface_from_caffe(layers),
    }
}

/// MTCNN was trained on pictures in column-major order: kernels and the flattened map are transposed.
fn mtcnn_from_caffe(net: &Net, layers: Vec<Layer>) -> Result<Weights, WeightsError> {
    let mut tensors = BTreeMap::new();
    for layer in layers {
        let name = layer.name.to_lowercase().replace('-', "_");
        let ours = net.layers.iter().chain(net.heads).map(|(ours, _)| *ours);
        // The port calls fully connected layers "dense".
        let Some(ours) = ours
            .into_iter()
            .find(|ours| ours.replace("dense", "conv") == name)
            .or_else(|| (name.starts_with("prelu") && layer.blobs.len() == 1).then_some(name.as_str()))
        else {
            continue;
        };
        for (blob, kind) in layer.blobs.into_iter().zip(["weight", "bias"]) {
            let blob = match blob.shape.as_slice() {
                &[_, _, rows, columns] => reorder(&blob, |o, rest| {
                    let (i, y, x) = (rest / (rows * columns), rest / columns % rows, rest % columns);
                    ((o * blob.shape[1] + i) * columns + x) * rows + y
                }),
                _ => blob,
            };
            tensors.insert(format!("{ours}.{kind}"), blob);
        }
    }
    let weights = Weights { tensors, ..Weights::default() };
    weights.expect(&net.tensors())?;
    let mut tensors = weights.tensors;
    if let Some((layer, _, side)) = net.flattened
        && let Some(tensor) = tensors.get_mut(&format!("{layer}.weight"))
    {
        let width = tensor.shape.iter().skip(1).product::<usize>();
        *tensor = reorder(tensor, |o, rest| {
            let (c, y, x) = (rest / (side * side), rest / side % side, rest % side);
            o * width + (c * side + x) * side + y
        });
    }
    Ok(mtcnn(tensors.into_iter().map(|(name, tensor)| (format!("{}.{name}", net.name), tensor)).collect()))
}

fn sphereface_from_caffe(layers: Vec<Layer>) -> Result<Weights, WeightsError> {
    let of_kind = |kind: &str| layers.iter().filter(|layer| layer.kind == kind).collect::<Vec<_>>();
    let convolutions = of_kind("Convolution");
    let slopes: Vec<_> = layers.iter().filter(|layer| is_prelu(layer)).collect();
    let dense = of_kind("InnerProduct");
    let Some((depth, units)) = DEPTHS.into_iter().find(|(depth, _)| *depth == convolutions.len()) else {
        return Err(WeightsError::Unsupported(format!(
            "this Caffe model has {} convolutions: SphereFace networks have 4, 10, 20, 36, 62 or 64",
            convolutions.len()
        )));
    };
    if slopes.len() != depth {
        return Err(WeightsError::Unsupported(format!(
            "this Caffe model has {depth} convolutions and {} PReLU layers: SphereFace has one after each convolution",
            slopes.len()
        )));
    }
    // Training files also hold the classifier after it.
    let Some(fc5) = dense.first() else {
        return Err(WeightsError::Unsupported(
            "this Caffe model has no InnerProduct layer for the embedding".into(),
        ));
    };
    let outputs =
        |layer: &Layer| layer.blobs.first().and_then(|blob| blob.shape.first()).copied().unwrap_or(0);
    let mut channels = [0; 4];
    let mut first = 0;
    for (channels, units) in channels.iter_mut().zip(units) {
        *channels = convolutions.get(first).map_or(0, |layer| outputs(layer));
        first += 1 + 2 * units;
    }
    let network = Architecture { units, channels, embedding: outputs(fc5) };
    plausible(&network)?;

    let mut tensors = BTreeMap::new();
    let sources = convolutions
        .iter()
        .zip(&slopes)
        .flat_map(|(convolution, slopes)| [(*convolution, 0), (*convolution, 1), (*slopes, 0)]);
    let sources = sources.chain([(*fc5, 0), (*fc5, 1)]);
    for ((name, shape), (layer, blob)) in network.tensors().into_iter().zip(sources) {
        let tensor = match layer.blobs.get(blob) {
            // Residual convolutions may come without their bias, which is fixed at 0.
            None if blob == 1 => Tensor { data: vec![0.; shape.iter().product()], shape },
            None => {
                return Err(WeightsError::Missing {
                    tensor: format!("{name} (layer {})", layer.name),
                    expected: shape,
                });
            }
            Some(tensor) if tensor.shape == shape => tensor.clone(),
            Some(tensor) => {
                return Err(WeightsError::Shape {
                    tensor: format!("{name} (layer {})", layer.name),
                    found: tensor.shape.clone(),
                    expected: shape,
                });
            }
        };
        tensors.insert(name, tensor);
    }
    sphereface(network, "BGR", tensors)
}

/// The first layer format had no name for PReLU.
fn is_prelu(layer: &Layer) -> bool {
    layer.kind == "PReLU"
        || layer.kind.parse::<u64>().is_ok()
            && matches!(layer.blobs.as_slice(), [blob] if blob.shape.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Precision, to_onnx};
    use super::*;
    use crate::{fuzzing, mutations};

    /// A Caffe model of that network, with layers named by their position only.
    fn layers(network: Architecture) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        for (place, (name, shape)) in network.tensors().into_iter().enumerate() {
            let data = (0..shape.iter().product()).map(|k: usize| (place * 1000 + k) as f32).collect();
            let blob = Tensor { shape, data };
            let kind = match name.as_str() {
                name if name.starts_with("conv") => "Convolution",
                name if name.starts_with("relu") => "PReLU",
                _ => "InnerProduct",
            };
            match layers.last_mut() {
                Some(layer) if name.ends_with(".bias") => layer.blobs.push(blob),
                _ => layers.push(Layer { name: format!("l{place}"), kind: kind.into(), blobs: vec![blob] }),
            }
        }
        layers
    }

    /// The file of a Caffe model: messages of fields with a length.
    fn caffe_file(layers: &[Layer]) -> Vec<u8> {
        fn field(number: usize, content: &[u8]) -> Vec<u8> {
            let varint = |mut value: usize| {
                let mut bytes = Vec::new();
                while value >= 0x80 {
                    bytes.push(value as u8 | 0x80);
                    value >>= 7;
                }
                bytes.push(value as u8);
                bytes
            };
            [varint(number << 3 | 2), varint(content.len()), content.to_vec()].concat()
        }
        let blob = |blob: &Tensor| {
            let sizes: Vec<u8> = blob.shape.iter().map(|size| *size as u8).collect();
            let values: Vec<u8> = blob.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            field(7, &[field(7, &field(1, &sizes)), field(5, &values)].concat())
        };
        let layer = |layer: &Layer| {
            let blobs: Vec<u8> = layer.blobs.iter().flat_map(blob).collect();
            field(100, &[field(1, layer.name.as_bytes()), field(2, layer.kind.as_bytes()), blobs].concat())
        };
        let file = [field(1, b"network"), layers.iter().flat_map(layer).collect()].concat();
        assert_eq!(caffe::read(&file).unwrap().len(), layers.len());
        file
    }

    #[test]
    fn caffe_models_of_every_depth_are_told_by_their_layers() {
        for (depth, units) in DEPTHS {
            let network = Architecture { units, channels: [1, 2, 2, 3], embedding: 5 };
            let weights = from_caffe(layers(network)).unwrap();
            assert_eq!(weights.metadata["architecture"], format!("sphereface{depth}"));
            assert_eq!(Network::from_metadata(&weights.metadata).unwrap(), Network::SphereFace(network));
            let values: Vec<_> =
                network.tensors().iter().map(|(name, _)| weights.tensors[name].data[0]).collect();
            let places: Vec<_> = (0..values.len()).map(|place| (place * 1000) as f32).collect();
            assert_eq!(values, places);
        }
    }

    #[test]
    fn a_fixed_bias_may_be_left_out_of_a_caffe_model() {
        let network = Architecture { units: [0, 1, 2, 0], channels: [1, 2, 2, 3], embedding: 5 };
        let mut list = layers(network);
        // Convolution, slopes, opening of stage 2, slopes, first of the unit.
        list[4].blobs.truncate(1);
        assert_eq!(from_caffe(list).unwrap().tensors["conv2_2.bias"].data, [0., 0.]);
    }

    #[test]
    fn caffe_models_of_other_networks_are_refused() {
        let network = Architecture { units: [0; 4], channels: [1, 2, 2, 3], embedding: 5 };
        let refusal = |change: fn(&mut Vec<Layer>)| {
            let mut list = layers(network);
            change(&mut list);
            from_caffe(list).unwrap_err().to_string()
        };
        assert!(refusal(|list| list.clear()).contains("no learned values"));
        assert!(refusal(|list| drop(list.remove(0))).contains("3 convolutions"));
        assert!(refusal(|list| drop(list.remove(1))).contains("3 PReLU layers"));
        assert!(refusal(|list| list.truncate(8)).contains("no InnerProduct"));
        assert!(refusal(|list| list[0].blobs[0].shape = vec![1 << 60, 0]).contains("not supported"));
        assert!(refusal(|list| list[8].blobs[0].shape[1] = 7).contains("fc5.weight (layer l12)"));
    }

    #[test]
    fn a_blob_without_values_may_have_any_sizes() {
        let blob = Tensor { shape: vec![0, 1 << 40, 1 << 40, 1], data: Vec::new() };
        let layer = Layer { name: "conv4-2".into(), kind: "Convolution".into(), blobs: vec![blob] };
        assert!(matches!(from_caffe(vec![layer]), Err(WeightsError::Missing { .. })));
    }

    #[test]
    fn files_of_any_bytes_are_survived() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights");
        let whole = |name: &str| std::fs::read(folder.join(name)).unwrap();
        for (target, name, count) in [
            ("caffemodel", "new.caffemodel", 200),
            ("caffemodel", "old.caffemodel", 200),
            ("pickle", "stream-f64.pth", 200),
            ("pickle", "stream-python2.pth", 200),
            ("pickle", "zip.pth", 60),
            ("pickle", "zip-f16-nested.pth", 60),
        ] {
            mutations::survived(&whole(name), count, fuzzing::target(target).unwrap());
        }
        for name in ["opensphere.pth", "no-state.pth"] {
            mutations::survived_by("pickle", name, &whole(name), 300);
        }
        // The corpora have networks of a few hundred values.
        let network = Architecture { units: [0; 4], channels: [1, 2, 2, 3], embedding: 2 };
        mutations::survived_by("caffemodel", "sphereface", &caffe_file(&layers(network)), 200);
        let small = from_caffe(layers(network)).unwrap();
        mutations::survived_by("onnx", "sphereface", &to_onnx(&small).unwrap(), 300);
        for (precision, name) in [(Precision::F32, "f32"), (Precision::F16, "f16")] {
            mutations::survived_by("safetensors", name, &small.to_safetensors(precision).unwrap(), 200);
        }
    }

    #[test]
    fn the_port_s_flatten_order_becomes_rows_and_columns() {
        let (net, mut tensors) = (&NETS[1], BTreeMap::new());
        for (name, shape) in net.tensors() {
            let data = (0..shape.iter().product()).map(|k: usize| k as f32).collect();
            tensors.insert(name, Tensor { shape, data });
        }
        let weights = mtcnn_from_names(net, tensors).unwrap();
        let row = &weights.tensors["rnet.dense4.weight"].data[..576];
        // (c, y, x) = (2, 1, 0) lies at x, y, c = 0, 1, 2 of the port's order.
        assert_eq!(row[2 * 9 + 3], (64 + 2) as f32);
        // (0, 0, 1) at 1, 0, 0.
        assert_eq!(row[1], (3 * 64) as f32);
    }
}
