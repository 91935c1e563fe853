//! The whole way from a source to an entry, on a tree that has a kernel's Makefile targets and three C files.
//!
//! Needs make, a C compiler, patch and git.

use super::*;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// The targets that are asked for. Recursion with `-C`, as in a kernel, shows whether variables arrive and how `$@` reads there.
const MAKEFILE: &str = r#"VERSION = 6
PATCHLEVEL = 12
x86_64_defconfig:
	@printf 'CONFIG_X86=y\nCONFIG_SOUND=y\n' > $(O)/.config
olddefconfig:
	@sh scripts/olddefconfig $(O)/.config
bzImage:
	@mkdir -p $(O)/include/config $(O)/arch/x86/boot
	@echo 6.12.1-pinfuzz$(LOCALVERSION) > $(O)/include/config/kernel.release
	@$(MAKE) -C $(O) -f $(CURDIR)/Makefile.build SRC=$(CURDIR) vmlinux
	@cp boot.image $(O)/arch/x86/boot/bzImage
"#;
const MAKEFILE_BUILD: &str = r#"OBJECTS = init/main.o mm/gup.o mm/slow.o
.DELETE_ON_ERROR:
vmlinux: $(OBJECTS)
	@ld -r -o $@ $(OBJECTS)
$(OBJECTS): %.o: $(SRC)/%.c
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@echo "$@ $(if $(KCOV_INSTRUMENT),kcov)" >> instrumented
	@sh $(SRC)/scripts/compile $< $@ || { echo "make says"; exit 1; }
"#;
/// What a C file may ask for, beside being compiled.
const COMPILE: &str = r#"if grep -q FULL "$1"; then echo x > "$2"; cat "$1" > /dev/full; exit 1; fi
if grep -q SLOW "$1"; then echo half > "$2"; echo $$ > started.tmp; mv started.tmp started; sleep 1000; fi
exec gcc -c -o "$2" "$1"
"#;
/// Drops what is unknown and what lacks its dependency, in silence, as the real one does.
const OLDDEFCONFIG: &str = r#"sed -i '/CONFIG_UNKNOWN=/d' "$1"
grep -q CONFIG_LACKING=y "$1" || sed -i '/CONFIG_NEEDY=/d' "$1"
"#;
const MERGE: &str = r#"shift; out=$1; cat "$@" > merged
awk 'match($0, /CONFIG_[A-Za-z0-9_]*/) { last[substr($0, RSTART, RLENGTH)] = $0 } END { for (s in last) print last[s] }' merged > "$out"
"#;
const KCONFIG: &str = "source \"mm/Kconfig\"\n";
const MM_KCONFIG: &str =
    "config LACKING\n\tbool \"lacking\"\n\nconfig NEEDY\n\tbool \"needy\"\n\tdepends on LACKING\n";
const GUP: &str = "int pins;\nint pin(void)\n{\n\treturn pins++;\n}\n";

/// A tree and a cache beside it.
struct Site {
    dir: tempfile::TempDir,
    cache: Cache,
    stop: AtomicBool,
}

/// Notes what a build tells.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Watch for Notes {
    fn step(&self, what: &str) {
        self.0.lock().unwrap().push(what.into());
    }
    fn compiled(&self, done: u64, of: Option<u64>) {
        self.0.lock().unwrap().push(format!("{done} of {of:?}"));
    }
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(&dir.path().join("cache")).unwrap();
        let site = Site { dir, cache, stop: AtomicBool::new(false) };
        for (name, text) in [
            ("Makefile", MAKEFILE),
            ("Makefile.build", MAKEFILE_BUILD),
            ("Kconfig", KCONFIG),
            ("mm/Kconfig", MM_KCONFIG),
            ("mm/gup.c", GUP),
            ("mm/slow.c", "int slow;\n"),
            ("init/main.c", "int start;\n"),
            ("scripts/compile", COMPILE),
            ("scripts/olddefconfig", OLDDEFCONFIG),
            ("scripts/kconfig/merge_config.sh", MERGE),
        ] {
            site.write(&format!("linux/{name}"), text);
        }
        let mut image = vec![0; 0x800];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        image[0x500..0x50e].copy_from_slice(b"6.12.1-pinfuzz");
        fs::write(site.path("linux/boot.image"), image).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn request(&self) -> Request {
        Request {
            source: Source::Directory(self.path("linux")),
            profiles: vec![],
            fragments: vec![],
            patches: vec![],
            name: None,
            jobs: 1,
        }
    }

    fn build(&self, request: &Request) -> Result<Built, BuildError> {
        self.watched(request, &Notes::default())
    }

    fn watched(&self, request: &Request, notes: &Notes) -> Result<Built, BuildError> {
        let words = Words::read(request, &self.cache)?;
        with_tools(request, words, &self.cache, notes, &self.stop)
    }

    /// Builds with these patches, and says what came of it.
    fn patched(&self, files: &[(&str, String)]) -> Result<Built, String> {
        let patches = files.iter().map(|(name, text)| self.write(name, text)).collect();
        let said = self.build(&Request { patches, ..self.request() }).map_err(|e| e.to_string());
        let place = self.dir.path().display().to_string();
        said.map_err(|text| text.replace(&format!("{place}/"), ""))
    }

    fn entries(&self) -> usize {
        self.cache.keys(built::KIND).len()
    }

    /// The place of the one source line.
    fn line(&self) -> PathBuf {
        let mut lines = tree::entries(&self.cache.root().join(TREES), false).unwrap();
        assert_eq!(lines.len(), 1);
        lines.remove(0).1
    }

    fn objects(&self) -> PathBuf {
        self.line().join("objects/base")
    }

    /// Which objects were compiled, since last asked.
    fn compiled(&self, profiles: &str) -> Vec<String> {
        let path = self.line().join("objects").join(profiles).join("instrumented");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(|line| line.trim().to_string()).collect()
    }
}

/// A patch as git writes it: one line of mm/gup.c becomes another.
fn patch(subject: &str, old: &str, new: &str) -> String {
    format!(
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nDate: Sat, 21 Nov 2026 10:00:00 +0000\n\
         Subject: [PATCH] {subject}\n\nWhy.\n\n--- a/not/a/diff\n---\n mm/gup.c | 2 +-\n\ndiff --git a/mm/gup.c b/mm/gup.c\nindex 1..2 100644\n\
         --- a/mm/gup.c\n+++ b/mm/gup.c\n@@ -1,3 +1,3 @@\n-{old}\n+{new}\n int pin(void)\n {{\n-- \n2.47.3\n\n"
    )
}

#[test]
fn a_fresh_build_is_kept_whole_and_found_by_its_name() {
    let site = Site::new();
    let built = site.build(&Request { profiles: vec!["kcov".into()], ..site.request() }).unwrap();
    assert!(built.name.starts_with("linux+kcov-"), "{}", built.name);
    for name in ["bzImage", "vmlinux", "config", "build.json"] {
        assert!(built.dir.join(name).is_file(), "{name}");
    }
    let record = &built.record;
    assert_eq!(record.release, "6.12.1-pinfuzz", "and no plus");
    assert_eq!((record.profiles.join("+").as_str(), record.compiled), ("base+kcov", 3));
    assert_eq!(fs::read_to_string(record.source_dir.join("mm/gup.c")).unwrap(), GUP);
    let config = fs::read_to_string(built.dir.join("config")).unwrap();
    assert!(config.contains("CONFIG_KCOV=y") && config.contains("# CONFIG_SOUND is not set"));
    // Only what the list names is instrumented: mm/gup.o is in it, init/main.o is not.
    assert_eq!(site.compiled("base+kcov"), ["init/main.o", "mm/gup.o kcov", "mm/slow.o"]);
    let quiet: &(dyn Fn(&str) + Sync) = &|_| {};
    let kernel = crate::machine::kernel::find(&built.name, &site.cache, quiet).unwrap();
    assert_eq!(kernel.release, "6.12.1-pinfuzz");
    assert_eq!(kernel.vmlinux.unwrap(), fs::canonicalize(built.dir.join("vmlinux")).unwrap());
    assert_eq!(list(&site.cache).len(), 1);
    // The tree of the user's is as it was.
    assert!(!site.path("linux/.config").exists() && !site.path("linux/include").exists());
}

#[test]
fn what_was_built_is_not_built_again_and_a_change_compiles_what_it_touches() {
    let site = Site::new();
    let first = site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base").len(), 3);
    assert_eq!(site.build(&site.request()).unwrap().dir, first.dir);
    assert!(site.compiled("base").is_empty());

    site.write("linux/mm/gup.c", "int other;\n");
    let second = site.build(&site.request()).unwrap();
    assert_ne!((&second.dir, &second.name), (&first.dir, &first.name));
    assert_eq!(site.compiled("base"), ["mm/gup.o"]);
    assert_eq!(second.record.compiled, 1);

    // The first kernel's source stayed what it was, and shares what did not change.
    assert_eq!(fs::read_to_string(first.record.source_dir.join("mm/gup.c")).unwrap(), GUP);
    let inode =
        |built: &Built| fs::metadata(built.record.source_dir.join("init/main.c")).unwrap().ino();
    assert_eq!(inode(&first), inode(&second));

    // Another set of profiles has objects of its own, and a file that goes takes nothing else along.
    fs::write(site.path("linux/unused.c"), "").unwrap();
    site.build(&Request { profiles: vec!["lockdep".into()], ..site.request() }).unwrap();
    assert_eq!(site.compiled("base+lockdep").len(), 3);
    fs::remove_file(site.path("linux/unused.c")).unwrap();
    site.write("linux/init/main.c", "int begin;\n");
    site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base"), ["init/main.o"]);
    assert!(!site.line().join("source/unused.c").exists());
}

#[test]
fn a_patch_compiles_its_file_and_taking_it_away_does_so_again() {
    let site = Site::new();
    let plain = site.build(&site.request()).unwrap();
    site.compiled("base");
    let one = patch("mm: count in long", "int pins;", "long pins;");
    let patched = site.patched(&[("0001.patch", one.clone())]).unwrap();
    assert_eq!(site.compiled("base"), ["mm/gup.o"]);
    assert!(
        fs::read_to_string(patched.record.source_dir.join("mm/gup.c"))
            .unwrap()
            .starts_with("long pins;")
    );
    assert_eq!(
        patched.record.patches[0].0,
        format!("{} (\"[PATCH] mm: count in long\")", site.path("0001.patch").display())
    );
    // Over the same objects, another file makes the source line move on and back.
    site.write("linux/init/main.c", "int begin;\n");
    site.patched(&[("0001.patch", one)]).unwrap();
    assert_eq!(site.compiled("base"), ["init/main.o"]);
    site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base"), ["mm/gup.o"], "its object was of the patched file");
    assert_ne!(plain.dir, patched.dir);
    assert_eq!(fs::read_to_string(site.path("linux/mm/gup.c")).unwrap(), GUP, "the user's file");
}

#[test]
fn an_mbox_is_applied_message_by_message_and_makes_moves_and_deletes_files() {
    let site = Site::new();
    let cover = "From 0 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 0/3] cover\n\nAll of it.\n\n";
    let files = "From 1 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 3/3] files:\n move about\n\n---\ndiff --git a/mm/new.c b/mm/new.c\nnew file mode 100755\n--- /dev/null\n+++ b/mm/new.c\n@@ -0,0 +1 @@\n+int new;\n\\ No newline at end of file\ndiff --git a/init/main.c b/init/begin.c\nsimilarity index 100%\nrename from init/main.c\nrename to init/begin.c\ndiff --git a/mm/slow.c b/mm/slow.c\ndeleted file mode 100644\n--- a/mm/slow.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-int slow;\ndiff --git a/Makefile.build b/Makefile.build\n--- a/Makefile.build\n+++ b/Makefile.build\n@@ -1,2 +1,2 @@\n-OBJECTS = init/main.o mm/gup.o mm/slow.o\n+OBJECTS = init/begin.o mm/gup.o mm/new.o\n .DELETE_ON_ERROR:\n";
    let mbox = [
        cover,
        &patch("first", "int pins;", "long pins;"),
        &patch("second", "long pins;", "char pins;"),
        files,
    ]
    .concat();
    let built = site.patched(&[("series.mbox", mbox)]).unwrap();
    assert_eq!(site.compiled("base"), ["init/begin.o", "mm/gup.o", "mm/new.o"]);
    let dir = &built.record.source_dir;
    assert!(!dir.join("mm/slow.c").exists() && !dir.join("init/main.c").exists());
    assert_eq!(fs::metadata(dir.join("mm/new.c")).unwrap().mode() & 0o111, 0o111);
    assert_eq!(fs::read(dir.join("mm/new.c")).unwrap(), b"int new;");
    assert!(fs::read_to_string(dir.join("mm/gup.c")).unwrap().starts_with("char pins;"));
    let subjects: Vec<&str> =
        built.record.patches.iter().map(|(name, _)| name.split_once("(").unwrap().1).collect();
    assert_eq!(
        subjects,
        ["\"[PATCH] first\")", "\"[PATCH] second\")", "\"[PATCH 3/3] files: move about\")"]
    );
    // And back again.
    site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base").len(), 3, "all three were made of other files");
    assert!(!site.line().join("source/mm/new.c").exists());
}

#[test]
fn a_patch_that_does_not_apply_names_subject_file_and_hunk() {
    let site = Site::new();
    let good = patch("first", "int pins;", "long pins;");
    for (files, why) in [
        (
            vec![("a.patch", patch("mm: late", "short pins;", "x"))],
            "a.patch (\"[PATCH] mm: late\") does not apply: mm/gup.c, hunk 1 (at line 1)",
        ),
        (
            vec![("s.mbox", good.clone() + &patch("again", "int pins;", "x"))],
            "s.mbox, patch 2 of 2 (\"[PATCH] again\") does not apply: mm/gup.c, hunk 1 (at line 1)",
        ),
        (
            vec![("a.patch", good.clone()), ("b.patch", good.clone())],
            "b.patch (\"[PATCH] first\") does not apply: mm/gup.c, the change is in this tree already",
        ),
        (
            vec![("a.patch", good.replace("mm/gup.c", "mm/gap.c"))],
            "a.patch (\"[PATCH] first\") does not apply: mm/gap.c is not in this tree",
        ),
        (
            vec![("a.patch", "--- /dev/null\n+++ b/mm/gup.c\n@@ -0,0 +1 @@\n+x\n".into())],
            "a.patch does not apply: mm/gup.c is in this tree already",
        ),
        (
            vec![("a.patch", good.replace("@@ -1,3 +1,3 @@", "@@ -1,9 +1,9 @@"))],
            "a.patch (\"[PATCH] first\"): hunk 1 of mm/gup.c is cut short",
        ),
        (vec![("a.patch", "nothing\n".into())], "a.patch: there is no diff in it"),
    ] {
        assert_eq!(site.patched(&files).map(|b| b.name).unwrap_err(), why);
    }
    assert_eq!(site.entries(), 0);
    // None of them left a trace: the good one gives its kernel.
    site.patched(&[("a.patch", good)]).unwrap();
}

#[test]
fn hostile_patches_reach_nothing_outside() {
    let site = Site::new();
    let victim = site.write("victim", "mine\n");
    symlink("..", site.path("linux/up")).unwrap();
    let to = |name: &str| format!("--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-mine\n+theirs\n");
    let absolute = format!("--- {0}\n+++ {0}\n@@ -1 +1 @@\n-mine\n+theirs\n", victim.display());
    for (text, why) in [
        (to("../victim"), "a.patch: `../victim` is no path in a kernel tree"),
        (to("mm/../../victim"), "a.patch: `mm/../../victim` is no path in a kernel tree"),
        (to("/etc/passwd"), "a.patch: `/etc/passwd` is no path in a kernel tree"),
        (to("\u{1b}[31m"), "a.patch: `\\u{1b}[31m` is no path in a kernel tree"),
        (to("up/victim"), "a.patch does not apply: up is a symbolic link in this tree"),
        (absolute.clone(), "is an absolute path"),
        ("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n".into(), "a.patch: l is no plain file (mode 120000)"),
        ("diff --git a/x b/x\nrename from ../victim\nrename to x\n".into(), "a.patch: `../victim` is no path in a kernel tree"),
        ("diff --git a/x b/x\nindex 1..2\nGIT binary patch\nliteral 1\n".into(), "a.patch: it changes a binary file, x"),
        ("Content-Transfer-Encoding: base64\n\nZGlmZg==\n".into(), "a.patch: its text is encoded (base64); save it with `git mailinfo` or `b4 am`"),
        // An ed script would be run, an Index line be followed.
        (format!("Index: {}\n1c\ntheirs\n.\nw\n!touch owned\n", victim.display()), "a.patch: there is no diff in it"),
        (String::new(), "a.patch: there is no diff in it"),
    ] {
        let said = site.patched(&[("a.patch", text)]).map(|b| b.name).unwrap_err();
        assert!(said.ends_with(why) && said.lines().count() == 1, "{said}");
    }
    let two = format!(
        "Index: {}\n{}",
        victim.display(),
        to("mm/gup.c").replace("-mine\n+theirs", "-int pins;\n+int pins; /* */")
    );
    site.patched(&[("a.patch", two.replace("@@ -1 +1 @@", "@@ -1,1 +1,1 @@"))]).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "mine\n");
}

#[test]
fn a_syntax_error_is_the_compilers_own_line_with_the_patch() {
    let site = Site::new();
    site.write("linux/init/main.c", "int start\nint more;\n");
    let error = site.build(&site.request()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("\n  init/main.c:1:10: error: expected ';'"), "{said}");
    assert!(!said.contains("changed by") && !said.contains("make says"), "{said}");
    let BuildError::Failed { hint, .. } = error else { panic!("{error:?}") };
    let log = site.line().join("base.log");
    assert!(hint.contains(log.to_str().unwrap()), "{hint}");
    assert!(fs::read_to_string(log).unwrap().contains("  CC      init/main.o"));
    assert_eq!(site.entries(), 0);

    // The rest of the way needs only what was broken. What did compile before is not compiled again.
    site.compiled("base");
    site.write("linux/init/main.c", "int start;\n");
    let said =
        site.patched(&[("a.patch", patch("mm: typo", "int pins;", "int pins"))]).unwrap_err();
    assert!(
        said.contains("mm/gup.c:1:9: error: expected")
            && said.contains("\n    changed by a.patch (\"[PATCH] mm: typo\")"),
        "{said}"
    );
    assert_eq!(site.compiled("base"), ["init/main.o", "mm/gup.o"]);
    site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base"), ["mm/gup.o", "mm/slow.o"]);
}

#[test]
fn wishes_that_do_not_stick_say_why_and_leave_the_cache_alone() {
    let site = Site::new();
    let said = |text: &str| {
        let fragments = vec![site.write("my.config", text)];
        let error = site.build(&Request { fragments, ..site.request() }).unwrap_err().to_string();
        error.replace(&format!("{}/", site.dir.path().display()), "")
    };
    assert_eq!(
        said("# mine\nCONFIG_UNKNOWN=y\n"),
        "there is no CONFIG_UNKNOWN in this tree (my.config:2)"
    );
    assert_eq!(
        said("CONFIG_NEEDY=y\n"),
        "CONFIG_NEEDY=y (my.config:1) did not stick, it is not set: it depends on LACKING (mm/Kconfig:6), which is not set"
    );
    assert_eq!(said("rm -rf /\n"), "my.config:1: not a line of a config: rm -rf /");
    assert_eq!(site.entries(), 0);
    let fragments = vec![site.write("my.config", "CONFIG_NEEDY=y\nCONFIG_LACKING=y\n")];
    let built = site.build(&Request { fragments, ..site.request() }).unwrap();
    assert!(fs::read_to_string(built.dir.join("config")).unwrap().contains("CONFIG_NEEDY=y"));
}

#[test]
fn a_full_disk_is_one_line_and_no_entry() {
    let site = Site::new();
    site.write("linux/mm/slow.c", "int slow; /* FULL */\n");
    let said = site.build(&site.request()).unwrap_err().to_string();
    assert!(said.starts_with("no space left while compiling linux+base-"), "{said}");
    assert!(said.lines().count() == 1 && said.ends_with("base.log)"), "{said}");
    assert_eq!(site.entries(), 0);
    assert!(!site.objects().join("mm/slow.o").exists(), "what was half written is gone");
    site.write("linux/mm/slow.c", "int slow;\n");
    site.build(&site.request()).unwrap();
}

#[test]
fn stopping_ends_every_process_and_leaves_neither_lock_nor_entry() {
    let site = Site::new();
    site.write("linux/mm/slow.c", "int slow; /* SLOW */\n");
    let started = std::thread::scope(|scope| {
        let build = scope.spawn(|| site.build(&site.request()));
        let started = loop {
            let trees = site.cache.root().join(TREES);
            let found = tree::entries(&trees, false).ok().and_then(|all| all.into_iter().next());
            let path = found.map(|(_, line)| line.join("objects/base/started"));
            if let Some(path) = path.filter(|path| path.exists()) {
                break path;
            }
            assert!(!build.is_finished(), "{:?}", build.join());
            thread::sleep(Duration::from_millis(10));
        };
        site.stop.store(true, Ordering::Relaxed);
        let error = build.join().unwrap().unwrap_err();
        assert!(matches!(error, BuildError::Interrupted), "{error}");
        started
    });
    let pid = fs::read_to_string(&started).unwrap();
    // A zombie has ended; where nobody adopts it, it stays in the table.
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    assert!(stat.is_err() || stat.unwrap().contains(") Z "), "{pid} still runs");
    assert!(!site.objects().join("mm/slow.o").exists(), "what was half made is gone");
    assert_eq!(site.entries(), 0);
    let lock = format!("{TREES}-{}", site.line().file_name().unwrap().to_str().unwrap());
    assert!(site.cache.try_lock(&lock).unwrap().is_some());

    site.stop.store(false, Ordering::Relaxed);
    site.compiled("base");
    site.write("linux/mm/slow.c", "int slow;\n");
    site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base"), ["mm/slow.o"], "the others were compiled before");
}

#[test]
fn what_a_killed_build_wrote_is_not_trusted() {
    let site = Site::new();
    site.build(&site.request()).unwrap();
    site.compiled("base");
    // As if pinfuzz had been killed while a compiler wrote: the mark is there, and an object that looks newer than its source.
    let began = SystemTime::now();
    let mark = site.objects().join(".pinfuzz-running");
    fs::write(&mark, "").unwrap();
    fs::File::open(&mark).unwrap().set_modified(began).unwrap();
    for name in ["mm/gup.o", "vmlinux"] {
        let path = site.objects().join(name);
        fs::write(&path, "half").unwrap();
        fs::File::open(&path).unwrap().set_modified(began + Duration::from_secs(1)).unwrap();
    }
    site.write("linux/init/main.c", "int begin;\n");
    site.build(&site.request()).unwrap();
    assert_eq!(site.compiled("base"), ["init/main.o", "mm/gup.o"]);
    assert!(!mark.exists());
}

#[test]
fn two_builds_of_one_source_wait_for_each_other() {
    let site = Site::new();
    let held = {
        let line = source::origin(&site.request().source, &site.cache, &|_| ()).unwrap().line;
        site.cache.lock(&format!("{TREES}-{line}")).unwrap()
    };
    let notes = Notes::default();
    std::thread::scope(|scope| {
        let build = scope.spawn(|| site.watched(&site.request(), &notes));
        let waits =
            || notes.0.lock().unwrap().iter().any(|l| l.starts_with("waiting for another build"));
        while !waits() {
            assert!(!build.is_finished());
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!site.cache.root().join(TREES).exists(), "nothing was touched meanwhile");
        drop(held);
        build.join().unwrap().unwrap();
    });
}

#[test]
fn a_revision_is_built_without_touching_the_tree_that_lies_there() {
    let site = Site::new();
    let tree = site.path("linux");
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(&tree)
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(words);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "one"]);
    site.write("linux/mm/gup.c", "int second;\n");
    git(&["commit", "-qam", "two"]);
    // What lies there now is neither of them, and was built in place.
    site.write("linux/mm/gup.c", "broken(\n");
    site.write("linux/.config", "CONFIG_X=y\n");
    let source = |revision: &str| Source::Git(tree.clone(), revision.into());
    let first = site.build(&Request { source: source("HEAD~1"), ..site.request() }).unwrap();
    assert!(first.name.starts_with("linux@"), "{}", first.name);
    assert_eq!(site.compiled("base").len(), 3);
    let second = site.build(&Request { source: source("HEAD"), ..site.request() }).unwrap();
    assert_eq!(site.compiled("base"), ["mm/gup.o"], "revisions of a tree share its objects");
    assert_eq!(
        fs::read_to_string(second.record.source_dir.join("mm/gup.c")).unwrap(),
        "int second;\n"
    );
    assert_eq!(fs::read_to_string(site.path("linux/mm/gup.c")).unwrap(), "broken(\n");
    for bad in ["no-such", "--output=x", "a\nb", ""] {
        let said =
            site.build(&Request { source: source(bad), ..site.request() }).unwrap_err().to_string();
        assert!(said.contains("has no git revision") && said.lines().count() == 1, "{said}");
    }
    let said = site.build(&site.request()).unwrap_err().to_string();
    assert!(said.ends_with("was configured or built in place (it has .config)"), "{said}");
}

#[test]
fn what_is_no_kernel_tree_and_what_is_no_name_is_said_in_one_line() {
    let site = Site::new();
    let said = |request: Request| site.build(&request).unwrap_err().to_string();
    let source = |path: PathBuf| Request { source: Source::Directory(path), ..site.request() };
    assert_eq!(said(source("/no/such\nplace".into())), "there is no directory /no/such\\nplace");
    let empty = site.path("empty");
    fs::create_dir(&empty).unwrap();
    let why = format!("{} is not the source of a kernel: it has no Kconfig", empty.display());
    assert_eq!(said(source(empty)), why);
    for name in ["..", "a/b", "-x", "a b", "a\nb", "", &"x".repeat(200)] {
        let text = said(Request { name: Some(name.into()), ..site.request() });
        assert!(text.ends_with("is no name for a kernel") && text.lines().count() == 1, "{text}");
    }
    assert!(
        said(Request { name: Some("debian:6.12".into()), ..site.request() })
            .contains("Debian's kernels")
    );
    assert!(find("../x", &site.cache).is_none());
    let named = site.build(&Request { name: Some("my-fix".into()), ..site.request() }).unwrap();
    assert_eq!(find("my-fix", &site.cache).unwrap().dir, named.dir);
}

#[test]
fn a_source_that_changes_while_it_is_read_is_refused() {
    let site = Site::new();
    let origin = source::origin(&site.request().source, &site.cache, &|_| ()).unwrap();
    origin.unchanged().unwrap();
    site.write("linux/mm/gup.c", "int x;\n");
    assert!(origin.unchanged().unwrap_err().to_string().ends_with("changed while it was read"));
}

#[test]
fn a_path_that_make_cannot_bear_is_told_first() {
    let site = Site::new();
    let cache = Cache::at(&site.path("a cache")).unwrap();
    let error = build(&site.request(), &cache, &Notes::default(), &site.stop).unwrap_err();
    assert!(error.to_string().ends_with("make cannot bear ' ' in a path"), "{error}");
}
