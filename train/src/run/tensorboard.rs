//! Writer of TensorBoard event files with scalars, in TensorFlow's format.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// Offset that TensorFlow adds to checksums, so that checksums of data that contains checksums are
/// no special case.
const MASK: u32 = 0xa282_ead8;
const PREFIX: &str = "events.out.tfevents.";
/// `SessionLog.START`.
const START: i32 = 1;

/// The used part of `tensorflow.Event`; its last three fields are a `oneof` there, so at most one
/// is set.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.SummaryValue`.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// Part of a `oneof`, so it is written even when 0.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An open event file. Written events survive the end of the process.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Creates `folder/events.out.tfevents.SECONDS.HOST.STEP`, and the folder. `step` is the first
    /// step of the file: TensorBoard drops scalars of this and later steps from earlier files of
    /// the folder. A run that resumes after step 50 passes 51.
    pub fn create(folder: &Path, step: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut seconds = since_1970().as_secs();
        // TensorBoard reads files in the order of their names: a new one must be last even within
        // the same second, or after the clock was set back.
        for entry in folder.read_dir()? {
            if let Some(earlier) = seconds_of(&entry?.file_name().to_string_lossy()) {
                seconds = seconds.max(earlier.saturating_add(1));
            }
        }
        let path = folder.join(format!("{PREFIX}{seconds}.{}.{step}", host()));
        let mut events =
            Self { file: OpenOptions::new().append(true).create_new(true).open(path)? };
        events
            .append(Event { file_version: Some("brain.Event:2".to_owned()), ..Event::default() })?;
        let session_log = Some(SessionLog { status: START });
        events.append(Event { step: signed(step)?, session_log, ..Event::default() })?;
        Ok(events)
    }

    /// Appends a value to the series `tag`, as a 32-bit float; slashes in a tag group series. After
    /// an error the file may end in a torn record, behind which TensorBoard reads nothing.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> io::Result<()> {
        let value = SummaryValue { tag: tag.to_owned(), simple_value: Some(value as f32) };
        self.append(Event {
            step: signed(step)?,
            summary: Some(Summary { value: vec![value] }),
            ..Event::default()
        })
    }

    /// Waits until all events are on disk, so that they survive a power failure too.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes an event with the current time, in one unbuffered call.
    fn append(&mut self, event: Event) -> io::Result<()> {
        let payload = Event { wall_time: since_1970().as_secs_f64(), ..event }.encode_to_vec();
        self.file.write_all(&record(&payload))
    }
}

/// A TFRecord: length and payload, each followed by its checksum.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] =
        [&length, &checksum(&length).to_le_bytes(), payload, &checksum(payload).to_le_bytes()];
    parts.concat()
}

/// Masked CRC-32C.
fn checksum(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(MASK)
}

fn signed(step: u64) -> io::Result<i64> {
    i64::try_from(step).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Time since 1970; 0 if the clock is set to an earlier year.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The seconds in an event file's name.
fn seconds_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

/// Host name, reduced to characters that suit a file name.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fits = |character: &char| character.is_ascii_alphanumeric() || "-_".contains(*character);
    let name: String = name.chars().filter(fits).take(64).collect();
    if name.is_empty() { "protoseg".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of a file; asserts every checksum.
    fn read(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let count = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(rest[..4], checksum(length).to_le_bytes());
            let payload = &rest[4..4 + count];
            assert_eq!(rest[4 + count..8 + count], checksum(payload).to_le_bytes());
            events.push(Event::decode(payload).unwrap());
            bytes = &rest[8 + count..];
        }
        events
    }

    #[test]
    fn checksums_equal_those_of_rfc_3720() {
        // RFC 3720, appendix B.4.
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC32C.checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(CRC32C.checksum(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(CRC32C.checksum(b"123456789"), 0xe306_9283);
        // First bytes of the files that TensorFlow writes with a 24-byte version record.
        assert_eq!(record(&[0; 24])[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn written_events_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let mut file = EventFile::create(&runs, 7).unwrap();
        for (step, value) in [(7, 0.0), (8, -1.5), (9, f64::NAN)] {
            file.scalar("loss/labeled", step, value).unwrap();
        }
        file.flush().unwrap();
        let path = runs.read_dir().unwrap().next().unwrap().unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with(PREFIX)
                && name.ends_with(".7")
                && seconds_of(name).unwrap() > 1_700_000_000,
            "{name}"
        );
        let events = read(&std::fs::read(&path).unwrap());
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!((events[1].step, events[1].session_log.as_ref().unwrap().status), (7, START));
        let value = |event: &Event| event.summary.as_ref().unwrap().value[0].simple_value.unwrap();
        assert_eq!(events[2..].iter().map(|event| event.step).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!((value(&events[2]), value(&events[3])), (0.0, -1.5));
        assert!(value(&events[4]).is_nan() && events[4].wall_time > 1.7e9);
        assert_eq!(events[4].summary.as_ref().unwrap().value[0].tag, "loss/labeled");
    }

    #[test]
    fn a_later_file_has_the_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<_> =
                folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // By name alone, 9 would follow 10 and 100.
        for (count, step) in [9, 10, 100].into_iter().enumerate() {
            EventFile::create(folder.path(), step).unwrap();
            assert_eq!(names().len(), count + 1);
            assert!(
                names()[count].to_str().unwrap().ends_with(&format!(".{step}")),
                "{:?}",
                names()
            );
        }
        assert!(EventFile::create(folder.path(), u64::MAX).is_err());
    }
}
