//! Real kernel logs and the titles that the console parser gives them.
//!
//! A file of `tests/console` begins with a line on where it comes from and one line `# title: ...` for each complaint in it.

use harness::target::console::splats;
use std::fs;
use std::path::Path;

#[test]
fn real_logs_have_the_titles_that_their_headers_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let header = text.lines().take_while(|line| line.starts_with("# "));
        let want: Vec<&str> = header.filter_map(|line| line.strip_prefix("# title: ")).collect();
        let body: Vec<&str> = text.lines().skip_while(|line| line.starts_with("# ")).collect();
        let splats = splats(&body.join("\n"));
        let got: Vec<&str> = splats.iter().map(|splat| splat.title.as_str()).collect();
        assert_eq!(got, want, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} logs in {}", folder.display());
}
