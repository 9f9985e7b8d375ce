//! Directories of a TIFF file (TIFF 6.0) or BigTIFF file: pages and their tags.

use std::collections::HashSet;

use super::bytes::ByteSource;

/// Most pages that are looked at.
const MAX_PAGES: usize = 1 << 16;
/// Most tags of a page.
const MAX_TAGS: u64 = 1 << 16;
/// Longest text of a tag.
const MAX_TEXT: u64 = 1 << 20;
/// Most values of a tag that are read.
const MAX_VALUES: u64 = 1 << 24;

pub(super) const NEW_SUBFILE_TYPE: u16 = 254;
pub(super) const SUBFILE_TYPE: u16 = 255;
pub(super) const WIDTH: u16 = 256;
pub(super) const HEIGHT: u16 = 257;
pub(super) const BITS: u16 = 258;
pub(super) const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
pub(super) const STRIP_OFFSETS: u16 = 273;
pub(super) const ORIENTATION: u16 = 274;
pub(super) const SAMPLES: u16 = 277;
pub(super) const STRIP_ROWS: u16 = 278;
pub(super) const STRIP_BYTES: u16 = 279;
pub(super) const PLANAR: u16 = 284;
pub(super) const PREDICTOR: u16 = 317;
pub(super) const PALETTE: u16 = 320;
pub(super) const TILE_WIDTH: u16 = 322;
pub(super) const TILE_HEIGHT: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_BYTES: u16 = 325;
pub(super) const SUB_DIRECTORIES: u16 = 330;
pub(super) const EXTRA_SAMPLES: u16 = 338;
pub(super) const SAMPLE_FORMAT: u16 = 339;
pub(super) const SUBSAMPLING: u16 = 530;

/// Byte order and offset size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    big_endian: bool,
    /// Offsets of 8 bytes (BigTIFF), else of 4.
    wide: bool,
}

impl Layout {
    /// Returns the layout of a file that begins like a TIFF.
    pub(crate) fn detect(bytes: &[u8]) -> Option<Self> {
        match bytes.first_chunk()? {
            b"II*\0" => Some(Self { big_endian: false, wide: false }),
            b"MM\0*" => Some(Self { big_endian: true, wide: false }),
            b"II+\0" => Some(Self { big_endian: false, wide: true }),
            b"MM\0+" => Some(Self { big_endian: true, wide: true }),
            _ => None,
        }
    }

    /// Returns an unsigned number of up to 8 bytes.
    fn number(self, bytes: &[u8]) -> u64 {
        let digit = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        if self.big_endian {
            bytes.iter().fold(0, digit)
        } else {
            bytes.iter().rev().fold(0, digit)
        }
    }

    /// Returns the last `length` bytes of a number's digits in the file's order.
    pub(super) fn bytes(self, number: u64, length: usize) -> Vec<u8> {
        let mut bytes = number.to_le_bytes()[..length].to_vec();
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// Returns position and length of the header's offset of the first directory.
    pub(super) fn first_directory(self) -> (u64, usize) {
        if self.wide { (8, 8) } else { (4, 4) }
    }

    fn offset(self, file: &dyn ByteSource, position: u64) -> Option<u64> {
        let length = if self.wide { 8 } else { 4 };
        Some(self.number(&file.bytes_at(position, length)?))
    }

    /// True where the first byte of a number is its highest.
    pub(super) fn is_big_endian(self) -> bool {
        self.big_endian
    }
}

/// Position of a tag's values.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    /// Position of the first value in the file.
    position: u64,
}

/// A page's tags.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    layout: Layout,
    /// Position in the file.
    pub(super) position: u64,
    entries: Vec<Entry>,
}

impl Directory {
    /// Parses a directory, and returns the offset of the next, 0 for none.
    fn parse(file: &dyn ByteSource, layout: Layout, position: u64) -> Option<(Self, u64)> {
        let (count_length, entry_length) = if layout.wide { (8, 20) } else { (2, 12) };
        let first = position.checked_add(count_length)?;
        let count = layout.number(&file.bytes_at(position, count_length)?);
        if count > MAX_TAGS {
            return None;
        }
        let length = count * entry_length as u64;
        let end = first.checked_add(length)?;
        let entry = |bytes: &[u8], place: u64| {
            let value = if layout.wide { 12 } else { 8 };
            let mut entry = Entry {
                tag: layout.number(&bytes[..2]) as u16,
                kind: layout.number(&bytes[2..4]) as u16,
                count: layout.number(&bytes[4..value]),
                position: place + value as u64,
            };
            let size = entry.count.saturating_mul(kind_size(entry.kind));
            if size > (entry_length - value) as u64 {
                entry.position = layout.number(&bytes[value..]);
            }
            entry
        };
        let places = (first..end).step_by(entry_length);
        let bytes = file.bytes_at(first, length)?;
        let entries = bytes.chunks_exact(entry_length).zip(places);
        let entries = entries.map(|(bytes, place)| entry(bytes, place)).collect();
        let next = layout.offset(file, end).unwrap_or(0);
        Some((Self { layout, position, entries }, next))
    }

    fn entry(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.tag == tag).copied()
    }

    /// Returns position and length of a tag's first value.
    pub(super) fn place(&self, tag: u16) -> Option<(u64, usize)> {
        let entry = self.entry(tag)?;
        Some((entry.position, kind_size(entry.kind) as usize))
    }

    /// Returns the bytes of a tag's values.
    pub(super) fn length(&self, tag: u16) -> Option<u64> {
        let entry = self.entry(tag)?;
        Some(entry.count.saturating_mul(kind_size(entry.kind)))
    }

    /// Returns the values of a tag of integers or floats; none where it is missing or broken.
    pub(super) fn numbers(&self, file: &dyn ByteSource, tag: u16) -> Option<Vec<f64>> {
        let Entry { kind, count, .. } = self.entry(tag)?;
        let size = kind_size(kind) as usize;
        let number = |bytes: &[u8]| {
            let number = self.layout.number(bytes);
            match kind {
                11 => f64::from(f32::from_bits(number as u32)),
                12 => f64::from_bits(number),
                _ => number as f64,
            }
        };
        let is_number = matches!(kind, 1 | 3 | 4 | 11 | 12 | 13 | 16 | 18);
        if !is_number || count > MAX_VALUES {
            return None;
        }
        Some(self.raw(file, tag)?.chunks_exact(size).map(number).collect())
    }

    /// Returns the first value of a tag.
    pub(super) fn number(&self, file: &dyn ByteSource, tag: u16) -> Option<u64> {
        self.numbers(file, tag)?.first().map(|&number| number as u64)
    }

    /// Returns the text of a tag.
    pub(super) fn text(&self, file: &dyn ByteSource, tag: u16) -> Option<String> {
        if self.entry(tag)?.count > MAX_TEXT {
            return None;
        }
        let bytes = self.raw(file, tag)?;
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn raw(&self, file: &dyn ByteSource, tag: u16) -> Option<Vec<u8>> {
        let Entry { kind, count, position, .. } = self.entry(tag)?;
        file.bytes_at(position, count.checked_mul(kind_size(kind))?)
    }
}

/// Bytes of a value of a type.
fn kind_size(kind: u16) -> u64 {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 1,
    }
}

/// The page to read.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) directory: Directory,
    /// Width and height.
    pub(super) size: [u32; 2],
    /// Number of other pages of full resolution.
    pub(super) others: usize,
}

/// The pages of a file, in its order.
fn chain(file: &dyn ByteSource, layout: Layout) -> Vec<Directory> {
    let mut chain = Vec::new();
    let mut seen = HashSet::new();
    let mut next = layout.offset(file, layout.first_directory().0).unwrap_or(0);
    while next != 0 && chain.len() < MAX_PAGES && seen.insert(next) {
        let Some((directory, after)) = Directory::parse(file, layout, next) else { break };
        chain.push(directory);
        next = after;
    }
    chain
}

impl Directory {
    /// Width and height.
    fn size(&self, file: &dyn ByteSource) -> Option<[u32; 2]> {
        let side = |tag| u32::try_from(self.number(file, tag)?).ok();
        Some([side(WIDTH)?, side(HEIGHT)?])
    }

    /// True for pages that are neither a reduced one nor a mask.
    fn is_full(&self, file: &dyn ByteSource) -> bool {
        let new = self.number(file, NEW_SUBFILE_TYPE).unwrap_or(0);
        let old = self.number(file, SUBFILE_TYPE).unwrap_or(0);
        new & 0b101 == 0 && old != 2
    }
}

/// Returns the place in the file, from 0, of the only page of full size, or else the number of pages
/// of which each could be meant. Pages that are smaller in both directions are previews.
pub(super) fn only_page(file: &dyn ByteSource, layout: Layout) -> Result<usize, usize> {
    let pages = chain(file, layout).into_iter().enumerate();
    let sized = pages.filter(|(_, page)| page.is_full(file));
    let sized: Vec<(usize, [u32; 2])> =
        sized.filter_map(|(place, page)| Some((place, page.size(file)?))).collect();
    let pixels = |[width, height]: [u32; 2]| u64::from(width) * u64::from(height);
    let largest = sized.iter().rev().max_by_key(|(_, size)| pixels(*size));
    let Some(&(place, [width, height])) = largest else { return Ok(0) };
    let could_be =
        |[other_width, other_height]: [u32; 2]| other_width >= width || other_height >= height;
    match sized.iter().filter(|(_, size)| could_be(*size)).count() {
        0 | 1 => Ok(place),
        pages => Err(pages),
    }
}

/// Chooses the largest page that is neither a reduced one nor a mask, the first of equals.
pub(super) fn choose(file: &dyn ByteSource, layout: Layout) -> Option<Choice> {
    let chain = chain(file, layout);
    let mut below = Vec::new();
    for directory in &chain {
        for position in directory.numbers(file, SUB_DIRECTORIES).unwrap_or_default() {
            below.extend(Directory::parse(file, layout, position as u64));
        }
    }
    let below = below.into_iter().map(|(directory, _)| directory);
    let is_full = |directory: &Directory| directory.is_full(file);
    // Raw photos have a preview in the chain and the image itself below it.
    let (mut pages, rest): (Vec<_>, Vec<_>) = chain.into_iter().partition(is_full);
    if pages.is_empty() {
        pages = below.filter(is_full).collect();
    }
    let only_reduced = pages.is_empty();
    if only_reduced {
        pages = rest;
    }
    let sized = pages.into_iter().filter_map(|directory| Some((directory.size(file)?, directory)));
    let sized: Vec<_> = sized.collect();
    let others = if only_reduced { 0 } else { sized.len().saturating_sub(1) };
    let pixels = |[width, height]: [u32; 2]| u64::from(width) * u64::from(height);
    let largest = sized.into_iter().rev().max_by_key(|(size, _)| pixels(*size));
    largest.map(|(size, directory)| Choice { directory, size, others })
}
