//! gup_test: pins on demand, of which there is one set for all processes; what its pages hold; and pins that are given back at once.

use super::block::PAGE;
use super::bug::Bug;
use super::hold::{Ask, Hold, Part, Place};
use super::mapping::MapRef;
use super::world::errno::{EFAULT, EINVAL};
use super::world::{Answer, World, plain};
use history::{Bytes, Errno, Payload, stamp};
use program::{Buf, CallId, PinFlags};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

fn ask(flags: PinFlags, long: bool) -> Ask {
    let slow = !flags.has(PinFlags::FAST);
    Ask { write: flags.has(PinFlags::WRITE), pinned: true, long, slow, ..Ask::default() }
}

/// PIN_LONGTERM_TEST_START
pub(super) fn start(
    w: &mut World,
    id: CallId,
    map: Option<&MapRef>,
    buf: Buf,
    len: u64,
    flags: PinFlags,
) -> Result<u64, Errno> {
    if w.tested.is_some() && !w.has(Bug::LongtermTestTwice) {
        return Err(EINVAL);
    }
    let offset = match buf {
        Buf::Anon(offset) => u64::from(offset),
        Buf::Map(_, offset) => offset,
    };
    if len == 0 || !(offset | len).is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    let mut parts = Vec::new();
    for at in (0..len).step_by(PAGE as usize) {
        let Some(map) = map else {
            parts.push(anonymous(w, id, at));
            continue;
        };
        let (mut page, whole) = w.grab(map, offset + at, PAGE, ask(flags, true));
        parts.append(&mut page);
        if whole.is_err() && w.has(Bug::PinLeakedOnRefusal) {
            w.leak(&parts);
        }
        whole?;
    }
    w.tested = Some(parts);
    Ok(0)
}

/// A pinned page of anonymous memory, signed by the call.
fn anonymous(w: &mut World, id: CallId, at: u64) -> Part {
    let mut page = super::block::zero_page();
    stamp::sign(&mut Arc::make_mut(&mut page)[..], w.run, id.0, at);
    let place = Place::Anon(Rc::new(RefCell::new(page)));
    let hold = Rc::new(Hold { place, pinned: true, long: true, revoked: Cell::new(false) });
    w.holds.push(hold.clone());
    Part { hold, from: 0, len: PAGE as usize }
}

/// PIN_LONGTERM_TEST_READ
pub(super) fn read(w: &mut World) -> Answer {
    let Some(parts) = w.tested.clone() else { return plain(Err(EINVAL)) };
    if parts.iter().any(|part| part.hold.revoked.get()) {
        return plain(Err(EFAULT));
    }
    let mut data = Vec::new();
    for part in &parts {
        let page = match part.hold.place {
            Place::Cache { mount, ino, page, .. } if w.has(Bug::LongtermTestFollowsFile) => {
                w.fs[mount].page(ino, page)
            }
            _ => part.page(w),
        };
        data.extend_from_slice(&page[..]);
    }
    (Ok(0), Payload::Read { data: Bytes::encode(&data), tail_intact: true, fault: None })
}

/// PIN_LONGTERM_TEST_STOP
pub(super) fn stop(w: &mut World) -> u64 {
    if let Some(parts) = w.tested.take()
        && w.has(Bug::LongtermTestLeaks)
    {
        w.leak(&parts);
    }
    w.progress += 1;
    0
}

/// PIN_BASIC_TEST and PIN_FAST_BENCHMARK: how many bytes they came to.
pub(super) fn basic(w: &mut World, map: &MapRef, offset: u64, len: u64, flags: PinFlags) -> u64 {
    let mut zero = false;
    let mut done = 0;
    while done < len {
        let (parts, whole) = w.grab(map, offset + done, PAGE, ask(flags, false));
        if whole.is_err() {
            break;
        }
        zero |= parts.iter().any(|part| matches!(part.hold.place, Place::Zero));
        done += PAGE;
    }
    if zero {
        w.complain("WARNING in __gup_test_ioctl");
    }
    done
}
