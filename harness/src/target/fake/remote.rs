//! Other ways into a mapping's memory: process_vm_readv and process_vm_writev with the memory gate at the other end, and /proc/self/mem.

use super::block::PAGE;
use super::bug::Bug;
use super::hold::{Ask, Part, Place, cut};
use super::mapping::MapRef;
use super::sched::Cx;
use super::world::Answer;
use super::world::World;
use super::world::errno::{EFAULT, EIO};
use history::{Bytes, Errno, Payload, stamp};
use program::{CallId, GateSlot};

fn read_payload(data: &[u8]) -> Payload {
    Payload::Read { data: Bytes::encode(data), tail_intact: true, fault: None }
}

fn total(parts: &[Part]) -> usize {
    parts.iter().map(|p| p.len).sum()
}

/// Waits until the memory gate answers a fault; false if a signal came first.
async fn fault_in(cx: Cx<'_>) -> bool {
    let open = |w: &World| !w.gates.is_held(GateSlot::MEMORY);
    // A copy from or to user space is not begun again after a signal: it has failed.
    cx.wait_or_poke("handle_userfault", open).await
}

/// The bytes of parts that follow each other.
fn gather(w: &World, parts: &[Part]) -> Vec<u8> {
    let mut data = Vec::with_capacity(total(parts));
    for part in parts {
        data.extend_from_slice(&part.page(w)[part.from..part.from + part.len]);
    }
    data
}

fn scatter(w: &mut World, parts: &[Part], bytes: &[u8]) {
    let mut at = 0;
    for part in parts {
        part.write(w, 0, &bytes[at..at + part.len]);
        at += part.len;
    }
}

fn ended(done: usize, len: u64, none: Errno) -> Result<u64, Errno> {
    if done == 0 && len > 0 { Err(none) } else { Ok(done as u64) }
}

/// process_vm_readv: the pages of the mapping are pinned first, all of them, then copied one by one.
pub(super) async fn read(cx: Cx<'_>, map: &MapRef, offset: u64, len: u64) -> Answer {
    let ask = Ask { pinned: true, ..Ask::default() };
    let (parts, _) = cx.w().grab(map, offset, len, ask);
    let mut data = Vec::new();
    while data.len() < total(&parts) {
        if !fault_in(cx).await {
            break;
        }
        let n = (PAGE as usize).min(total(&parts) - data.len());
        let piece = cut(&parts, data.len(), n);
        let bytes = gather(&cx.look(), &piece);
        data.extend_from_slice(&bytes);
        cx.step().await;
    }
    let result = ended(data.len(), len, EFAULT);
    (result, read_payload(&data))
}

/// process_vm_writev: as above, the other way round.
pub(super) async fn write(
    cx: Cx<'_>,
    map: &MapRef,
    id: CallId,
    offset: u64,
    len: u64,
) -> Result<u64, Errno> {
    let ask = Ask { write: true, pinned: true, ..Ask::default() };
    let (parts, _) = cx.w().grab(map, offset, len, ask);
    let meant = map.vma.borrow().offset + offset;
    let mut done = 0;
    while done < total(&parts) {
        if !fault_in(cx).await {
            break;
        }
        let n = (PAGE as usize).min(total(&parts) - done);
        let mut bytes = vec![0; n];
        {
            let mut w = cx.w();
            stamp::sign(&mut bytes, w.run, id.0, meant + done as u64);
            if !w.has(Bug::RemoteWriteLost) || done + n < total(&parts) {
                scatter(&mut w, &cut(&parts, done, n), &bytes);
            }
        }
        done += n;
        cx.step().await;
    }
    if cx.look().has(Bug::RemoteWriteNotDirty) {
        let mut w = cx.w();
        for part in &parts {
            if let Place::Cache { mount, ino, page, id } = part.hold.place {
                w.fs[mount].forget_dirt(ino, page, id);
            }
        }
    }
    ended(done, len, EFAULT)
}

/// pread on /proc/self/mem: page by page, past the protection.
pub(super) async fn peek(cx: Cx<'_>, map: &MapRef, offset: u64, len: u64) -> Answer {
    let ask = Ask { force: true, ..Ask::default() };
    let mut data: Vec<u8> = Vec::new();
    while (data.len() as u64) < len {
        let at = offset + data.len() as u64;
        let n = (PAGE - at % PAGE).min(len - data.len() as u64);
        {
            let mut w = cx.w();
            let (parts, _) = w.grab(map, at, n, ask);
            if parts.is_empty() {
                break;
            }
            let bytes = gather(&w, &parts);
            data.extend_from_slice(&bytes);
        }
        cx.step().await;
    }
    let result = ended(data.len(), len, EIO);
    (result, read_payload(&data))
}

/// pwrite on /proc/self/mem
pub(super) async fn poke(
    cx: Cx<'_>,
    map: &MapRef,
    id: CallId,
    offset: u64,
    len: u64,
) -> Result<u64, Errno> {
    let force = !cx.look().has(Bug::ProcMemNoForce);
    let ask = Ask { write: true, force, ..Ask::default() };
    let start = map.vma.borrow().offset;
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let n = (PAGE - at % PAGE).min(len - done);
        {
            let mut w = cx.w();
            let (parts, _) = w.grab(map, at, n, ask);
            if parts.is_empty() {
                break;
            }
            let mut bytes = vec![0; n as usize];
            stamp::sign(&mut bytes, w.run, id.0, start + at);
            scatter(&mut w, &parts, &bytes);
        }
        done += n;
        cx.step().await;
    }
    ended(done as usize, len, EIO)
}
