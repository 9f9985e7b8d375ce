//! One machine's part of the images. It follows from the images' names alone, so that machines need not talk to each other
//! and a retry gets the same images.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use protoseg_models::digest::fnv1a64;
use protoseg_models::random::Stream;
use serde::{Deserialize, Serialize};

/// Part `number` of `count`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    number: u64,
    count: u64,
}

/// Errors of naming a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    #[error("{0:?} is not a shard; write i/n with i from 1 to n, such as 1/8")]
    Syntax(String),
    #[error(
        "no scheduler names a shard: looked for {KUBERNETES} (with --shards n), {AWS} with {AWS_SIZE}, {SLURM} with {SLURM_COUNT}, and {RANK} with {WORLD}; name it as --shard i/n"
    )]
    NoScheduler,
    #[error("both {} and {} name a shard; choose one by --shard i/n", .0[0], .0[1])]
    Ambiguous([&'static str; 2]),
    #[error("{variable} is {}, so that {index_variable} does not name a shard", found.as_deref().map_or("not set".to_owned(), |found| format!("{found:?}")))]
    Variable { variable: &'static str, found: Option<String>, index_variable: &'static str },
    #[error(
        "{KUBERNETES} does not say how many shards there are: add --shards n, the `completions` of the job"
    )]
    MissingCount,
    #[error("{variable} is {number}, and there are {count} shards, counted from {first}")]
    OutOfRange {
        variable: &'static str,
        number: u64,
        count: u64,
        /// Index of the first shard.
        first: u64,
    },
}

const KUBERNETES: &str = "JOB_COMPLETION_INDEX";
const AWS: &str = "AWS_BATCH_JOB_ARRAY_INDEX";
const AWS_SIZE: &str = "AWS_BATCH_JOB_ARRAY_SIZE";
const SLURM: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_FIRST: &str = "SLURM_ARRAY_TASK_MIN";
const SLURM_LAST: &str = "SLURM_ARRAY_TASK_MAX";
const SLURM_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";
const RANK: &str = "RANK";
const WORLD: &str = "WORLD_SIZE";

impl Shard {
    /// All images.
    pub const ALL: Self = Self { number: 1, count: 1 };

    /// Number of this shard, from 1 to [`count`](Self::count).
    pub fn number(self) -> u64 {
        self.number
    }

    /// Number of shards.
    pub fn count(self) -> u64 {
        self.count
    }

    /// True if an image belongs to this shard, by the 64-bit FNV-1a hash of its name (its path below the input folder). The
    /// hash is mixed once more: names that differ in one digit would spread unevenly over few shards.
    ///
    /// ```
    /// use protoseg_label::shard::Shard;
    ///
    /// let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    /// assert_eq!(shards.iter().filter(|shard| shard.contains("a/street.jpg".as_ref())).count(), 1);
    /// # Ok::<(), protoseg_label::shard::ShardError>(())
    /// ```
    pub fn contains(self, name: &Path) -> bool {
        let hash = fnv1a64(name.as_os_str().as_encoded_bytes());
        Stream::keyed(&[hash]).bits(0) % self.count == self.number - 1
    }

    /// Suffix of the shard's files in the state folder; empty where there is one shard.
    pub fn suffix(self) -> String {
        if self.count == 1 { String::new() } else { format!("-{}-of-{}", self.number, self.count) }
    }

    /// Returns the shard that a scheduler's environment names, and the variable: indexed jobs of Kubernetes (which do not say
    /// how many there are: `count`), arrays of AWS Batch and Slurm, or torchrun.
    pub fn from_scheduler(
        variable: impl Fn(&str) -> Option<String>,
        count: Option<u64>,
    ) -> Result<(Self, &'static str), ShardError> {
        let set: Vec<&'static str> = [KUBERNETES, AWS, SLURM, RANK]
            .into_iter()
            .filter(|name| variable(name).is_some())
            .collect();
        let index = match set[..] {
            [] => return Err(ShardError::NoScheduler),
            [one] => one,
            [one, two, ..] => return Err(ShardError::Ambiguous([one, two])),
        };
        let read = |name: &'static str| {
            let found = variable(name);
            let number = found.as_deref().and_then(|found| found.trim().parse::<u64>().ok());
            number.ok_or(ShardError::Variable { variable: name, found, index_variable: index })
        };
        let number = read(index)?;
        let (first, found) = match index {
            KUBERNETES => (0, count.ok_or(ShardError::MissingCount)?),
            AWS => (0, read(AWS_SIZE)?),
            RANK => (0, read(WORLD)?),
            // An array may start at any number but must count in steps of one.
            _ => {
                let (first, last, count) =
                    (read(SLURM_FIRST)?, read(SLURM_LAST)?, read(SLURM_COUNT)?);
                if last.checked_sub(first).and_then(|steps| steps.checked_add(1)) != Some(count) {
                    return Err(ShardError::OutOfRange {
                        variable: SLURM_LAST,
                        number: last,
                        count,
                        first,
                    });
                }
                (first, count)
            }
        };
        let shard = number.checked_sub(first).filter(|index| *index < found).map(|index| index + 1);
        let shard =
            shard.ok_or(ShardError::OutOfRange { variable: index, number, count: found, first })?;
        Ok((Self { number: shard, count: found }, index))
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let parts = text
            .split_once('/')
            .and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
        let shard = parts.map(|(number, count)| Self { number, count });
        let fits = |shard: &Self| (1..=shard.count).contains(&shard.number);
        shard.filter(fits).ok_or_else(|| ShardError::Syntax(text.to_owned()))
    }
}

impl TryFrom<String> for Shard {
    type Error = ShardError;

    fn try_from(text: String) -> Result<Self, ShardError> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn scheduler(
        variables: &[(&str, &str)],
        count: Option<u64>,
    ) -> Result<(String, &'static str), ShardError> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let found =
            Shard::from_scheduler(|name| variables.get(name).map(|&value| value.to_owned()), count);
        found.map(|(shard, source)| (shard.to_string(), source))
    }

    #[test]
    fn shards_are_written_from_one() {
        assert_eq!("8/8".parse(), Ok(Shard { number: 8, count: 8 }));
        for text in ["0/8", "9/8", "1/0", "1", "a/b", "-1/8", "1/8/2", ""] {
            assert!(text.parse::<Shard>().unwrap_err().to_string().contains("i/n"), "{text}");
        }
        assert_eq!(Shard::ALL.suffix(), "");
        assert_eq!("2/8".parse::<Shard>().unwrap().suffix(), "-2-of-8");
    }

    #[test]
    fn every_image_belongs_to_one_shard_and_shards_are_balanced() {
        let shards: Vec<Shard> = (1..=7).map(|number| Shard { number, count: 7 }).collect();
        let mut sizes = [0; 7];
        for index in 0..7000 {
            let name = format!("drive/{index:06}.png");
            let owners: Vec<usize> =
                (0..7).filter(|&shard| shards[shard].contains(name.as_ref())).collect();
            assert_eq!(owners.len(), 1, "{name}");
            sizes[owners[0]] += 1;
        }
        assert!(sizes.iter().all(|size| (900..1100).contains(size)), "{sizes:?}");
        assert!(Shard::ALL.contains("anything".as_ref()));
    }

    #[test]
    fn schedulers_name_shards() {
        let named = |shard: &str, source| Ok((shard.to_owned(), source));
        assert_eq!(scheduler(&[(KUBERNETES, "0")], Some(4)), named("1/4", KUBERNETES));
        assert_eq!(scheduler(&[(AWS, "9"), (AWS_SIZE, "10")], None), named("10/10", AWS));
        let slurm = [(SLURM, "12"), (SLURM_FIRST, "10"), (SLURM_LAST, "13"), (SLURM_COUNT, "4")];
        assert_eq!(scheduler(&slurm, None), named("3/4", SLURM));
        assert_eq!(scheduler(&[(RANK, "1"), (WORLD, "2")], None), named("2/2", RANK));
    }

    #[test]
    fn errors_say_which_variable_is_wrong() {
        let message = |variables: &[(&str, &str)], count| {
            scheduler(variables, count).unwrap_err().to_string()
        };
        assert!(
            message(&[], None).contains(KUBERNETES) && message(&[], None).contains("--shard i/n")
        );
        assert!(message(&[(KUBERNETES, "0")], None).contains("--shards n"));
        assert!(message(&[(AWS, "0"), (RANK, "0")], None).contains("both"));
        assert_eq!(
            message(&[(RANK, "0")], None),
            "WORLD_SIZE is not set, so that RANK does not name a shard"
        );
        assert!(message(&[(RANK, "x"), (WORLD, "2")], None).contains("RANK is \"x\""));
        assert!(message(&[(RANK, "2"), (WORLD, "2")], None).contains("counted from 0"));
        let steps = [(SLURM, "10"), (SLURM_FIRST, "10"), (SLURM_LAST, "16"), (SLURM_COUNT, "4")];
        assert!(message(&steps, None).contains(SLURM_LAST));
    }
}
