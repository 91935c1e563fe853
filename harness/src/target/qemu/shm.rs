//! The host's side of the memory shared with the guest: the ring of jobs, read and written through its file.
//!
//! The layout is `history::wire`. Everything the guest wrote is bounded here before it is believed.

use super::super::TargetError;
use crate::machine::{file_trouble, infra};
use history::wire::{self, Hello, Job, Note, header, slot};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Most bytes of the texts in the header page (error, hello).
const TEXT_MAX: u32 = 1000;

/// The shared memory of one guest.
#[derive(Debug)]
pub struct Shm {
    file: File,
    /// Jobs submitted in this guest's life; the next goes to slot `submitted % SLOTS`.
    submitted: u64,
    /// Jobs whose log was taken.
    taken: u64,
}

/// The guest's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Nanoseconds inside calls.
    pub kernel_ns: u64,
    /// Nanoseconds on programs in all.
    pub busy_ns: u64,
    /// Calls issued.
    pub calls: u64,
}

impl Shm {
    /// Makes the memory of a guest that is to boot.
    pub fn create(path: &Path) -> Result<Shm, TargetError> {
        let trouble = file_trouble("creating", path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(&trouble)?;
        file.set_len(wire::SHM_SIZE).map_err(&trouble)?;
        let shm = Shm { file, submitted: 0, taken: 0 };
        shm.write(header::MAGIC, &wire::MAGIC.to_le_bytes())?;
        shm.write(header::VERSION, &wire::VERSION.to_le_bytes())?;
        Ok(shm)
    }

    /// Opens the memory of a guest that is restored.
    pub fn open(path: &Path) -> Result<Shm, TargetError> {
        let trouble = file_trouble("opening", path);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(trouble)?;
        Ok(Shm { file, submitted: 0, taken: 0 })
    }

    /// Its file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The agent's state.
    pub fn agent(&self) -> Result<u32, TargetError> {
        self.u32(header::AGENT)
    }

    /// Why the agent gave up.
    pub fn error(&self) -> Result<String, TargetError> {
        self.text(header::ERROR)
    }

    /// What the agent says of itself.
    pub fn hello(&self) -> Result<Hello, TargetError> {
        let text = self.text(header::HELLO)?;
        serde_json::from_str(&text).map_err(|e| infra(format!("the agent's greeting is odd: {e}")))
    }

    /// Changes whenever the guest gets on with its work.
    pub fn progress(&self) -> Result<u64, TargetError> {
        self.u64(header::PROGRESS)
    }

    /// The guest's counters.
    pub fn counters(&self) -> Result<Counters, TargetError> {
        Ok(Counters {
            kernel_ns: self.u64(header::KERNEL_NS)?,
            busy_ns: self.u64(header::BUSY_NS)?,
            calls: self.u64(header::CALLS)?,
        })
    }

    /// Whether another job fits.
    pub fn has_room(&self) -> bool {
        self.submitted - self.taken < wire::SLOTS
    }

    /// Jobs that were submitted and not taken back.
    pub fn in_flight(&self) -> u64 {
        self.submitted - self.taken
    }

    /// Hands a job to the guest.
    pub fn submit(&mut self, job: &Job) -> Result<(), TargetError> {
        assert!(self.has_room(), "a job was submitted to a full ring");
        let bytes = wire::encode_job(job);
        if bytes.len() as u64 > wire::JOB_MAX {
            return Err(infra(format!(
                "a job of {} bytes does not fit into its slot",
                bytes.len()
            )));
        }
        let at = wire::slot_offset(self.submitted);
        let number = (self.submitted as u32).wrapping_add(1);
        self.write(at + wire::SLOT_HEADER, &bytes)?;
        self.write(at + slot::JOB_LEN, &(bytes.len() as u32).to_le_bytes())?;
        self.write(at + slot::LOG_LEN, &0u32.to_le_bytes())?;
        self.write(at + slot::NUMBER, &number.to_le_bytes())?;
        // The state comes last: from here on the slot is the guest's.
        self.write(at + slot::STATE, &wire::STATE_READY.to_le_bytes())?;
        self.submitted += 1;
        Ok(())
    }

    /// State of the oldest job in flight.
    pub fn state(&self) -> Result<u32, TargetError> {
        self.u32(wire::slot_offset(self.taken) + slot::STATE)
    }

    /// The log of the oldest job in flight, as far as it is written.
    pub fn log(&self) -> Result<Vec<Note>, TargetError> {
        let at = wire::slot_offset(self.taken);
        let length = u64::from(self.u32(at + slot::LOG_LEN)?);
        if length > wire::LOG_MAX {
            return Err(infra(format!("the guest claims a log of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        let log = at + wire::SLOT_HEADER + wire::JOB_MAX;
        self.file.read_exact_at(&mut bytes, log).map_err(trouble)?;
        wire::read_log(&bytes).map_err(infra)
    }

    /// Takes the oldest job's slot back.
    pub fn free(&mut self) -> Result<(), TargetError> {
        assert!(self.in_flight() > 0, "a slot was freed that held no job");
        let at = wire::slot_offset(self.taken);
        self.write(at + slot::STATE, &wire::STATE_FREE.to_le_bytes())?;
        self.taken += 1;
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.file.write_all_at(bytes, at).map_err(trouble)
    }

    fn u32(&self, at: u64) -> Result<u32, TargetError> {
        let mut bytes = [0; 4];
        self.file.read_exact_at(&mut bytes, at).map_err(trouble)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&self, at: u64) -> Result<u64, TargetError> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).map_err(trouble)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&self, at: u64) -> Result<String, TargetError> {
        let length = self.u32(at)?.min(TEXT_MAX);
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at + 4).map_err(trouble)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn trouble(error: io::Error) -> TargetError {
    infra(format!("shared memory: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shm() -> (tempfile::TempDir, Shm) {
        let dir = tempfile::tempdir().unwrap();
        let shm = Shm::create(&dir.path().join("shm")).unwrap();
        (dir, shm)
    }

    #[test]
    fn jobs_go_round_the_ring() {
        let (_dir, mut shm) = shm();
        for _ in 0..3 * wire::SLOTS {
            assert!(shm.has_room());
            shm.submit(&Job::Unmount).unwrap();
            assert_eq!(shm.state().unwrap(), wire::STATE_READY);
            assert_eq!(shm.log().unwrap(), []);
            shm.free().unwrap();
        }
        for _ in 0..wire::SLOTS {
            shm.submit(&Job::Unmount).unwrap();
        }
        assert!(!shm.has_room());
        assert_eq!(shm.in_flight(), wire::SLOTS);
    }

    #[test]
    fn a_lying_guest_is_an_error() {
        let (_dir, mut shm) = shm();
        shm.submit(&Job::Unmount).unwrap();
        let at = wire::slot_offset(0);
        shm.write(at + slot::LOG_LEN, &u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(
            shm.log().unwrap_err().to_string(),
            "the guest claims a log of 4294967295 bytes"
        );
        shm.write(at + slot::LOG_LEN, &64u32.to_le_bytes()).unwrap();
        shm.write(at + wire::SLOT_HEADER + wire::JOB_MAX, &[0xff; 64]).unwrap();
        assert!(shm.log().is_err());
        shm.write(header::HELLO, &u32::MAX.to_le_bytes()).unwrap();
        assert!(shm.hello().unwrap_err().to_string().starts_with("the agent's greeting is odd"));
    }
}
