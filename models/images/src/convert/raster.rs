//! Areas of annotations as pixels: polygons and run lengths.

/// An area of an image.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Area {
    /// Polygons `[x, y]`, whose areas are joined.
    Polygons(Vec<Vec<[f64; 2]>>),
    /// A polygon without the areas of others.
    Holed { outer: Vec<[f64; 2]>, holes: Vec<Vec<[f64; 2]>> },
    /// Lengths of runs outside and inside in turns, down the columns of the image.
    Columns(Vec<usize>),
    /// The same along the rows of a box: left, top, width and the lengths.
    Rows { left: usize, top: usize, width: usize, lengths: Vec<usize> },
    /// True for the pixels of a box: left, top, width and the pixels row by row.
    Pixels { left: usize, top: usize, width: usize, pixels: Vec<bool> },
}

/// The class index of each pixel, 255 where nothing was drawn.
#[derive(Debug)]
pub(super) struct Canvas {
    pub(super) size: [usize; 2],
    pub(super) classes: Vec<u8>,
    /// Pixels drawn over by another class.
    pub(super) overlapping: u64,
    /// Pixels drawn, those drawn twice counted twice.
    drawn: u64,
}

impl Canvas {
    pub(super) fn new(size: [usize; 2]) -> Self {
        Self::with_classes(size, vec![255; size[0] * size[1]])
    }

    /// A canvas with the class of each pixel.
    pub(super) fn with_classes(size: [usize; 2], classes: Vec<u8>) -> Self {
        Self { size, classes, overlapping: 0, drawn: 0 }
    }

    /// Sets the class of a pixel by its index along the rows; pixels outside are left out.
    pub(super) fn set(&mut self, pixel: usize, class: u8) {
        if let Some(old) = self.classes.get_mut(pixel) {
            self.drawn += 1;
            self.overlapping += u64::from(*old != 255 && *old != class);
            *old = class;
        }
    }

    /// Draws an area; returns false if it has no pixel on the canvas.
    pub(super) fn fill(&mut self, area: &Area, class: u8) -> bool {
        let before = self.drawn;
        match area {
            Area::Polygons(polygons) => {
                for polygon in polygons {
                    let lengths = polygon_lengths(polygon, self.size);
                    self.fill_columns(&lengths, class);
                }
            }
            Area::Holed { outer, holes } => {
                let pixels = self.size[0] * self.size[1];
                let mut is_hole = vec![false; pixels];
                for hole in holes {
                    let hole = polygon_lengths(hole, self.size);
                    for pixel in inside(&hole).take_while(|&pixel| pixel < pixels) {
                        is_hole[pixel] = true;
                    }
                }
                let outer = polygon_lengths(outer, self.size);
                for pixel in inside(&outer).take_while(|&pixel| pixel < pixels) {
                    if !is_hole[pixel] {
                        self.set_down_columns(pixel, class);
                    }
                }
            }
            Area::Columns(lengths) => self.fill_columns(lengths, class),
            Area::Rows { left, top, width: box_width, lengths } => {
                for pixel in inside(lengths) {
                    self.set_in_box([*left, *top, *box_width], pixel, class);
                }
            }
            Area::Pixels { left, top, width: box_width, pixels } => {
                for (pixel, _) in pixels.iter().enumerate().filter(|(_, set)| **set) {
                    self.set_in_box([*left, *top, *box_width], pixel, class);
                }
            }
        }
        self.drawn > before
    }

    fn set_in_box(&mut self, [left, top, box_width]: [usize; 3], pixel: usize, class: u8) {
        let [height, width] = self.size;
        let Some(row) = pixel.checked_div(box_width) else { return };
        let (row, column) = (top + row, left + pixel % box_width);
        if row < height && column < width {
            self.set(row * width + column, class);
        }
    }

    fn fill_columns(&mut self, lengths: &[usize], class: u8) {
        let [height, width] = self.size;
        for pixel in inside(lengths).take_while(|&pixel| pixel < height * width) {
            self.set_down_columns(pixel, class);
        }
    }

    /// Sets the class of a pixel by its index down the columns.
    fn set_down_columns(&mut self, pixel: usize, class: u8) {
        let [height, width] = self.size;
        self.set(pixel % height * width + pixel / height, class);
    }
}

/// Indices inside, of lengths outside and inside in turns.
fn inside(lengths: &[usize]) -> impl Iterator<Item = usize> {
    let mut end = 0_usize;
    let mut runs = Vec::with_capacity(lengths.len() / 2);
    for pair in lengths.chunks(2) {
        let start = end.saturating_add(pair[0]);
        end = start.saturating_add(pair.get(1).copied().unwrap_or(0));
        runs.push(start..end);
    }
    runs.into_iter().flatten()
}

/// Rasterizes a polygon as pycocotools does (`rleFrPoly`), so that the pixels are those that other
/// programs see: its outline on a grid five times finer, then the pixels whose centers it crosses
/// down each column.
fn polygon_lengths(polygon: &[[f64; 2]], [height, width]: [usize; 2]) -> Vec<usize> {
    const SCALE: f64 = 5.0;
    if polygon.len() < 3 || height == 0 || width == 0 {
        return Vec::new();
    }
    // Far outside nothing changes, and lines stay short.
    let bound =
        |value: f64, side: usize| value.clamp(-(side as f64) - 1.0, 2.0 * side as f64 + 1.0);
    let fine = |value: f64| (SCALE * value + 0.5) as i64;
    let corner = |&[x, y]: &[f64; 2]| [fine(bound(x, width)), fine(bound(y, height))];
    let mut corners: Vec<[i64; 2]> = polygon.iter().map(corner).collect();
    corners.extend(corners.first().copied());
    let mut outline: Vec<[i64; 2]> = Vec::new();
    for pair in corners.windows(2) {
        outline_of_line(pair[0], pair[1], &mut outline);
    }
    let (last_column, rows) = ((width - 1) as f64, height as f64);
    let mut crossings: Vec<usize> = Vec::new();
    for pair in outline.windows(2) {
        let ([before_x, before_y], [x, y]) = (pair[0], pair[1]);
        if x == before_x {
            continue;
        }
        let column = if x < before_x { x } else { x - 1 };
        let column = (column as f64 + 0.5) / SCALE - 0.5;
        if column.floor() != column || column < 0.0 || column > last_column {
            continue;
        }
        let row = ((y.min(before_y) as f64 + 0.5) / SCALE - 0.5).clamp(0.0, rows).ceil();
        crossings.push(column as usize * height + row as usize);
    }
    crossings.sort_unstable();
    let mut lengths = Vec::with_capacity(crossings.len() + 1);
    let mut last = 0;
    for crossing in crossings {
        lengths.push(crossing - last);
        last = crossing;
    }
    lengths
}

/// Adds the points of a line, both ends included.
fn outline_of_line(from: [i64; 2], to: [i64; 2], outline: &mut Vec<[i64; 2]>) {
    let [[mut from_x, mut from_y], [mut to_x, mut to_y]] = [from, to];
    let (across, down) = ((to_x - from_x).abs(), (to_y - from_y).abs());
    let is_flat = across >= down;
    let flip = is_flat && from_x > to_x || !is_flat && from_y > to_y;
    if flip {
        std::mem::swap(&mut from_x, &mut to_x);
        std::mem::swap(&mut from_y, &mut to_y);
    }
    let length = across.max(down);
    let slope = if is_flat {
        (to_y - from_y) as f64 / across.max(1) as f64
    } else {
        (to_x - from_x) as f64 / down as f64
    };
    for step in 0..=length {
        let step = if flip { length - step } else { step };
        let along = |start: i64| (start as f64 + slope * step as f64 + 0.5) as i64;
        outline.push(if is_flat {
            [from_x + step, along(from_y)]
        } else {
            [along(from_x), from_y + step]
        });
    }
}

/// An ellipse as a polygon; the rotation is in degrees.
pub(super) fn ellipse(center: [f64; 2], radii: [f64; 2], rotation: f64) -> Vec<[f64; 2]> {
    const CORNERS: u32 = 128;
    let corner = |index: u32| {
        let angle = f64::from(index) / f64::from(CORNERS) * std::f64::consts::TAU;
        [center[0] + radii[0] * angle.cos(), center[1] + radii[1] * angle.sin()]
    };
    rotate((0..CORNERS).map(corner).collect(), center, rotation)
}

/// A rectangle as a polygon.
pub(super) fn rectangle([left, top]: [f64; 2], [right, bottom]: [f64; 2]) -> Vec<[f64; 2]> {
    vec![[left, top], [right, top], [right, bottom], [left, bottom]]
}

/// Turns a polygon clockwise about a point, in degrees.
pub(super) fn rotate(polygon: Vec<[f64; 2]>, center: [f64; 2], degrees: f64) -> Vec<[f64; 2]> {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let turn = |[x, y]: [f64; 2]| {
        let (x, y) = (x - center[0], y - center[1]);
        [center[0] + x * cosine - y * sine, center[1] + x * sine + y * cosine]
    };
    polygon.into_iter().map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(size: [usize; 2], area: &Area) -> Vec<String> {
        let mut canvas = Canvas::new(size);
        canvas.fill(area, 1);
        let row =
            |row: &[u8]| row.iter().map(|&class| if class == 1 { '#' } else { '.' }).collect();
        canvas.classes.chunks(size[1]).map(row).collect()
    }

    #[test]
    fn areas_become_the_pixels_that_pycocotools_gives() {
        // `pycocotools.mask.decode(frPyObjects([[1, 1, 5, 1, 5, 3, 1, 3]], 5, 7))` and so on.
        let square = Area::Polygons(vec![rectangle([1.0, 1.0], [5.0, 3.0])]);
        assert_eq!(rows([5, 7], &square), [".......", ".####..", ".####..", ".......", "......."]);
        let outer = rectangle([1.0, 1.0], [6.0, 5.0]);
        let holed = Area::Holed { outer, holes: vec![rectangle([2.0, 2.0], [4.0, 4.0])] };
        assert_eq!(rows([5, 7], &holed), [".......", ".#####.", ".#..##.", ".#..##.", ".#####."]);
        let outside = Area::Polygons(vec![rectangle([-9e9, -5.0], [2.0, 9e9])]);
        assert_eq!(rows([2, 4], &outside), ["##..", "##.."]);
        let columns = Area::Columns(vec![1, 2, 2, 1]);
        assert_eq!(rows([3, 2], &columns), ["..", "#.", "##"]);
        let boxed = Area::Rows { left: 1, top: 1, width: 2, lengths: vec![1, 2, 9, 9] };
        assert_eq!(rows([3, 3], &boxed), ["...", "..#", ".#."]);
        assert_eq!(rows([1, 1], &Area::Polygons(vec![vec![[0.0, 0.0]]])), ["."]);
    }

    #[test]
    fn pixels_of_several_classes_are_counted() {
        let mut canvas = Canvas::new([2, 2]);
        assert!(canvas.fill(&Area::Columns(vec![0, 3]), 0));
        assert!(canvas.fill(&Area::Columns(vec![2, 2]), 1));
        assert!(!canvas.fill(&Area::Polygons(vec![vec![[9.0, 9.0], [12.0, 9.0], [9.0, 12.0]]]), 1));
        assert_eq!((canvas.classes, canvas.overlapping), (vec![0, 1, 0, 1], 1));
    }
}
