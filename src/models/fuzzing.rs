//! The readers of weights for [`fuzzing`](crate::fuzzing).

use super::import::{from_caffe, from_names, import_bytes};
use super::{
    Network, PictureOptions, Stored, Weights, WeightsError, caffe, foreign, pickle as pickles, torch,
};

/// Checks weights as an import does.
fn check(weights: Result<Weights, WeightsError>) {
    if let Ok(weights) = weights
        && let Ok(network) = Network::from_metadata(&weights.metadata)
    {
        drop(weights.expect(&network.tensors()));
    }
}

/// A Caffe model.
pub(crate) fn caffemodel(bytes: &[u8]) {
    caffe::is_model(bytes);
    check(caffe::read(bytes).and_then(from_caffe));
}

/// A PyTorch checkpoint, and the pickle in it.
pub(crate) fn pickle(bytes: &[u8]) {
    drop(pickles::read(bytes));
    torch::is_checkpoint(bytes);
    check(torch::read(bytes).and_then(from_names));
}

/// An ONNX model.
pub(crate) fn onnx(bytes: &[u8]) {
    foreign::onnx::is_model(bytes);
    let graph = foreign::onnx::read(bytes, None);
    check(graph.and_then(|graph| foreign::translate(&graph, &PictureOptions::default())));
}

/// An ESP-DL file.
pub(crate) fn espdl(bytes: &[u8]) {
    foreign::espdl::is_model(bytes);
    let graph = foreign::espdl::read(bytes);
    check(graph.and_then(|graph| foreign::translate(&graph, &PictureOptions::default())));
}

/// A safetensors file, or any other format that the first bytes indicate.
pub(crate) fn safetensors(bytes: &[u8]) {
    check(import_bytes(bytes, None, &PictureOptions::default()));
    drop(Stored::new(bytes).and_then(|stored| stored.id()));
}
