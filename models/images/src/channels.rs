//! Channels of an image file to red, green and blue.

use protoseg_models::reading::{Channels, ImageReading};

use crate::image_file::DecodeError;
use crate::notes::{ExtraChannel, ImageNotes};
use crate::samples::{SampleKind, SampleValue, Samples, Scale, Survey};

/// Meaning of the first channels of a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ColorModel {
    /// One channel; inverted where 0 is white.
    Gray {
        inverted: bool,
    },
    Rgb,
    /// Four inks, of which 0 is no ink.
    Cmyk,
    /// Luma and chroma of JFIF: ITU-R BT.601 of full range.
    YCbCr,
    /// Index of a color.
    Palette(Vec<[u8; 3]>),
}

impl ColorModel {
    fn channels(&self) -> usize {
        match self {
            Self::Gray { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }

    /// The channels are a way of storing red, green and blue, so that these are picked from.
    fn encodes_rgb(&self) -> bool {
        matches!(self, Self::YCbCr | Self::Palette(_))
    }
}

/// The channels and samples of an image.
#[derive(Debug, Clone)]
pub(crate) struct PixelFormat {
    pub(crate) model: ColorModel,
    /// Number of channels.
    pub(crate) bands: usize,
    /// The file calls the first channel after the colors opacity.
    pub(crate) has_opacity: bool,
    /// The colors are multiplied by the opacity already.
    pub(crate) premultiplied: bool,
    pub(crate) kind: SampleKind,
    /// Value of samples without data.
    pub(crate) nodata: Option<f64>,
}

/// Reads the pixels of an image part by part, and takes note of what they show.
pub(crate) struct PixelReader {
    format: PixelFormat,
    reading: ImageReading,
    /// Needed bands in ascending order.
    needed: Vec<usize>,
    scale: Scale,
    survey: Survey,
    /// Number of pixels of each opacity.
    opacity: Vec<u64>,
    /// For each pixel of the last part, true where no color has data; empty where all have.
    missing: Vec<bool>,
}

impl PixelReader {
    /// Fails where a channel is chosen that the image does not have.
    pub(crate) fn new(format: PixelFormat, reading: ImageReading) -> Result<Self, DecodeError> {
        let colors = format.model.channels();
        let mut needed: Vec<usize> = (0..colors).collect();
        match reading.channels {
            Some(Channels::Picked(picked)) => {
                let encodes_rgb = format.model.encodes_rgb();
                let channels = if encodes_rgb { 3 } else { format.bands };
                let picked = picked.map(usize::from);
                if let Some(&channel) = picked.iter().find(|&&channel| channel > channels) {
                    return Err(DecodeError::NoSuchChannel { channel, channels });
                }
                if !encodes_rgb {
                    needed = picked.map(|channel| channel - 1).to_vec();
                    needed.sort_unstable();
                    needed.dedup();
                }
            }
            Some(Channels::Color) => {}
            Some(Channels::AlphaBlack | Channels::AlphaWhite) if !format.has_opacity => {}
            Some(Channels::AlphaBlack | Channels::AlphaWhite) | None => {
                needed.extend((format.bands > colors).then_some(colors));
            }
        }
        // Indices and known ranges are not scaled.
        let is_indexed = matches!(format.model, ColorModel::Palette(_));
        let kind = if is_indexed { SampleKind::ScaledWord } else { format.kind };
        let range = reading.range.filter(|_| kind != SampleKind::ScaledWord);
        Ok(Self {
            scale: Scale::new(kind, range),
            survey: Survey::new(kind, range, format.nodata),
            opacity: vec![0; 256],
            missing: Vec::new(),
            format,
            reading,
            needed,
        })
    }

    /// Returns the bands that planar samples are needed of, in ascending order.
    pub(crate) fn needed(&self) -> &[usize] {
        &self.needed
    }

    /// Returns, for each pixel of the part that was read last, true where no needed color has data;
    /// nothing where the file has no value for that.
    pub(crate) fn missing(&self) -> &[bool] {
        &self.missing
    }

    /// Notes the pixels without data in all of the needed bands but opacity.
    fn find_missing<T: SampleValue>(&mut self, samples: &Samples<'_, T>) {
        let Some(nodata) = self.format.nodata else { return };
        self.missing.clear();
        let colors = self.format.model.channels();
        let picks = matches!(self.reading.channels, Some(Channels::Picked(_)));
        let bands = self.needed.iter().enumerate();
        for (index, &band) in bands.filter(|(_, band)| picks || **band < colors) {
            let is_missing =
                samples.band(index, band, self.format.bands).map(|value| value.value() == nodata);
            if self.missing.is_empty() {
                self.missing.extend(is_missing);
            } else {
                self.missing.iter_mut().zip(is_missing).for_each(|(all, own)| *all &= own);
            }
        }
    }

    /// Appends the pixels of a part of the image as red, green and blue.
    pub(crate) fn read<T: SampleValue>(&mut self, samples: &Samples<'_, T>, rgb: &mut Vec<u8>) {
        self.find_missing(samples);
        let colors = self.format.model.channels();
        if let ColorModel::Palette(palette) = &self.format.model {
            let color = |index: T| palette.get(index.value() as usize).copied().unwrap_or_default();
            let first = rgb.len();
            rgb.extend(samples.band(0, 0, self.format.bands).flat_map(color));
            self.arrange(rgb, first);
            self.add_opacity(samples, colors, rgb, first);
            return;
        }
        let picked = match self.reading.channels {
            Some(Channels::Picked(picked)) if !self.format.model.encodes_rgb() => {
                Some(picked.map(|channel| usize::from(channel) - 1))
            }
            _ => None,
        };
        let scaled: Vec<Vec<u8>> = match picked {
            Some(picked) => picked.map(|band| self.scale_band(samples, band)).into(),
            None => (0..colors).map(|band| self.scale_band(samples, band)).collect(),
        };
        let first = rgb.len();
        let model = if picked.is_some() { &ColorModel::Rgb } else { &self.format.model };
        match (model, scaled.as_slice()) {
            (ColorModel::Gray { inverted }, [gray]) => {
                let flip = if *inverted { 255 } else { 0 };
                rgb.extend(gray.iter().flat_map(|&gray| [gray ^ flip; 3]));
            }
            (ColorModel::Cmyk, [cyan, magenta, yellow, black]) => {
                let inks = cyan.iter().zip(magenta).zip(yellow).zip(black);
                rgb.extend(inks.flat_map(|(((&c, &m), &y), &k)| cmyk_to_rgb([c, m, y, k])));
            }
            (model, [red, green, blue]) => {
                let pixels = red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| [r, g, b]);
                if *model == ColorModel::YCbCr {
                    rgb.extend(pixels.flat_map(ycbcr_to_rgb));
                } else {
                    rgb.extend(pixels.flatten());
                }
            }
            _ => {}
        }
        if picked.is_none() {
            self.arrange(rgb, first);
            self.add_opacity(samples, colors, rgb, first);
        }
    }

    fn scale_band<T: SampleValue>(&mut self, samples: &Samples<'_, T>, band: usize) -> Vec<u8> {
        let index = self.needed.iter().position(|&needed| needed == band).unwrap_or(band);
        let samples = samples.band(index, band, self.format.bands);
        let (scale, survey) = (&self.scale, &mut self.survey);
        let scaled = samples.map(|sample| {
            sample.count(survey);
            sample.scaled(scale)
        });
        scaled.collect()
    }

    /// Picks from red, green and blue that were stored in another way.
    fn arrange(&self, rgb: &mut [u8], first: usize) {
        if let Some(Channels::Picked(picked)) = self.reading.channels {
            for pixel in rgb[first..].as_chunks_mut::<3>().0 {
                let old = *pixel;
                *pixel = picked.map(|channel| old.get(usize::from(channel) - 1).map_or(0, |&c| c));
            }
        }
    }

    /// Counts the channel after the colors, and applies it where that is chosen.
    fn add_opacity<T: SampleValue>(
        &mut self,
        samples: &Samples<'_, T>,
        band: usize,
        rgb: &mut [u8],
        first: usize,
    ) {
        if self.needed.last() != Some(&band) {
            return;
        }
        let opacity =
            samples.band(self.needed.len() - 1, band, self.format.bands).map(SampleValue::opacity);
        let ground: Option<u8> = match self.reading.channels {
            Some(Channels::AlphaBlack) => Some(0),
            Some(Channels::AlphaWhite) => Some(255),
            _ => None,
        };
        for (pixel, opacity) in rgb[first..].as_chunks_mut::<3>().0.iter_mut().zip(opacity) {
            self.opacity[usize::from(opacity)] += 1;
            let Some(ground) = ground else { continue };
            for color in pixel {
                let own = if self.format.premultiplied {
                    u16::from(*color) * 255
                } else {
                    u16::from(*color) * u16::from(opacity)
                };
                let under = u32::from(ground) * u32::from(255 - opacity);
                *color = ((u32::from(own) + under + 127) / 255).min(255) as u8;
            }
        }
    }

    /// Returns the remarks on an image whose parts were all read.
    pub(crate) fn finish(self) -> Result<ImageNotes, DecodeError> {
        let PixelFormat { bands, has_opacity, model, .. } = &self.format;
        let (unused_range, clamped) = self.survey.finish()?;
        let pixels: u64 = self.opacity.iter().sum();
        let seen = |(value, _): (usize, &u64)| value as u8;
        let counted = || self.opacity.iter().enumerate().filter(|(_, count)| **count > 0);
        let extra = ExtraChannel {
            channels: *bands,
            number: model.channels() + 1,
            has_opacity: *has_opacity,
            values: counted().count(),
            low: counted().next().map_or(0, seen),
            high: counted().next_back().map_or(0, seen),
            transparent: self.opacity[0],
            opaque: self.opacity[255],
            pixels,
        };
        let is_noted = self.reading.channels.is_none()
            && pixels > 0
            && !(*has_opacity && extra.opaque == pixels && *bands == extra.number);
        Ok(ImageNotes {
            extra_channel: is_noted.then_some(extra),
            unused_range,
            clamped,
            ..ImageNotes::default()
        })
    }
}

/// Inks to colors without a profile, truncated like the `image` crate does.
fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = 1.0 - f32::from(black) / 255.0;
    [cyan, magenta, yellow].map(|ink| ((255.0 - f32::from(ink)) * light) as u8)
}

fn ycbcr_to_rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    let [luma, blue, red] = [f32::from(luma), f32::from(blue) - 128.0, f32::from(red) - 128.0];
    [luma + 1.402 * red, luma - 0.344_136 * blue - 0.714_136 * red, luma + 1.772 * blue]
        .map(|color| color.round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(model: ColorModel, bands: usize) -> PixelFormat {
        let (kind, nodata) = (SampleKind::Byte, None);
        PixelFormat { model, bands, has_opacity: true, premultiplied: false, kind, nodata }
    }

    fn read(format: PixelFormat, channels: &str, samples: &[u8]) -> (Vec<u8>, ImageNotes) {
        let reading = ImageReading { channels: channels.parse().ok(), range: None };
        let mut reader = PixelReader::new(format, reading).unwrap();
        let mut rgb = Vec::new();
        reader.read(&Samples::Interleaved(samples), &mut rgb);
        (rgb, reader.finish().unwrap())
    }

    #[test]
    fn colors_are_as_stored_unless_opacity_is_chosen() {
        let pixels = [10, 20, 200, 255, 10, 20, 200, 0, 10, 20, 200, 51];
        let rgba = || format(ColorModel::Rgb, 4);
        let (colors, notes) = read(rgba(), "", &pixels);
        assert_eq!(colors, [10, 20, 200].repeat(3));
        let extra = notes.extra_channel.unwrap();
        assert_eq!((extra.values, extra.transparent, extra.opaque, extra.pixels), (3, 1, 1, 3));
        assert!(read(rgba(), "color", &pixels).1.extra_channel.is_none(), "chosen, so not noted");
        assert_eq!(read(rgba(), "alpha-black", &pixels).0, [10, 20, 200, 0, 0, 0, 2, 4, 40]);
        let white = [10, 20, 200, 255, 255, 255, 206, 208, 244];
        assert_eq!(read(rgba(), "alpha-white", &pixels).0, white);
        assert_eq!(read(rgba(), "4,2,2", &pixels).0[..6], [255, 20, 20, 0, 20, 20]);
        let opaque = [1, 2, 3, 255];
        assert!(read(rgba(), "", &opaque).1.extra_channel.is_none());
        let unnamed = PixelFormat { has_opacity: false, ..rgba() };
        assert!(read(unnamed.clone(), "", &opaque).1.extra_channel.is_some());
        assert_eq!(read(unnamed, "alpha-black", &[9, 9, 9, 0]).0, [9; 3], "no opacity");
        let premultiplied = PixelFormat { premultiplied: true, ..rgba() };
        assert_eq!(read(premultiplied, "alpha-white", &[50, 0, 0, 51]).0, [254, 204, 204]);
    }

    #[test]
    fn every_color_model_comes_out_as_rgb() {
        let gray = |inverted| format(ColorModel::Gray { inverted }, 2);
        assert_eq!(read(gray(false), "", &[7, 255, 9, 255]).0, [7, 7, 7, 9, 9, 9]);
        assert_eq!(read(gray(true), "", &[7, 255]).0, [248; 3]);
        assert_eq!(read(format(ColorModel::Cmyk, 4), "", &[0, 255, 51, 0]).0, [255, 0, 204]);
        let ycbcr = format(ColorModel::YCbCr, 3);
        assert_eq!(read(ycbcr.clone(), "", &[76, 85, 255, 150, 44, 21]).0, [254, 0, 0, 0, 255, 1]);
        assert_eq!(read(ycbcr, "3,2,1", &[76, 85, 255]).0, [0, 0, 254]);
        let palette = format(ColorModel::Palette(vec![[1, 2, 3], [4, 5, 6]]), 1);
        assert_eq!(read(palette.clone(), "", &[1, 0, 9]).0, [4, 5, 6, 1, 2, 3, 0, 0, 0]);
        assert_eq!(read(palette, "3,3,1", &[1]).0, [6, 6, 4]);
    }

    #[test]
    fn channels_that_are_not_there_are_refused() {
        let picked = ImageReading { channels: "5,3,2".parse().ok(), range: None };
        let error = PixelReader::new(format(ColorModel::Rgb, 4), picked).err().unwrap();
        assert!(error.to_string().contains("channel 5 is chosen, and it has 4"), "{error}");
    }

    #[test]
    fn planar_samples_are_found_by_their_band() {
        let reading = ImageReading { channels: "4,1,1".parse().ok(), range: None };
        let mut reader = PixelReader::new(format(ColorModel::Rgb, 4), reading).unwrap();
        assert_eq!(reader.needed(), [0, 3]);
        let mut rgb = Vec::new();
        reader.read(&Samples::Planar(vec![&[1_u8, 2][..], &[30, 40]]), &mut rgb);
        assert_eq!(rgb, [30, 1, 1, 40, 2, 2]);
    }
}
