//! World files: the place of an image on Earth as six numbers in a text beside it (`a.pgw` or `a.pngw`
//! beside `a.png`, `a.wld`).

use std::path::{Path, PathBuf};

use protoseg_models::errors::FileError;

use crate::geo::{GeoReference, Place};

/// The reason why a world file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorldFileError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another content.
    #[error(
        "{} is no world file: six numbers are expected, a line each, the pixel's size first; mend it, or \
         take it away",
        .0.display()
    )]
    Content(PathBuf),
}

/// Returns the place of an image by its own, if it tells one, or else by the world file beside it. A
/// world file tells no coordinate system.
pub fn complete(place: Option<Place>, image: &Path) -> Result<Option<Place>, WorldFileError> {
    if place.as_ref().is_some_and(|place| place.geo.affine().is_some()) {
        return Ok(place);
    }
    let Some(path) = find(image) else { return Ok(place) };
    let text = std::fs::read(&path).map_err(FileError::at(&path))?;
    let geo = parse(&String::from_utf8_lossy(&text)).ok_or(WorldFileError::Content(path))?;
    let Place { geo: own, missing } = place.unwrap_or_default();
    let GeoReference { pixel_scale, tie_points, transformation, .. } = geo;
    let geo = GeoReference { pixel_scale, tie_points, transformation, ..own };
    Ok(Some(Place { geo, missing }))
}

/// Returns the path of the world file beside an image, if there is one.
pub fn find(image: &Path) -> Option<PathBuf> {
    names(image).into_iter().find(|path| path.is_file())
}

/// Paths of the world files that an image may have.
fn names(image: &Path) -> Vec<PathBuf> {
    let Some(ending) = image.extension().and_then(|ending| ending.to_str()) else {
        return Vec::new();
    };
    let ending = ending.to_lowercase();
    let first_and_last: String =
        ending.chars().next().into_iter().chain(ending.chars().next_back()).collect();
    [format!("{first_and_last}w"), format!("{ending}w"), "wld".to_owned()]
        .iter()
        .flat_map(|ending| [ending.clone(), ending.to_uppercase()])
        .map(|ending| image.with_extension(ending))
        .collect()
}

/// The tags of six numbers: x and y of a step to the right and of a step down, and of the middle of the
/// upper left pixel.
fn parse(text: &str) -> Option<GeoReference> {
    let numbers: Option<Vec<f64>> = text
        .trim_start_matches('\u{feff}')
        .split_whitespace()
        .map(|word| word.replace(',', ".").parse().ok().filter(|number: &f64| number.is_finite()))
        .collect();
    let [right_x, right_y, down_x, down_y, middle_x, middle_y] = numbers?[..] else { return None };
    let x = middle_x - 0.5 * (right_x + down_x);
    let y = middle_y - 0.5 * (right_y + down_y);
    if right_x * down_y == right_y * down_x {
        // Pixels without an area.
        return None;
    }
    let mut geo = GeoReference::default();
    if right_y == 0.0 && down_x == 0.0 && right_x > 0.0 && down_y < 0.0 {
        geo.pixel_scale = vec![right_x, -down_y, 0.0];
        geo.tie_points = vec![0.0, 0.0, 0.0, x, y, 0.0];
    } else {
        let rows =
            [[right_x, down_x, 0.0, x], [right_y, down_y, 0.0, y], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
        geo.transformation = rows.concat();
    }
    Some(geo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    #[test]
    fn the_middle_of_the_first_pixel_becomes_its_corner() {
        let north = parse("0.5\n0.0\n0\n-0.25\n500000.25\n5400000.0\n").unwrap();
        assert_eq!(north.affine(), Some([0.5, 0.0, 500_000.0, 0.0, -0.25, 5_400_000.125]));
        let turned = parse("\u{feff}0,5 1 2 -3 10 20").unwrap();
        assert_eq!(turned.affine(), Some([0.5, 2.0, 8.75, 1.0, -3.0, 21.0]));
        assert_eq!(turned.transformation.len(), 16);
        for text in
            ["", "1 2 3 4 5", "1 0 0 -1 5 x", "0 0 0 0 5 5", "1 0 0 -1 nan 5", "1 0 0 -1 5 5 5"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_image_has_its_own_place_or_that_of_a_file_beside_it() {
        let world = "2\n0\n0\n-2\n101\n199\n";
        let root = tree(&[
            ("a.pgw", world),
            ("b.tiffw", world),
            ("c.JGW", world),
            ("d.wld", world),
            ("e.pgw", "none"),
        ])
        .unwrap();
        let place = |name: &str| complete(None, &root.path().join(name));
        for name in ["a.png", "b.tiff", "c.jpeg", "d.webp"] {
            let geo = place(name).unwrap().unwrap().geo;
            assert_eq!(geo.affine(), Some([2.0, 0.0, 100.0, 0.0, -2.0, 200.0]), "{name}");
        }
        assert_eq!(place("f.png").unwrap(), None);
        assert!(place("e.png").unwrap_err().to_string().contains("e.pgw is no world file"));
        let scale = GeoReference { pixel_scale: vec![1.0; 3], ..GeoReference::default() };
        let own =
            Place { geo: GeoReference { tie_points: vec![0.0; 6], ..scale }, missing: vec![true] };
        let path = root.path().join("a.png");
        assert_eq!(complete(Some(own.clone()), &path).unwrap(), Some(own));
        let nodata = GeoReference { nodata: Some("0".into()), ..GeoReference::default() };
        let nodata = Place { geo: nodata, missing: vec![true] };
        let both = complete(Some(nodata), &path).unwrap().unwrap();
        assert!(both.geo.affine().is_some() && both.geo.nodata.is_some() && both.missing[0]);
    }
}
