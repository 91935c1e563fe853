//! The agent's binary, PID 1 of the guest.

fn main() {
    if rustix::process::getpid().is_init() {
        agent::pid1::main();
    }
    eprintln!("pinfuzz agent: runs as PID 1 of a guest, and nowhere else");
    std::process::exit(134);
}
