//! A device of the device mapper that can be suspended: `ioctl(/dev/mapper/control, DM_.., struct dm_ioctl)`.
//!
//! One target over the whole device: `linear` onto the base, or `error`.

use super::result;
use history::{CallResult, Errno};
use rustix::fd::{AsRawFd, BorrowedFd};

/// `struct dm_ioctl`, one `struct dm_target_spec`, and the target's arguments.
#[repr(C)]
struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
    arguments: [u8; 64],
}

/// Bytes of `struct dm_ioctl`: the part of a request that the command's number names.
const HEADER: u32 = 312;

const CREATE: u32 = 3;
const SUSPEND: u32 = 6;
const TABLE_LOAD: u32 = 9;

/// DM_DEV_SUSPEND suspends with this flag, and resumes without it.
const SUSPEND_FLAG: u32 = 1 << 1;
/// No file system is frozen: there is none.
const SKIP_LOCKFS_FLAG: u32 = 1 << 10;
/// What is asked later is queued.
const NOFLUSH_FLAG: u32 = 1 << 11;

/// What is asked of the mapped device `name`.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// DM_DEV_CREATE
    Create,
    /// DM_TABLE_LOAD with one target of that many sectors: its type and its arguments. It counts from the next resume on.
    Load(u64, &'a str, &'a str),
    /// DM_DEV_SUSPEND
    Suspend,
    /// DM_DEV_SUSPEND without its flag
    Resume,
}

/// `ioctl(control, DM_.., ..)` — Returns the device's number (`dev`, as huge_encode_dev writes it).
pub fn command(control: BorrowedFd<'_>, name: &str, command: Command<'_>) -> CallResult {
    let mut request = Request {
        // 4.0 is what every kernel of this century understands.
        version: [4, 0, 0],
        data_size: size_of::<Request>() as u32,
        data_start: HEADER,
        target_count: 0,
        open_count: 0,
        flags: 0,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: text(name)?,
        uuid: [0; 129],
        data: [0; 7],
        sector_start: 0,
        length: 0,
        status: 0,
        next: 0,
        target_type: [0; 16],
        arguments: [0; 64],
    };
    let number = match command {
        Command::Create => CREATE,
        Command::Load(sectors, kind, arguments) => {
            request.target_count = 1;
            request.length = sectors;
            request.target_type = text(kind)?;
            request.arguments = text(arguments)?;
            TABLE_LOAD
        }
        Command::Suspend => {
            request.flags = SUSPEND_FLAG | SKIP_LOCKFS_FLAG | NOFLUSH_FLAG;
            SUSPEND
        }
        Command::Resume => SUSPEND,
    };
    // _IOWR(0xfd, number, struct dm_ioctl)
    let ioctl = libc::Ioctl::from(3 << 30 | HEADER << 16 | 0xfd << 8 | number);
    // SAFETY: the request begins with the structure that the command names, says how long it is, and outlives the call.
    result(unsafe { libc::ioctl(control.as_raw_fd(), ioctl, &raw mut request) }.into())
        .map(|_| request.dev)
}

/// Text with a zero at its end.
fn text<const N: usize>(text: &str) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    let room = bytes.get_mut(..text.len()).filter(|_| text.len() < N);
    room.ok_or(Errno(libc::ENAMETOOLONG))?.copy_from_slice(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        assert_eq!(std::mem::offset_of!(Request, dev), 40);
        assert_eq!(std::mem::offset_of!(Request, sector_start) as u32, HEADER);
        assert_eq!(std::mem::offset_of!(Request, arguments) as u32, HEADER + 40);
        assert_eq!(text::<4>("abc"), Ok(*b"abc\0"));
        assert_eq!(text::<3>("abc"), Err(Errno(libc::ENAMETOOLONG)));
    }
}
