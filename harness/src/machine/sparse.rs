//! Copies of large files that are mostly zeros: holes stay holes, and pages of zeros become holes.
//!
//! Knows nothing of what it copies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

/// Bytes read at a time: large enough that the calls do not count, small enough for the processor's cache.
const CHUNK: usize = 256 << 10;
/// Zeros are found in units of a page, which is what tmpfs and disks allocate.
const PAGE: usize = 4096;

/// Copies `length` bytes of `from`, beginning at `start`, to `place` in `to`, whose bytes there are zeros and which is long enough.
/// Past the end of `from` there are zeros.
pub fn copy(from: &File, start: u64, length: u64, to: &File, place: u64) -> io::Result<()> {
    let end = start + length;
    let mut buffer = vec![0u8; CHUNK];
    let mut at = start;
    while at < end {
        // Offsets are passed through the file's position, which no one else may use meanwhile.
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data & !(PAGE as u64 - 1),
            // No data behind this point.
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        at = data.max(at);
        if at >= end {
            break;
        }
        let hole = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(end);
        while at < hole {
            let want = ((hole - at) as usize).min(CHUNK);
            let got = from.read_at(&mut buffer[..want], at)?;
            if got == 0 {
                return Ok(());
            }
            write_nonzero(to, &buffer[..got], place + at - start)?;
            at += got as u64;
        }
    }
    Ok(())
}

/// Writes runs of pages that hold a byte other than zero, each run with one call.
fn write_nonzero(to: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut run: Option<usize> = None;
    let mut at = 0;
    while at < bytes.len() {
        let next = (at + PAGE).min(bytes.len());
        match (is_zero(&bytes[at..next]), run) {
            (true, Some(start)) => {
                to.write_all_at(&bytes[start..at], offset + start as u64)?;
                run = None;
            }
            (false, None) => run = Some(at),
            _ => {}
        }
        at = next;
    }
    if let Some(start) = run {
        to.write_all_at(&bytes[start..], offset + start as u64)?;
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    // Whole words first: the compiler makes vector code of this.
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().fold(0, |all, w| all | u64::from_ne_bytes(*w)) == 0 && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_copy_is_equal_and_no_larger() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(8 << 20).unwrap();
        from.write_all_at(b"start", 0).unwrap();
        from.write_all_at(&vec![0; 1 << 20], 1 << 20).unwrap();
        from.write_all_at(b"middle", (4 << 20) - 3).unwrap();
        from.write_all_at(b"end", (8 << 20) - 3).unwrap();
        for (start, length) in [(0, 8 << 20), (2 << 20, 4 << 20), (1 << 20, 3 << 20), (0, 9 << 20)]
        {
            let to = tempfile::tempfile().unwrap();
            to.set_len(length).unwrap();
            copy(&from, start, length, &to, 0).unwrap();
            assert_eq!(to.metadata().unwrap().len(), length);
            let mut want = vec![0; length as usize];
            let mut got = vec![0; length as usize];
            let readable = (length as usize).min((8 << 20) - start as usize);
            from.read_exact_at(&mut want[..readable], start).unwrap();
            to.read_exact_at(&mut got, 0).unwrap();
            assert!(want == got, "{start} {length}");
            assert!(to.metadata().unwrap().blocks() * 512 <= 64 << 10, "zeros were written");
        }
    }
}
