//! Starting QEMU so that it cannot outlive us.
//!
//! `setpriv --pdeathsig KILL` makes the kernel kill QEMU when the thread that started it ends, for whatever reason. So one
//! thread, which lives as long as the process, starts them all.
//!
//! Each gets a process group of its own: what a terminal sends to ours (Ctrl-C) is for us alone, who then end the guests in order.

use super::super::TargetError;
use crate::machine::infra;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};

/// A command, and where to send the child.
type Order = (Command, Sender<std::io::Result<Child>>);

static SPAWNER: OnceLock<Option<Sender<Order>>> = OnceLock::new();

/// Starts a command from the thread that never ends.
pub fn spawn(command: Command) -> Result<Child, TargetError> {
    let program = command.get_program().display().to_string();
    let spawner =
        SPAWNER.get_or_init(start).as_ref().ok_or_else(|| infra("cannot start a thread"))?;
    let (sender, receiver) = mpsc::channel();
    spawner.send((command, sender)).map_err(|_| infra("the starting thread is gone"))?;
    receiver
        .recv()
        .map_err(|_| infra("the starting thread is gone"))?
        .map_err(|e| infra(format!("cannot start {program}: {e}")))
}

fn start() -> Option<Sender<Order>> {
    let (sender, receiver) = mpsc::channel::<Order>();
    let work = move || {
        for (mut command, answer) in receiver {
            // Who asked may have gone away; his child then has no owner.
            if let Err(mpsc::SendError(Ok(mut child))) =
                answer.send(command.process_group(0).spawn())
            {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    };
    std::thread::Builder::new().name("spawner".into()).spawn(work).ok().map(|_| sender)
}
