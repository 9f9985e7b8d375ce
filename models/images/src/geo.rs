//! The place of an image on Earth, as a GeoTIFF gives it.

/// Tags of a GeoTIFF (OGC 19-008) and of GDAL, as they are stored; numbers of a missing tag are
/// empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GeoReference {
    /// `ModelPixelScaleTag`: units of the coordinate system per pixel, in x, y and z.
    pub pixel_scale: Vec<f64>,
    /// `ModelTiepointTag`: column, row, 0 and x, y, z of points, six numbers each.
    pub tie_points: Vec<f64>,
    /// `ModelTransformationTag`: a matrix of 4x4 from columns and rows to x and y, row by row.
    pub transformation: Vec<f64>,
    /// `GeoKeyDirectoryTag`.
    pub key_directory: Vec<u16>,
    /// `GeoDoubleParamsTag`.
    pub double_params: Vec<f64>,
    /// `GeoAsciiParamsTag`.
    pub ascii_params: String,
    /// `GDAL_NODATA`: the value of samples without data.
    pub nodata: Option<String>,
}

/// Place of an image on Earth, and its pixels without data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place {
    /// The tags.
    pub geo: GeoReference,
    /// For each pixel, true where all colors have the value of missing data; empty where none has.
    pub missing: Vec<bool>,
}

impl Place {
    /// Gives the label of ignored pixels to those without data.
    pub fn ignore_missing(&self, labels: &mut [u8], ignore: u8) {
        for (label, _) in labels.iter_mut().zip(&self.missing).filter(|(_, missing)| **missing) {
            *label = ignore;
        }
    }
}

impl GeoReference {
    /// True where no tag was there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the value of samples without data, if it is a number.
    pub fn nodata_value(&self) -> Option<f64> {
        self.nodata.as_deref()?.trim().parse().ok()
    }

    /// Returns the affine transformation `[a, b, c, d, e, f]` with x = a·column + b·row + c and
    /// y = d·column + e·row + f, whose origin is the upper left corner of the image.
    pub fn affine(&self) -> Option<[f64; 6]> {
        if let [a, b, _, c, d, e, _, f, ..] = self.transformation[..] {
            return Some([a, b, c, d, e, f]);
        }
        let ([x_scale, y_scale, ..], [column, row, _, x, y, ..]) =
            (&self.pixel_scale[..], &self.tie_points[..])
        else {
            return None;
        };
        Some([*x_scale, 0.0, x - column * x_scale, 0.0, -y_scale, y + row * y_scale])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_tie_point_or_a_matrix_give_the_transformation() {
        let scaled = GeoReference {
            pixel_scale: vec![0.5, 0.25, 0.0],
            tie_points: vec![10.0, 20.0, 0.0, 500_000.0, 5_400_000.0, 0.0],
            nodata: Some("-9999 ".to_owned()),
            ..GeoReference::default()
        };
        assert_eq!(scaled.affine(), Some([0.5, 0.0, 499_995.0, 0.0, -0.25, 5_400_005.0]));
        assert_eq!(scaled.nodata_value(), Some(-9999.0));
        let mut transformation = vec![0.0; 16];
        transformation[..8].copy_from_slice(&[2.0, 1.0, 0.0, 7.0, 1.0, -2.0, 0.0, 9.0]);
        let turned = GeoReference { transformation, ..GeoReference::default() };
        assert_eq!(turned.affine(), Some([2.0, 1.0, 7.0, 1.0, -2.0, 9.0]));
        assert!(GeoReference::default().is_empty() && !turned.is_empty());
        assert_eq!(GeoReference::default().affine(), None);
    }
}
