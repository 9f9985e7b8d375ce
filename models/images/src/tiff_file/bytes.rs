//! Bytes of a file, in memory or on disk, at any position.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The bytes of a file.
pub(crate) trait ByteSource {
    /// Number of bytes.
    fn size(&self) -> u64;

    /// Fills a buffer with the bytes from a position on; fails where there are fewer.
    fn fill(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Returns some bytes; None where there are fewer, or they cannot be read.
    fn bytes_at(&self, position: u64, length: u64) -> Option<Vec<u8>> {
        if position.checked_add(length)? > self.size() {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.fill(position, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl ByteSource for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(position).ok();
        let bytes = start.and_then(|start| self.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file on disk that is read where it is needed.
#[derive(Debug, Clone)]
pub(crate) struct FileSource {
    file: Arc<File>,
    size: u64,
}

impl FileSource {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), size })
    }
}

impl ByteSource for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn fill(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }
}

/// A file of which a few bytes read differently.
#[derive(Debug)]
pub(super) struct Overlaid<S> {
    source: S,
    position: u64,
    /// Positions and bytes.
    patches: [Option<(u64, Vec<u8>)>; 2],
}

impl<S: ByteSource> Overlaid<S> {
    pub(super) fn new(source: S, patches: [Option<(u64, Vec<u8>)>; 2]) -> Self {
        Self { source, position: 0, patches }
    }
}

impl<S: ByteSource> Read for Overlaid<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.size().saturating_sub(self.position);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if count == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..count];
        self.source.fill(self.position, buffer)?;
        for (position, bytes) in self.patches.iter().flatten() {
            for (place, &byte) in (*position..).zip(bytes) {
                let inside = place.checked_sub(self.position);
                let inside = inside.and_then(|place| usize::try_from(place).ok());
                if let Some(target) = inside.and_then(|place| buffer.get_mut(place)) {
                    *target = byte;
                }
            }
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl<S: ByteSource> Seek for Overlaid<S> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let place = match position {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(offset) => self.source.size().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = place.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
