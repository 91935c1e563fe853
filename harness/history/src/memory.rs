//! A view of the memory that host and guest share, and the writer of a slot's log.
//!
//! The view is a slice of atomic words, so that all of it is safe code whoever writes to the memory meanwhile; whoever maps the memory makes
//! the slice. Nothing here trusts what it reads: lengths are bounded before use.

use crate::wire::{self, JOB_MAX, LOG_MAX, Note, SLOT_HEADER, WireError, header, slot};
use std::sync::atomic::{AtomicU32, Ordering};

/// Longest text in a field of the header page, in bytes.
const TEXT_MAX: usize = 1000;
/// Bytes of log that only `LogFull` may use.
const LOG_RESERVE: usize = 64;

/// The memory, as words.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    words: &'a [AtomicU32],
}

impl<'a> Memory<'a> {
    /// A view of `words`, or nothing if they are too few.
    pub fn new(words: &'a [AtomicU32]) -> Option<Memory<'a>> {
        (words.len() as u64 * 4 >= wire::HEADER_SIZE + wire::SLOTS * wire::SLOT_STRIDE)
            .then_some(Memory { words })
    }

    /// The word at byte offset `at`, a multiple of 4.
    pub fn word(self, at: u64) -> &'a AtomicU32 {
        debug_assert!(at.is_multiple_of(4));
        &self.words[(at / 4) as usize]
    }

    /// Reads two words, the lower first.
    pub fn load_u64(self, at: u64) -> u64 {
        let low = self.word(at).load(Ordering::Acquire);
        u64::from(self.word(at + 4).load(Ordering::Acquire)) << 32 | u64::from(low)
    }

    /// Writes two words. A reader may see one of them new and the other old.
    pub fn store_u64(self, at: u64, value: u64) {
        self.word(at + 4).store((value >> 32) as u32, Ordering::Release);
        self.word(at).store(value as u32, Ordering::Release);
    }

    /// Feeds the watchdog.
    pub fn progress(self) {
        if self.word(header::PROGRESS).fetch_add(1, Ordering::Relaxed) == u32::MAX {
            self.word(header::PROGRESS + 4).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Copies bytes out; `at` is a multiple of 4.
    pub fn bytes(self, at: u64, len: usize) -> Vec<u8> {
        let first = (at / 4) as usize;
        let words = &self.words[first..first + len.div_ceil(4)];
        let mut bytes: Vec<u8> =
            words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    /// Copies bytes in, padded with zeros to whole words; `at` is a multiple of 4.
    pub fn put_bytes(self, at: u64, bytes: &[u8]) {
        put_bytes(&self.words[(at / 4) as usize..], bytes);
    }

    /// Writes a text field of the header page, cut to its size.
    pub fn put_text(self, at: u64, text: &str) {
        let cut = (0..=text.len().min(TEXT_MAX)).rev().find(|at| text.is_char_boundary(*at));
        let text = &text.as_bytes()[..cut.unwrap_or(0)];
        self.put_bytes(at + 4, text);
        self.word(at).store(text.len() as u32, Ordering::Release);
    }

    /// Reads a text field of the header page.
    pub fn text(self, at: u64) -> String {
        let len = (self.word(at).load(Ordering::Acquire) as usize).min(TEXT_MAX);
        String::from_utf8_lossy(&self.bytes(at + 4, len)).into_owned()
    }

    /// The state word of slot `index`.
    pub fn state(self, index: u64) -> &'a AtomicU32 {
        self.word(wire::slot_offset(index) + slot::STATE)
    }

    /// Puts a job into slot `index`, empties its log and sets it `READY`; false if it does not fit.
    #[must_use]
    pub fn put_job(self, index: u64, number: u32, job: &wire::Job) -> bool {
        let bytes = wire::encode_job(job);
        if bytes.len() as u64 > JOB_MAX {
            return false;
        }
        let base = wire::slot_offset(index);
        self.put_bytes(base + SLOT_HEADER, &bytes);
        self.word(base + slot::JOB_LEN).store(bytes.len() as u32, Ordering::Relaxed);
        self.word(base + slot::LOG_LEN).store(0, Ordering::Relaxed);
        self.word(base + slot::NUMBER).store(number, Ordering::Relaxed);
        self.state(index).store(wire::STATE_READY, Ordering::Release);
        true
    }

    /// Reads the job of slot `index`.
    pub fn job(self, index: u64) -> Result<wire::Job, WireError> {
        let base = wire::slot_offset(index);
        let len = self.word(base + slot::JOB_LEN).load(Ordering::Acquire);
        if u64::from(len) > JOB_MAX {
            return Err(WireError { at: 0, what: "the job is longer than its place" });
        }
        wire::decode_job(&self.bytes(base + SLOT_HEADER, len as usize))
    }

    /// Copies the complete records of slot `index`'s log out.
    pub fn log_bytes(self, index: u64) -> Vec<u8> {
        let base = wire::slot_offset(index);
        let len = u64::from(self.word(base + slot::LOG_LEN).load(Ordering::Acquire)).min(LOG_MAX);
        self.bytes(base + SLOT_HEADER + JOB_MAX, len as usize)
    }

    /// A writer of slot `index`'s log.
    pub fn log(self, index: u64, lock: &'a AtomicU32) -> Log<'a> {
        let base = wire::slot_offset(index);
        let first = ((base + SLOT_HEADER + JOB_MAX) / 4) as usize;
        Log {
            area: &self.words[first..first + (LOG_MAX / 4) as usize],
            len: self.word(base + slot::LOG_LEN),
            lock,
        }
    }
}

/// Appends records to one slot's log; threads and processes may do so at once.
///
/// A record is written past the end and becomes part of the log when the length is advanced, so a writer that dies half-way leaves no
/// trace but the lock; whoever learns of its death calls `forget`.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    area: &'a [AtomicU32],
    len: &'a AtomicU32,
    lock: &'a AtomicU32,
}

impl Log<'_> {
    /// Appends a note, or `LogFull` in its place if it is the first that does not fit. `owner` is the process that writes (not 0).
    pub fn append(&self, note: &Note, owner: u32) {
        let record = encode_record(note);
        self.acquire(owner);
        let len = self.len.load(Ordering::Relaxed) as usize;
        let room = self.area.len() * 4 - len.min(self.area.len() * 4);
        if record.len() + LOG_RESERVE <= room {
            self.put(len, &record);
        } else if room >= LOG_RESERVE {
            // The rest of the area is spent with it, so that nothing comes after: filler is a record of length 0.
            let mut record = encode_record(&Note::Event(crate::Event::LogFull));
            record.resize(room, 0);
            self.put(len, &record);
        }
        self.lock.store(0, Ordering::Release);
    }

    /// Frees the lock if the dead process `owner` holds it.
    pub fn forget(&self, owner: u32) {
        let _ = self.lock.compare_exchange(owner, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn put(&self, at: usize, record: &[u8]) {
        put_bytes(&self.area[at / 4..], record);
        self.len.store((at + record.len()) as u32, Ordering::Release);
    }

    fn acquire(&self, owner: u32) {
        while self
            .lock
            .compare_exchange_weak(0, owner, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            // Records are short; with one processor the holder needs it.
            std::thread::yield_now();
        }
    }
}

fn put_bytes(words: &[AtomicU32], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<4>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u32::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u32::from_le_bytes(last), Ordering::Relaxed);
    }
}

/// `u32 length, postcard(Note)`, padded to 8 bytes.
fn encode_record(note: &Note) -> Vec<u8> {
    let mut record =
        postcard::to_extend(note, vec![0; 4]).expect("notes have no form that postcard refuses");
    let len = (record.len() - 4) as u32;
    record[..4].copy_from_slice(&len.to_le_bytes());
    record.resize(record.len().next_multiple_of(8), 0);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Job, RunOptions, read_log};
    use crate::{Bytes, Event, Payload, Run};
    use program::{CallId, Mount, Program};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn words() -> Vec<AtomicU32> {
        (0..wire::SHM_SIZE / 4).map(|_| AtomicU32::new(0)).collect()
    }

    fn returned(seq: u64, runs: Vec<Run>) -> Note {
        let payload = Payload::Read { data: Bytes { runs }, tail_intact: true, fault: None };
        Note::Event(Event::Return { seq, call: CallId(3), time_ns: 5, result: Ok(4096), payload })
    }

    #[test]
    fn a_job_travels() {
        let words = words();
        let memory = Memory::new(&words).expect("large enough");
        let options = RunOptions { keep: false, record: true, cover: false, block_after_ms: 50 };
        let job =
            Job::Run { run: 7, program: Program { home: Mount::Xfs, lines: vec![] }, options };
        assert!(memory.put_job(9, 1, &job));
        assert_eq!(memory.state(1).load(Ordering::Acquire), wire::STATE_READY);
        assert_eq!(memory.job(1), Ok(job));
        assert!(memory.job(2).is_err());
        memory.put_text(header::ERROR, &"ä".repeat(900));
        assert_eq!(memory.text(header::ERROR), "ä".repeat(500));
    }

    #[test]
    fn records_of_several_writers_are_all_there() {
        let words = words();
        let memory = Memory::new(&words).expect("large enough");
        let lock = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for writer in 1..4 {
                let log = memory.log(2, &lock);
                scope
                    .spawn(move || (0..200).for_each(|i| log.append(&returned(i, vec![]), writer)));
            }
        });
        memory.log(2, &lock).append(&Note::Unmounted, 1);
        let notes = read_log(&memory.log_bytes(2)).expect("well formed");
        assert_eq!(notes.len(), 601);
        assert_eq!(notes.last(), Some(&Note::Unmounted));
    }

    #[test]
    fn a_full_log_says_so_once() {
        let words = words();
        let memory = Memory::new(&words).expect("large enough");
        let lock = AtomicU32::new(0);
        let log = memory.log(0, &lock);
        for seq in 0..30 {
            log.append(&returned(seq, vec![Run::Raw(vec![7; 50_000])]), 1);
        }
        log.append(&Note::Unmounted, 1);
        let notes = read_log(&memory.log_bytes(0)).expect("well formed");
        assert_eq!(notes.len(), 21);
        assert_eq!(notes.last(), Some(&Note::Event(Event::LogFull)));
    }

    #[test]
    fn a_dead_writers_lock_is_freed() {
        let words = words();
        let memory = Memory::new(&words).expect("large enough");
        let lock = AtomicU32::new(77);
        let log = memory.log(0, &lock);
        log.forget(5);
        assert_eq!(lock.load(Ordering::Relaxed), 77);
        log.forget(77);
        log.append(&Note::Run(1), 5);
        assert_eq!(read_log(&memory.log_bytes(0)), Ok(vec![Note::Run(1)]));
    }

    #[test]
    fn hostile_logs_are_refused_and_do_not_panic() {
        let runs = vec![
            Run::Zero { len: 9 },
            Run::Raw(vec![1, 2, 3]),
            Run::Signed { run: 1, call: 2, offset: 3, len: 4 },
        ];
        let mut log = Vec::new();
        for note in [
            returned(1, runs),
            Note::Trouble("x".into()),
            Note::Event(Event::Invoke {
                seq: 0,
                call: CallId(1),
                time_ns: 0,
                slots: vec![CallId(0)],
            }),
            Note::Run(4),
        ] {
            log.extend(encode_record(&note));
        }
        let (mut good, mut bad) = (0, 0);
        for seed in 0..50_000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut hostile = log.clone();
            for _ in 0..1 + rng.next_u32() % 4 {
                let at = rng.next_u32() as usize % hostile.len();
                match rng.next_u32() % 4 {
                    0 => hostile[at] = rng.next_u32() as u8,
                    1 => hostile[at] = 0xff,
                    2 => hostile.truncate(at.max(1)),
                    _ => {
                        hostile.remove(at);
                    }
                }
                if hostile.is_empty() {
                    break;
                }
            }
            match read_log(&hostile) {
                Ok(notes) => {
                    good += 1;
                    for note in notes {
                        if let Note::Event(Event::Return {
                            payload: Payload::Read { data, .. },
                            ..
                        }) = note
                        {
                            assert!(data.is_valid(), "seed {seed}");
                        }
                    }
                }
                Err(error) => {
                    bad += 1;
                    assert!(error.at <= hostile.len(), "seed {seed}");
                }
            }
        }
        assert!(good > 100 && bad > 100, "{good} {bad}");
    }
}
