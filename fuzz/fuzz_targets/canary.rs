//! Must fail: a fuzzer that cannot find a planted bug cannot be trusted with a real one.
//!
//! Runs programs on the fake kernel, which truncates wrongly here. A run of this target that ends without a crash is the failure.

#![no_main]

use checker::{Policy, Verdict, check};
use harness::target::Target;
use harness::target::fake::{Bug, FakeConfig, FakeTarget};
use libfuzzer_sys::fuzz_target;
use program::{Mount, Program};

fuzz_target!(|seed: u64| {
    let program = Program::from_seed(seed, Mount::Ext4);
    let config = FakeConfig { bug: Some(Bug::TruncateKeepsTail), ..FakeConfig::default() };
    let done = FakeTarget::new(config).execute(&program).expect("the fake does not fail");
    let verdict = check(&done.program, &done.history, &Policy::for_release("6.12"));
    if let Verdict::Anomalous(anomalies) = verdict {
        panic!("the canary sings: {anomalies:#?}\n{program}");
    }
});
