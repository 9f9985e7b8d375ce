//! Preprocessing of imported files: layout, channel order, scale, mean and deviation.

use protoseg_models::adapter::{Adapter, ChannelOrder, Layout, Normalization};
use rayon::prelude::*;

/// Turns images into the input tensor of a file, in a reused buffer.
#[derive(Debug)]
pub(crate) struct Preprocess {
    adapter: Adapter,
    /// The value of every byte of red, green and blue; None where the file takes bytes.
    tables: Option<[[f32; 256]; 3]>,
    floats: Vec<f32>,
    bytes: Vec<u8>,
}

/// Values of the input tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum InputTensor<'a> {
    Floats(&'a [f32]),
    Bytes(&'a [u8]),
}

impl Preprocess {
    pub(crate) fn new(adapter: Adapter) -> Self {
        let tables = adapter.normalization.map(Normalization::tables);
        Self { adapter, tables, floats: Vec::new(), bytes: Vec::new() }
    }

    pub(crate) fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Returns the input tensor of images RGB `[n, height, width, 3]`, and its shape. If the file
    /// takes more images at once, the last ones are blank. None where it does not fit into memory.
    pub(crate) fn fill(
        &mut self,
        images: &[u8],
        [height, width]: [usize; 2],
    ) -> Option<(InputTensor<'_>, [usize; 4])> {
        let Self { adapter, tables, floats, bytes } = self;
        let plane = height * width;
        let count = adapter.batch.unwrap_or(images.len() / (plane * 3).max(1));
        let shape = match adapter.layout {
            Layout::Nchw => [count, 3, height, width],
            Layout::Nhwc => [count, height, width, 3],
        };
        let total = count.checked_mul(plane)?.checked_mul(3)?;
        let pixels = match tables {
            Some(tables) => {
                let value = |channel: usize, byte: u8| tables[channel][usize::from(byte)];
                InputTensor::Floats(arrange(images, floats, total, plane, adapter, &value)?)
            }
            None => {
                InputTensor::Bytes(arrange(images, bytes, total, plane, adapter, &|_, byte| byte)?)
            }
        };
        Some((pixels, shape))
    }
}

/// Fills a buffer with `total` values of images of `plane` pixels each.
fn arrange<'a, T: Copy + Default + Send + Sync>(
    images: &[u8],
    buffer: &'a mut Vec<T>,
    total: usize,
    plane: usize,
    adapter: &Adapter,
    value: &(impl Fn(usize, u8) -> T + Sync),
) -> Option<&'a [T]> {
    buffer.clear();
    buffer.try_reserve_exact(total).ok()?;
    buffer.resize(total, T::default());
    // The channel of the image at each position of the input.
    let source = match adapter.order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    match adapter.layout {
        Layout::Nchw => {
            buffer.par_chunks_exact_mut(plane.max(1)).enumerate().for_each(|(index, values)| {
                let channel = source[index % 3];
                let image = images.get(index / 3 * plane * 3..).unwrap_or_default();
                for (slot, pixel) in values.iter_mut().zip(image.chunks_exact(3)) {
                    *slot = value(channel, pixel[channel]);
                }
            });
        }
        Layout::Nhwc => buffer.par_chunks_exact_mut(3).zip(images.par_chunks_exact(3)).for_each(
            |(values, pixel)| {
                for (slot, channel) in values.iter_mut().zip(source) {
                    *slot = value(channel, pixel[channel]);
                }
            },
        ),
    }
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_where_the_file_reads_it() {
        let images: Vec<u8> = (0..2 * 2 * 3 * 3).collect();
        let normalization = Normalization::new(2.0, [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).unwrap();
        for (layout, order, normalization) in [
            (Layout::Nchw, ChannelOrder::Rgb, Some(normalization)),
            (Layout::Nchw, ChannelOrder::Bgr, None),
            (Layout::Nhwc, ChannelOrder::Rgb, None),
            (Layout::Nhwc, ChannelOrder::Bgr, Some(normalization)),
        ] {
            let adapter = Adapter {
                layout,
                order,
                normalization,
                batch: Some(3),
                size: None,
                output: "x".to_owned(),
            };
            let mut preprocess = Preprocess::new(adapter);
            for _ in 0..2 {
                let (pixels, shape) = preprocess.fill(&images, [2, 3]).unwrap();
                let found: Vec<f32> = match pixels {
                    InputTensor::Floats(values) => values.to_vec(),
                    InputTensor::Bytes(values) => {
                        values.iter().map(|&value| f32::from(value)).collect()
                    }
                };
                assert_eq!((found.len(), shape[0]), (3 * 2 * 3 * 3, 3));
                for (index, &found) in found.iter().enumerate() {
                    let (image, rest) = (index / 18, index % 18);
                    let (pixel, place) = if layout == Layout::Nchw {
                        (rest % 6, rest / 6)
                    } else {
                        (rest / 3, rest % 3)
                    };
                    let channel = if order == ChannelOrder::Bgr { 2 - place } else { place };
                    let byte = (image * 18 + pixel * 3 + channel) as f32;
                    let expected = match normalization {
                        _ if image == 2 => 0.0,
                        None => byte,
                        Some(_) => (byte / 2.0 - (channel + 1) as f32) / [1.0, 2.0, 4.0][channel],
                    };
                    assert_eq!(found, expected, "{layout:?} {order:?} {index}");
                }
            }
        }
    }
}
