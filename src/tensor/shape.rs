//! Dimensions of a tensor, with checked products.

use crate::fault::{Fault, Kind, Result};
use crate::tensor::dtype::Dtype;
use serde::{Deserialize, Serialize};

/// Dimensions of a tensor in elements, outermost first; `[]` is a scalar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<u64>);

impl Shape {
    /// Number of elements; 1 for a scalar, 0 if any dimension is 0.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the product doesn't fit 64 bits.
    pub fn elements(&self) -> Result<u64> {
        if self.0.contains(&0) {
            return Ok(0);
        }
        self.0
            .iter()
            .try_fold(1u64, |product, dim| product.checked_mul(*dim))
            .ok_or_else(|| Fault::new(Kind::Shape, format!("shape {self} is too large")))
    }

    /// Number of bytes of a tensor of this shape; packed types fill whole bytes.
    ///
    /// # Errors
    /// [`Kind::Shape`] if it doesn't fit 64 bits or doesn't fill whole bytes.
    pub fn bytes(&self, dtype: Dtype) -> Result<u64> {
        let bits = self.elements()?.checked_mul(u64::from(dtype.bits()));
        match bits {
            Some(bits) if bits % 8 == 0 => Ok(bits / 8),
            _ => Err(Fault::new(
                Kind::Shape,
                format!("{dtype}{self} doesn't fill whole bytes"),
            )),
        }
    }

    /// The same bytes as a shape of whole-byte elements: `(shape, bytes per element)`. Types below
    /// 8 bits are counted in bytes along the last dimension.
    ///
    /// # Errors
    /// [`Kind::Shape`] if rows of a packed type don't fill whole bytes.
    pub fn in_bytes(&self, dtype: Dtype) -> Result<(Shape, u64)> {
        let bits = u64::from(dtype.bits());
        if bits.is_multiple_of(8) {
            return Ok((self.clone(), bits / 8));
        }
        let mut dims = self.0.clone();
        match dims.last_mut() {
            Some(last) if (*last * bits).is_multiple_of(8) => *last = *last * bits / 8,
            _ => {
                let message = format!("rows of {dtype}{self} don't fill whole bytes");
                return Err(Fault::new(Kind::Shape, message));
            }
        }
        Ok((Shape(dims), 1))
    }

    /// Row-major strides in elements. The caller has checked that the product fits.
    #[must_use]
    pub fn strides(&self) -> Vec<u64> {
        let mut strides = vec![1; self.0.len()];
        for d in (1..self.0.len()).rev() {
            strides[d - 1] = strides[d] * self.0[d];
        }
        strides
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.0)
    }
}

impl From<&[u64]> for Shape {
    fn from(dims: &[u64]) -> Self {
        Shape(dims.to_vec())
    }
}
