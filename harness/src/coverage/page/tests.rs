use super::super::map::{Map, Part};
use super::super::survey::{Survey, Surveyed};
use super::*;

/// A map of one file, as if made from sites: line 10 is reached by two programs, 11 in part, 12 and 13 not.
fn example() -> (Map, Survey) {
    let mut map = Map { sites: Part { reached: 2, all: 5 }, ..Map::default() };
    let file = map.files.entry("fs/</script>.c".into()).or_default();
    for (line, reached, all, programs) in
        [(10, 1, 1, &[0, 1][..]), (11, 1, 2, &[1]), (12, 0, 1, &[]), (13, 0, 1, &[])]
    {
        let entry = file.lines.entry(line).or_default();
        entry.sites = Part { reached, all };
        programs.iter().for_each(|n| entry.programs.insert(*n));
        let name = if line < 12 { "lit" } else { "dark" };
        let function = file.functions.entry(name.into()).or_default();
        function.lines.insert(line, reached > 0);
        programs.iter().for_each(|n| function.programs.insert(*n));
    }
    let program = |name: &str, lines| Surveyed { name: name.into(), lines, reached: vec![] };
    let programs = vec![program("long.prog", 9), program("short.prog", 2)];
    (map, Survey::new("debian:6.12+kcov", "6.12.117", "2026-01-01T00:00:00Z".into(), programs))
}

#[test]
fn the_text_names_what_is_reached_and_what_is_not() {
    let (map, survey) = example();
    insta::assert_snapshot!(text(&map, &survey), @r"
    2026-01-01T00:00:00Z: 2 programs on 6.12.117 (debian:6.12+kcov) reach 2 of 5 call sites, 2 of 4 lines, 1 of 2 functions

    fs/</script>.c: 2 of 4 (50 %) lines, 1 of 2 (50 %) functions
          10 lit                                          2 of 2 (100 %)     2 programs
          12 dark                                         0 of 2 (0 %)       0 programs
      not reached: 12-13
    ");
}

#[test]
fn the_page_holds_its_data_and_nothing_in_it_is_script() {
    let (map, survey) = example();
    let page = html(&map, &survey, "reports/coverage", &|_| Some("</script><b>".into()));
    let begin = "<script type=\"application/json\" id=\"data\">";
    let data = page.split_once(begin).unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["files"][0]["path"], "fs/</script>.c");
    assert_eq!(data["files"][0]["source"], "</script><b>");
    assert_eq!(data["files"][0]["lines"][0], serde_json::json!([10, 1, 1, 2, [0, 1]]));
    assert_eq!(data["programs"][0], "short.prog");
    // Nothing is fetched from anywhere.
    assert!(!page.contains("http"), "the page is self-contained");
}

#[test]
fn neighbours_are_drawn_together() {
    assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3 7 9-10");
    assert_eq!(ranges(&[]), "");
}
