//! Pictures as numpy arrays, and back.

use image::RgbImage;
use numpy::{PyArray1, PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use sphereface::align::{CROP_HEIGHT, CROP_WIDTH, Crop, SQUARE};

/// The required form of a picture.
const WANTED: &str = "give a numpy array of uint8, height x width x 3 (RGB)";

/// The picture in an array.
pub fn read(array: &Bound<'_, PyAny>) -> PyResult<RgbImage> {
    let Ok(array) = array.cast::<PyArray3<u8>>() else {
        return Err(PyTypeError::new_err(format!("{} is not a picture: {WANTED}", described(array))));
    };
    let &[height, width, channels] = array.shape() else {
        return Err(PyTypeError::new_err(format!("{array} is not a picture: {WANTED}")));
    };
    let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
    let Some((width, height)) = sides.filter(|&(width, height)| channels == 3 && width > 0 && height > 0)
    else {
        return Err(PyValueError::new_err(format!("{} is not a picture: {WANTED}", described(array))));
    };
    let pixels = array.try_readonly().map_err(|error| PyValueError::new_err(error.to_string()))?;
    let bytes = match pixels.as_slice() {
        Ok(bytes) => bytes.to_vec(),
        // A view with other strides: mirrored, a part of a picture, or with reversed channels.
        Err(_) => pixels.as_array().iter().copied().collect(),
    };
    RgbImage::from_raw(width, height, bytes).ok_or_else(|| PyValueError::new_err(WANTED))
}

/// The crop in an array.
pub fn read_crop(array: &Bound<'_, PyAny>) -> PyResult<Crop> {
    let picture = read(array)?;
    let (width, height) = picture.dimensions();
    Crop::from_image(picture).ok_or_else(|| {
        PyValueError::new_err(format!(
            "a crop measures {CROP_HEIGHT} x {SQUARE} pixels (height x width) or {CROP_HEIGHT} x {CROP_WIDTH}, and this \
             one {height} x {width}: take those of detect(), or cut it out with align()"
        ))
    })
}

/// A picture as an array.
pub fn array(py: Python<'_>, picture: RgbImage) -> PyResult<Bound<'_, PyArray3<u8>>> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    PyArray1::from_vec(py, picture.into_raw()).reshape([height, width, 3])
}

/// A description of an object for error messages.
fn described(object: &Bound<'_, PyAny>) -> String {
    let text = |name: &str| object.getattr(name).ok().map(|value| value.to_string());
    match (text("shape"), text("dtype")) {
        (Some(shape), Some(kind)) => format!("an array of {kind} with shape {shape}"),
        _ => object.get_type().name().map_or_else(|_| "this".into(), |name| format!("a {name}")),
    }
}
