//! Options that tell how image files are read.

use protoseg_models::reading::{Channels, ImageReading, SampleRange};

/// How channels and samples of image files become red, green and blue.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[command(next_help_heading = "Reading images")]
pub(crate) struct ReadingArgs {
    /// Channels to take: color (as stored, without opacity and further bands), alpha-black or
    /// alpha-white (colors over a ground, by opacity), or the numbers of three, such as 3,2,1
    /// [default: as the bundle says, else color with a warning]
    #[arg(long, value_name = "CHANNELS")]
    channels: Option<Channels>,
    /// Values that become black and white in files of more than 8 bits, such as 0:4080 [default: as
    /// the bundle says, else all of 16 bits with a warning where much is unused]
    #[arg(long, value_name = "LOW:HIGH", allow_hyphen_values = true)]
    range: Option<SampleRange>,
    /// Bits in use in files of more than 8 bits: --depth 12 means --range 0:4095
    #[arg(
        long, value_name = "BITS", conflicts_with = "range",
        value_parser = clap::value_parser!(u8).range(1..=32)
    )]
    depth: Option<u8>,
}

impl ReadingArgs {
    /// The choices that were given.
    pub(crate) fn reading(self) -> ImageReading {
        let range = self.range.or(self.depth.map(SampleRange::from_bits));
        ImageReading { channels: self.channels, range }
    }
}
