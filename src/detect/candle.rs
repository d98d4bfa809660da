//! The three networks of MTCNN in candle's own layers: the reference that the kernels are compared with.

use candle_core::{D, Module, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, PReLU, VarBuilder, conv2d, linear, ops, prelu};

/// A convolution without padding, and its PReLU.
#[derive(Debug, Clone)]
struct Convolution {
    convolution: Conv2d,
    prelu: PReLU,
}

impl Convolution {
    /// Number `number` of a network: `conv1.weight` [outputs, inputs, side, side], `conv1.bias`,
    /// `prelu1.weight`.
    fn new(number: usize, [inputs, outputs]: [usize; 2], side: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let config = Conv2dConfig::default();
        Ok(Self {
            convolution: conv2d(inputs, outputs, side, config, vb.pp(format!("conv{number}")))?,
            prelu: prelu(Some(outputs), vb.pp(format!("prelu{number}")))?,
        })
    }
}

impl Module for Convolution {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.prelu.forward(&self.convolution.forward(x)?)
    }
}

/// Max-pool of stride 2. The output size is rounded up, and windows are cut off at the edge.
fn pool(x: &Tensor, side: usize) -> Result<Tensor> {
    // A repeated edge adds nothing to the maximum of a window that has that edge in it.
    let missing = |length: usize| ((length - side).div_ceil(2) * 2 + side) - length;
    let (rows, columns) = (missing(x.dim(D::Minus2)?), missing(x.dim(D::Minus1)?));
    let padded = x.pad_with_same(D::Minus2, 0, rows)?.pad_with_same(D::Minus1, 0, columns)?;
    padded.max_pool2d_with_stride(side, 2)
}

/// Finds candidates anywhere in a picture.
#[derive(Debug, Clone)]
pub struct PNet {
    convolutions: [Convolution; 3],
    probability: Conv2d,
    regression: Conv2d,
}

impl PNet {
    /// From `pnet.conv1.weight` and so on; the variables begin after `pnet`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(vb: &VarBuilder<'_>) -> Result<Self> {
        let head = |outputs, name| conv2d(32, outputs, 1, Conv2dConfig::default(), vb.pp(name));
        Ok(Self {
            convolutions: [
                Convolution::new(1, [3, 10], 3, vb)?,
                Convolution::new(2, [10, 16], 3, vb)?,
                Convolution::new(3, [16, 32], 3, vb)?,
            ],
            probability: head(2, "conv4_1")?,
            regression: head(4, "conv4_2")?,
        })
    }

    /// Regressions [n, 4, rows, columns] and probabilities of "not a face" and "a face" [n, 2, rows, columns]
    /// of pictures [n, 3, height, width] of at least 12x12 pixels.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, pictures: &Tensor) -> Result<(Tensor, Tensor)> {
        let [first, second, third] = &self.convolutions;
        let x = third.forward(&second.forward(&pool(&first.forward(pictures)?, 2)?)?)?;
        Ok((self.regression.forward(&x)?, ops::softmax(&self.probability.forward(&x)?, 1)?))
    }
}

/// R-Net, which judges squares of 24x24 pixels, or O-Net, which judges squares of 48x48 and finds landmarks.
#[derive(Debug, Clone)]
pub struct RefineNet {
    /// Each with the side of the pool after it, if there is one.
    convolutions: Vec<(Convolution, Option<usize>)>,
    hidden: Linear,
    prelu: PReLU,
    probability: Linear,
    regression: Linear,
    landmarks: Option<Linear>,
}

impl RefineNet {
    /// R-Net, from `rnet.conv1.weight` and so on; the variables begin after `rnet`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn refine(vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            convolutions: vec![
                (Convolution::new(1, [3, 28], 3, vb)?, Some(3)),
                (Convolution::new(2, [28, 48], 3, vb)?, Some(3)),
                (Convolution::new(3, [48, 64], 2, vb)?, None),
            ],
            hidden: linear(64 * 3 * 3, 128, vb.pp("dense4"))?,
            prelu: prelu(Some(128), vb.pp("prelu4"))?,
            probability: linear(128, 2, vb.pp("dense5_1"))?,
            regression: linear(128, 4, vb.pp("dense5_2"))?,
            landmarks: None,
        })
    }

    /// O-Net, likewise.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn output(vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            convolutions: vec![
                (Convolution::new(1, [3, 32], 3, vb)?, Some(3)),
                (Convolution::new(2, [32, 64], 3, vb)?, Some(3)),
                (Convolution::new(3, [64, 64], 3, vb)?, Some(2)),
                (Convolution::new(4, [64, 128], 2, vb)?, None),
            ],
            hidden: linear(128 * 3 * 3, 256, vb.pp("dense5"))?,
            prelu: prelu(Some(256), vb.pp("prelu5"))?,
            probability: linear(256, 2, vb.pp("dense6_1"))?,
            regression: linear(256, 4, vb.pp("dense6_2"))?,
            landmarks: Some(linear(256, 10, vb.pp("dense6_3"))?),
        })
    }

    /// Of squares [n, 3, side, side]: probabilities [n, 2], regressions [n, 4] and, of O-Net, landmarks [n,
    /// 10] (five x, five y), one after the other in each row.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, squares: &Tensor) -> Result<Tensor> {
        let mut x = squares.clone();
        for (convolution, side) in &self.convolutions {
            x = convolution.forward(&x)?;
            if let Some(side) = side {
                x = pool(&x, *side)?;
            }
        }
        let hidden = self.prelu.forward(&self.hidden.forward(&x.flatten_from(1)?)?)?;
        let mut rows = vec![ops::softmax(&self.probability.forward(&hidden)?, 1)?];
        rows.push(self.regression.forward(&hidden)?);
        if let Some(landmarks) = &self.landmarks {
            rows.push(landmarks.forward(&hidden)?);
        }
        Tensor::cat(&rows, 1)
    }
}

#[cfg(all(test, feature = "bundled-models"))]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::detect::golden::{self, close};
    use crate::models::MTCNN;
    use crate::models::candle::var_builder;

    #[test]
    fn the_networks_give_the_recorded_answers() {
        let Some(golden) = golden::tensors() else {
            println!("skipped: no recorded tensors (set SPHEREFACE_DATA)");
            return;
        };
        let vb = var_builder(&MTCNN.weights().unwrap(), DType::F64, &Device::Cpu).unwrap();
        let input = |name: &str| {
            let (shape, data) = &golden[name];
            let values = Tensor::from_slice(data, shape.as_slice(), &Device::Cpu).unwrap();
            values.to_dtype(DType::F64).unwrap()
        };
        let same = |found: &Tensor, name: &str| {
            let found = found.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            close(&found.to_vec1::<f32>().unwrap(), &golden[name].1, 1e-5);
        };
        let (regression, probability) =
            PNet::new(&vb.pp("pnet")).unwrap().forward(&input("pnet_in")).unwrap();
        same(&regression, "pnet_out0");
        same(&probability, "pnet_out1");
        let rnet = RefineNet::refine(&vb.pp("rnet")).unwrap().forward(&input("rnet_in")).unwrap();
        same(&rnet.narrow(1, 2, 4).unwrap(), "rnet_out0");
        same(&rnet.narrow(1, 0, 2).unwrap(), "rnet_out1");
        let onet = RefineNet::output(&vb.pp("onet")).unwrap().forward(&input("onet_in")).unwrap();
        same(&onet.narrow(1, 2, 4).unwrap(), "onet_out0");
        same(&onet.narrow(1, 6, 10).unwrap(), "onet_out1");
        same(&onet.narrow(1, 0, 2).unwrap(), "onet_out2");
    }
}
