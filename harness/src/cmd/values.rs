//! Values of options: durations, seeds and image names, with errors that say what would have been right.
//!
//! Each function is a clap value parser; clap adds the option's name to the message.

use harness::fuzz_target::{self, FuzzTarget};
use program::Mount;
use std::time::Duration;

/// Longest time that can be asked for: a year, so that arithmetic with deadlines never overflows.
const TIME_MAX: Duration = Duration::from_secs(366 * 86_400);

/// `90`, `90s`, `2m`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 90s, 2m or 1h30m");
    let mut total = Duration::ZERO;
    let mut digits = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        total += seconds(&digits, unit).ok_or_else(wrong)?;
        digits.clear();
    }
    if !digits.is_empty() {
        total += seconds(&digits, 1).ok_or_else(wrong)?;
    }
    if text.is_empty() || total.is_zero() || total > TIME_MAX {
        return Err(wrong());
    }
    Ok(total)
}

fn seconds(digits: &str, unit: u64) -> Option<Duration> {
    let seconds = digits.parse::<u32>().ok()?;
    Some(Duration::from_secs(u64::from(seconds).checked_mul(unit)?))
}

/// `42` or `0x2a`.
pub fn seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no seed: write a number such as 42 or 0x2a"))
}

/// An image as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where unprefixed names of programs live.
    pub home: Mount,
    /// The image of the guest, where one is named that is more than a home: every guest has the four mounts.
    pub guest: Option<String>,
}

/// A mount by its name, or an image by its name or path.
pub fn image(text: &str) -> Result<Image, String> {
    if let Some(home) = Mount::from_name(text) {
        return Ok(Image { home, guest: None });
    }
    let names = harness::machine::image::names();
    if !names.contains(&text) && !text.ends_with(".toml") {
        let names = names.join(", ");
        return Err(format!(
            "there is no image `{text}`: choose one of {names}, or name a .toml file"
        ));
    }
    let image = harness::machine::image::load(text).map_err(|error| error.to_string())?;
    Ok(Image { home: image.home, guest: Some(text.to_string()) })
}

/// A fuzz target by its name.
pub fn fuzz_target(text: &str) -> Result<&'static FuzzTarget, String> {
    FuzzTarget::named(text).ok_or_else(|| {
        let names = fuzz_target::ALL.map(|target| target.name).join(", ");
        format!("there is no fuzz target `{text}`: choose one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "0", "m", "2x", "-1", "99999999999", "400d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_home_needs_no_guest_of_its_own() {
        assert_eq!(image("ext4"), Ok(Image { home: Mount::Ext4, guest: None }));
        let virtio = image("xfs-dax-virtio").unwrap();
        assert_eq!((virtio.home, virtio.guest.as_deref()), (Mount::XfsDax, Some("xfs-dax-virtio")));
        assert!(image("btrfs").unwrap_err().contains("xfs-dax"));
    }

    #[test]
    fn a_fuzz_target_that_is_none_is_told_which_there_are() {
        assert_eq!(fuzz_target("uring").map(|target| target.name), Ok("uring"));
        assert!(fuzz_target("rings").unwrap_err().contains("uring"));
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(seed("42"), Ok(42));
        assert_eq!(seed("0xffffffffffffffff"), Ok(u64::MAX));
        assert!(seed("seed").is_err());
    }
}
