//! Printing loses nothing, and there is one way to print.

use super::{home, hostile};
use crate::{Buf, Call, CallKind, INPUT_MAX, Lane, Line, Mount, Path, Program, Size};

fn round_trips(program: &Program, seed: u64) {
    let text = program.to_string();
    assert!(text.len() <= INPUT_MAX / 2, "seed {seed}: room for comments is left");
    let parsed =
        Program::parse(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
    assert_eq!(&parsed, program, "seed {seed}:\n{text}");
    assert_eq!(parsed.to_string(), text, "seed {seed}");
}

#[test]
fn generated_programs_round_trip() {
    for seed in 0..5_000 {
        round_trips(&Program::from_seed(seed, home(seed)), seed);
    }
}

#[test]
fn hostile_programs_round_trip_once_they_are_fixed() {
    for seed in 0..5_000 {
        let mut program = hostile(seed);
        program.fixup();
        round_trips(&program, seed);
    }
}

#[test]
fn hostile_programs_print_without_being_fixed() {
    for seed in 0..500 {
        assert!(hostile(seed).to_string().starts_with("pinfuzz 1\n"), "seed {seed}");
    }
}

#[test]
fn sizes_print_with_the_largest_exact_unit() {
    let printed: Vec<String> =
        [0, 1, 512, 1024, 1025, 4096, 1 << 20, (1 << 20) + 1024, 4 << 20, u64::MAX]
            .map(|n| Size(n).to_string())
            .to_vec();
    insta::assert_snapshot!(
        printed.join(" "),
        @"0 1 512 1K 1025 4K 1M 1025K 4M 18446744073709551615"
    );
}

#[test]
fn every_call_has_its_text() {
    let texts: Vec<String> = CallKind::ALL
        .iter()
        .map(|kind| kind.template().display(Mount::XfsDax).to_string())
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
        f0 = open("a", RDWR|CREAT)
        close(f0)
        f1 = dup(f0)
        unlink("a")
        rename("a", "b")
        link("a", "b")
        pread(f0, 0, anon, 4K)
        pwrite(f0, 0, anon, 4K)
        preadv(f0, 0, [anon 4K])
        pwritev(f0, 0, [anon 4K])
        readv(f0, [anon 4K])
        writev(f0, [anon 4K])
        lseek(f0, 0, SET)
        m0 = mmap(f0, 0, 4K, RW, SHARED)
        munmap(m0)
        mremap(m0, 4K)
        mprotect(m0, R)
        load(m0+0, 8)
        store(m0+0, 8)
        msync(m0+0, 4K, SYNC)
        madvise(m0+0, 4K, DONTNEED)
        truncate("a", 0)
        ftruncate(f0, 0)
        fallocate(f0, 0, 0, 4K)
        ficlone(f1, f0)
        ficlonerange(f1, 0, f0, 0, 4K)
        fideduperange(f0, 0, 4K, f1, 0)
        copy_file_range(f0, 0, f1, 0, 4K)
        sendfile(f1, f0, 0, 4K)
        p0 = pipe()
        splice(f0, 0, p0, 4K)
        splice(p0, f0, 0, 4K)
        fsync(f0)
        fdatasync(f0)
        sync_file_range(f0, 0, 4K, WRITE)
        syncfs(f0)
        statx(f0)
        fiemap(f0)
        c0 = fork()
        exit()
        drop_caches()
        r0 = io_uring_setup(8)
        wait(t1)
        f0 = open(g0, RDWR|DIRECT)
        hold(g0)
        release(g0)
        vmsplice(m0+0, p0, 4K)
        tee(p0, p1, 4K)
        read(p0, anon, 4K)
        close(p0)
        process_vm_readv(m0+0, g2, 4K)
        process_vm_writev(m0+0, g2, 4K)
        proc_mem_pread(m0+0, 4K)
        proc_mem_pwrite(m0+0, 4K)
        register_buffers(r0, m0+0, 4K)
        update_buffers(r0, m0+0, 4K)
        clone_buffers(r1, r0)
        unregister_buffers(r0)
        close(r0)
        setlease(f0, RDLCK)
        getlease(f0)
        setsig(f0, RT1)
        setown_ex(f0, TID, t0)
        on_break(UNLCK)
        lease_break_time(1)
        kill(c0)
        interrupt(t1)
        send_fd(f0)
        f1 = recv_fd()
        x0 = ibv_reg_mr(m0+0, 4K, LOCAL_READ)
        ibv_dereg_mr(x0)
        pin_longterm_test_start(m0+0, 4K, 0)
        pin_longterm_test_read()
        pin_longterm_test_stop()
        pin_basic_test(m0+0, 4K, 0)
        rdma_write(x0+0, x1+0, 4K)
        rdma_read(x0+0, x1+0, 4K)
        "#);
}

#[test]
fn a_path_away_from_home_names_its_mount() {
    let call = Call::Rename {
        from: Path { mount: Mount::Xfs, name: 0 },
        to: Path { mount: Mount::Ext4Dax, name: 3 },
    };
    insta::assert_snapshot!(call.display(Mount::Xfs), @r#"rename("a", "ext4-dax:d")"#);
    insta::assert_snapshot!(Line::new(Lane::Child(1), call), @r#"c1: rename("xfs:a", "ext4-dax:d")"#);
}

#[test]
fn slots_in_use_are_listed_in_the_order_of_the_text() {
    let text = "pinfuzz 1\nimage xfs\nt0: pwritev(f3, 0, [m1+0 8, anon 8, m0+8 8]) (r1)\n";
    let line = &Program::parse(text).expect("it is a program").lines[0];
    let uses: Vec<String> = line.uses().iter().map(ToString::to_string).collect();
    assert_eq!(uses, ["f3", "m1", "m0", "r1"]);
    assert_eq!(line.call.fills(), None);
    let buffers: Vec<(Buf, u64)> = line.call.buffers().collect();
    assert_eq!(buffers.len(), 3);
    assert_eq!(buffers[1], (Buf::Anon(0), 8));
}
