//! Says what a call waits for, and who holds it.

use super::causes::Cause;
use crate::model::World;
use crate::model::pin::{Hold, Means};
use crate::oracle::{file_name, who};

pub(super) fn page(world: &World, hold: &Hold) -> String {
    format!("page {} of {}", hold.page / crate::model::PAGE, file_name(world, hold.file))
}

pub(super) fn by(world: &World, hold: &Hold) -> String {
    let call = who(world, hold.call);
    match hold.means {
        Means::Pipe(_) => format!(" by the pipe of {call}"),
        Means::Transfer => match world.gate_used(hold.call) {
            Some(gate) => format!(" by {call}, whose I/O is with {gate}"),
            None => format!(" by the I/O of {call}"),
        },
        Means::Copy => match world.gate_used(hold.call) {
            Some(gate) => format!(" by {call}, whose copy waits for {gate}"),
            None => format!(" by {call}"),
        },
        Means::Registered(_) => format!(" by the buffer of {call}"),
        Means::Region => format!(" by the memory region of {call}"),
        Means::LongtermTest => format!(" by the pins of {call}"),
    }
}

pub(super) fn sentence(world: &World, call: u16, cause: &Cause) -> String {
    let me = who(world, call);
    match cause {
        Cause::Page(hold) => {
            format!("{me} waits for {}, held{}", page(world, hold), by(world, hold))
        }
        Cause::Lease(file, takers) => {
            let takers: Vec<String> = takers.iter().map(|k| who(world, *k)).collect();
            let name = file_name(world, *file);
            format!("{me} waits for the lease of {} on {name}", takers.join(" or "))
        }
        Cause::Gate(gate) => format!("{me} waits for {gate}, which is held"),
        Cause::Empty(key) => format!("{me} waits for bytes in the pipe of {}", who(world, *key)),
        Cause::Full(key) => format!("{me} waits for room in the pipe of {}", who(world, *key)),
        Cause::Pipe(other) => {
            format!("{me} waits for {}, which has the pipe's lock", who(world, *other))
        }
        Cause::Inode(other, file) => {
            let (other, name) = (who(world, *other), file_name(world, *file));
            format!("{me} stands behind {other}, which has the lock of {name}")
        }
        Cause::Names(other) => {
            format!("{me} stands behind {}, which has the directory's lock", who(world, *other))
        }
        Cause::Ring(other) => {
            format!("{me} stands behind {} in its ring", who(world, *other))
        }
        Cause::Lane(lane) => format!("{me} waits for lane {lane}"),
    }
}
