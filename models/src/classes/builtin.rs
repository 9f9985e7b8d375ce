//! The class tables of Cityscapes, Pascal VOC and CamVid.

use super::{Class, ClassTable};

impl ClassTable {
    /// The 19 classes of Cityscapes; source ids are those of `labelIds` files
    /// (`cityscapesscripts/helpers/labels.py`).
    pub fn cityscapes() -> Self {
        Self::fixed(&[
            ("road", [128, 64, 128], 7),
            ("sidewalk", [244, 35, 232], 8),
            ("building", [70, 70, 70], 11),
            ("wall", [102, 102, 156], 12),
            ("fence", [190, 153, 153], 13),
            ("pole", [153, 153, 153], 17),
            ("traffic light", [250, 170, 30], 19),
            ("traffic sign", [220, 220, 0], 20),
            ("vegetation", [107, 142, 35], 21),
            ("terrain", [152, 251, 152], 22),
            ("sky", [70, 130, 180], 23),
            ("person", [220, 20, 60], 24),
            ("rider", [255, 0, 0], 25),
            ("car", [0, 0, 142], 26),
            ("truck", [0, 0, 70], 27),
            ("bus", [0, 60, 100], 28),
            ("train", [0, 80, 100], 31),
            ("motorcycle", [0, 0, 230], 32),
            ("bicycle", [119, 11, 32], 33),
        ])
    }

    /// The 21 classes of Pascal VOC 2012, background first, with the colors of its label files.
    pub fn voc() -> Self {
        Self::fixed(&[
            ("background", [0, 0, 0], 0),
            ("aeroplane", [128, 0, 0], 1),
            ("bicycle", [0, 128, 0], 2),
            ("bird", [128, 128, 0], 3),
            ("boat", [0, 0, 128], 4),
            ("bottle", [128, 0, 128], 5),
            ("bus", [0, 128, 128], 6),
            ("car", [128, 128, 128], 7),
            ("cat", [64, 0, 0], 8),
            ("chair", [192, 0, 0], 9),
            ("cow", [64, 128, 0], 10),
            ("diningtable", [192, 128, 0], 11),
            ("dog", [64, 0, 128], 12),
            ("horse", [192, 0, 128], 13),
            ("motorbike", [64, 128, 128], 14),
            ("person", [192, 128, 128], 15),
            ("pottedplant", [0, 64, 0], 16),
            ("sheep", [128, 64, 0], 17),
            ("sofa", [0, 192, 0], 18),
            ("train", [128, 192, 0], 19),
            ("tvmonitor", [0, 64, 128], 20),
        ])
    }

    /// The 11 classes of CamVid in its usual form; 11 in its label files is void.
    pub fn camvid() -> Self {
        Self::fixed(&[
            ("Sky", [128, 128, 128], 0),
            ("Building", [128, 0, 0], 1),
            ("Pole", [192, 192, 128], 2),
            ("Road", [128, 64, 128], 3),
            ("Pavement", [60, 40, 222], 4),
            ("Tree", [128, 128, 0], 5),
            ("SignSymbol", [192, 128, 128], 6),
            ("Fence", [64, 64, 128], 7),
            ("Car", [64, 0, 128], 8),
            ("Pedestrian", [64, 64, 0], 9),
            ("Bicyclist", [0, 128, 192], 10),
        ])
    }

    fn fixed(rows: &[(&str, [u8; 3], u8)]) -> Self {
        let class = |&(name, color, source_id): &(&str, [u8; 3], u8)| Class {
            name: name.to_owned(),
            color,
            source_id,
        };
        Self { classes: rows.iter().map(class).collect() }
    }
}
