//! Sizes of images that the errors of ONNX Runtime tell: of networks with a table of positions, which
//! takes one number of places.

/// Least and largest side that is tried.
const SIDES: std::ops::RangeInclusive<usize> = 16..=2048;

/// Most places of a sequence that stand for no part of the image, such as that of the class.
const EXTRA: usize = 2;

/// Returns the sizes that errors tell, the likeliest first. Each error comes with the height and
/// width of its image.
pub(super) fn told_sizes(errors: impl Iterator<Item = ([usize; 2], String)>) -> Vec<[usize; 2]> {
    let errors: Vec<([usize; 2], Vec<usize>)> =
        errors.map(|(size, text)| (size, numbers(&text))).collect();
    let mut sizes: Vec<[usize; 2]> = Vec::new();
    let mut add = |side: usize| {
        if SIDES.contains(&side) && !sizes.contains(&[side; 2]) {
            sizes.push([side; 2]);
        }
    };
    for (size, numbers) in &errors {
        pairs(numbers).for_each(|(table, found)| {
            side_of_patches(*size, table, found).into_iter().for_each(&mut add);
        });
    }
    for (size, numbers) in &errors {
        pairs(numbers).for_each(|(table, found)| {
            side_of_sequence(*size, table, found).into_iter().for_each(&mut add);
        });
    }
    for (_, numbers) in &errors {
        numbers.iter().copied().for_each(&mut add);
    }
    // Tables that are as fine as the image.
    for (_, numbers) in &errors {
        let squares = numbers.iter().filter(|number| number.isqrt().pow(2) == **number);
        squares.for_each(|number| add(number.isqrt()));
    }
    sizes
}

fn numbers(text: &str) -> Vec<usize> {
    text.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .filter(|number| *number > 1)
        .collect()
}

/// All pairs of different numbers: places of a table, and places that were found instead.
fn pairs(numbers: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    numbers.iter().flat_map(move |table| {
        numbers.iter().filter(move |found| *found != table).map(move |found| (*table, *found))
    })
}

/// The side at which as many patches come out as a table has rows or columns.
fn side_of_patches(size: [usize; 2], table: usize, found: usize) -> Option<usize> {
    let patch =
        size.into_iter().find(|side| side.is_multiple_of(found)).map(|side| side / found)?;
    if patch > 1 { table.checked_mul(patch) } else { None }
}

/// The side of a square at which a sequence of patches has as many places as a table.
fn side_of_sequence([height, width]: [usize; 2], table: usize, found: usize) -> Option<usize> {
    // Those that divide the image first: others leave a rest out.
    let divides = |patch: &usize| height.is_multiple_of(*patch) && width.is_multiple_of(*patch);
    let rest = (2..=64).filter(|patch| !divides(patch) && height.min(width) >= *patch);
    let patches = (2..=64).filter(divides).chain(rest);
    let count = |patch: usize| (height / patch) * (width / patch);
    for extra in 0..=EXTRA {
        let places = table.checked_sub(extra)?;
        let rows = places.isqrt();
        let square = rows > 0 && rows * rows == places;
        if let Some(patch) = patches.clone().find(|patch| square && count(*patch) + extra == found)
        {
            return rows.checked_mul(patch);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(size: [usize; 2], text: &str) -> Vec<usize> {
        let sizes = told_sizes(std::iter::once((size, text.to_owned())));
        sizes.into_iter().map(|[side, _]| side).collect()
    }

    fn first(size: [usize; 2], text: &str) -> Option<usize> {
        sides(size, text).first().copied()
    }

    #[test]
    fn tables_of_positions_tell_their_size() {
        // 6x6 patches of 16 pixels and a place for the class, where 8x12 patches came.
        assert_eq!(first([128, 192], "by a dimension other than 1. 37 by 97"), Some(96));
        assert_eq!(first([128, 192], "577 by 97"), Some(384));
        // 24x24 patches of 14 pixels.
        assert_eq!(first([126, 196], "576 by 126"), Some(336));
        // A table of 3x3 places where 16x24 patches of 8 pixels came.
        assert_eq!(first([128, 192], "3 by 16"), Some(24));
        // A table as fine as the image.
        assert!(sides([128, 192], "64 by 128").contains(&64));
        assert_eq!(first([128, 192], "no numbers but 0 and 1"), None);
    }
}
